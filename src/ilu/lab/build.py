"""Build the lab's model: a BPE tokenizer and a small Llama pretrained on the lab's world."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ilu.data.stream import Stream
from ilu.evals.metrics.multiple_choice import Choice
from ilu.lab import tasks
from ilu.lab.corpus import CONTEXT, corpus
from ilu.lab.domains import DomainName
from ilu.lab.sources import Corpus, Facts, Form, TaskTest
from ilu.methods.retain.likelihood import NLL
from ilu.system.atomic import new_folder, write_json
from ilu.system.scores import Steps
from ilu.training.fit import Optim, Row, fit
from ilu.training.objective import Term
from ilu.types import LM


@dataclass(frozen=True)
class Plan:
    """Size of the model and of its pretraining."""

    vocabulary: int = 2048
    width: int = 128
    depth: int = 6
    heads: int = 4
    optim: Optim = Optim(lr=3e-3, steps=2400, warmup=100, schedule="cosine", weight_decay=0.01)
    batch_size: int = 32
    seed: int = 0
    without: DomainName | None = None
    """A domain that the model never sees. The tokenizer is still trained on all domains."""


def make_tokenizer(texts: Sequence[str], vocabulary: int) -> Any:
    """Byte-level BPE, which encodes any text. Every text begins with ``<s>``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")


def make_model(plan: Plan, vocabulary: int) -> torch.nn.Module:
    """An untrained Llama of the planned size."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(plan.seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=plan.width,
        intermediate_size=plan.width * 8 // 3 // 8 * 8,
        num_hidden_layers=plan.depth,
        num_attention_heads=plan.heads,
        num_key_value_heads=plan.heads,
        max_position_embeddings=4 * CONTEXT,
        bos_token_id=0,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config).eval()


def build(out: Path, plan: Plan, *, progress: Steps) -> dict[str, float]:
    """Make and pretrain the model and save it in ``out``; return and record its scores."""
    started = time.monotonic()
    tokenizer = make_tokenizer(corpus(0), plan.vocabulary)
    lm = LM(make_model(plan, len(tokenizer)), tokenizer)
    examples = Corpus(plan.without)(tokenizer)

    def log(row: Row) -> None:
        progress(int(row["step"]) + 1, plan.optim.steps)

    stream = Stream(examples, plan.batch_size, plan.seed)
    fit(lm.model, {"text": Term(NLL(), on="text")}, {"text": stream}, plan.optim, log=log)
    with new_folder(out) as folder:
        # Half precision halves the size of the package. The scores are of the stored weights.
        lm.model.half().save_pretrained(folder)  # pyright: ignore[reportCallIssue]
        tokenizer.save_pretrained(folder)
        results = scores(LM(lm.model.float(), tokenizer))
        record = {"minutes": (time.monotonic() - started) / 60, "torch": torch.__version__}
        write_json(folder / "build.json", {**record, "without": plan.without, "scores": results})
    return results


def scores(lm: LM) -> dict[str, float]:
    """Accuracies of a lab model: both domains in two forms, and every task."""
    domains: tuple[DomainName, ...] = ("agents", "people")
    forms: tuple[Form, ...] = ("questions", "cloze")
    facts = {f"{d} {form}": Choice(Facts(d, form)) for d in domains for form in forms}
    of_tasks = {t.name: Choice(TaskTest(t.name)) for t in (*tasks.TASKS, tasks.VALIDATION)}
    return {name: metric(lm).value for name, metric in {**facts, **of_tasks}.items()}
