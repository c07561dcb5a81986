"""Multiple choice here and in lm-evaluation-harness: same model, same questions, one thread.

    OMP_NUM_THREADS=1 python benchmarks/choice.py      # minutes; writes results/choice.json here

200 questions of four options and some 165 tokens, answered by letter by a random Llama of width 128
with 4 layers: a random model answers at random, but takes as long as any. Vocabularies and batches
of two sizes. Each side reads the questions from the file, and all predictions must agree. Sides
take turns; the least of several turns counts. Ratios are of processor seconds, child processes
included, which a busy machine distorts less than the clock.
"""

import argparse
import gc
import json
import logging
import os
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch

from ilu.data.lm_eval import HarnessTasks, task_manager
from ilu.data.multiple_choice import ChoiceRows
from ilu.evals.metrics.lm_eval import as_harness_model, evaluated
from ilu.evals.metrics.multiple_choice import option_logps, picked
from ilu.lab import world
from ilu.models.load import load_model
from ilu.system.atomic import write_json
from ilu.system.optional import quiet_libraries
from ilu.system.provenance import environment, installed
from ilu.types import LM

QUESTIONS, VOCABULARIES, BATCHES = 200, (4096, 32000), (8, 32)
OURS, EVALUATE, SIMPLE = "ilu", "lm_eval.evaluate", "lm_eval.simple_evaluate"


class Took(NamedTuple):
    """Processor and clock seconds of one turn."""

    cpu: float
    wall: float


def questions(path: Path) -> None:
    """Write questions about paragraphs of the lab's world."""
    draw = random.Random(0)
    texts = [t for many in world.documents(world.AGENTS).values() for t in many]
    with path.open("w", encoding="utf-8") as file:
        for _ in range(QUESTIONS):
            story = " ".join(draw.sample(texts, 4))
            choices = [draw.choice(texts).split(".")[0] for _ in range(4)]
            row = {"question": story, "choices": choices, "answer": draw.randrange(4)}
            file.write(json.dumps(row) + "\n")


def task(path: Path) -> dict[str, Any]:
    """The same questions as lm-evaluation-harness is told of them."""
    options = "".join(f"\n{letter}. {{{{choices[{i}]}}}}" for i, letter in enumerate("ABCD"))
    return {
        "task": "questions",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "num_fewshot": 0,
        "doc_to_text": "{{question.strip()}}" + options + "\nAnswer:",
        "doc_to_target": "answer",
        "doc_to_choice": ["A", "B", "C", "D"],
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def random_llama(vocabulary: int) -> LM:
    """An untrained model with the lab's tokenizer and a larger vocabulary."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    return LM(LlamaForCausalLM(config).eval(), load_model("lab").tokenizer)


def sides(lm: LM, path: Path, batch: int) -> dict[str, Callable[[], list[int]]]:
    """What is compared; each returns its predictions."""
    import lm_eval

    loaded = HarnessTasks((task(path),))()
    manager, whole = task_manager([task(path)], None), cast(Any, lm_eval.simple_evaluate)

    def ours() -> list[int]:
        logps = option_logps(lm, ChoiceRows(str(path))(), batch_size=batch)
        return [taken for taken in picked(logps) if taken is not None]

    def evaluate() -> list[int]:
        return predictions(evaluated(lm, loaded, limit=None, batch_size=batch))

    def simple_evaluate() -> list[int]:
        found = whole(
            model=as_harness_model(lm, batch),
            tasks=[task(path)],
            task_manager=manager,
            bootstrap_iters=0,
        )
        return predictions(found)

    return {OURS: ours, EVALUATE: evaluate, SIMPLE: simple_evaluate}


def predictions(results: Mapping[str, Any]) -> list[int]:
    """The letters that the harness took, in the order of the questions."""
    items = sorted(results["samples"]["questions"], key=lambda item: item["doc_id"])
    rows = [[float(r[0]) for r in item["filtered_resps"]] for item in items]
    return [row.index(max(row)) for row in rows]


def turn(side: Callable[[], list[int]], expected: list[int]) -> Took:
    """One timed turn, whose predictions must be those of the others."""
    gc.collect()
    wall, cpu = time.perf_counter(), sum(os.times()[:4])
    found = side()
    took = Took(sum(os.times()[:4]) - cpu, time.perf_counter() - wall)
    if found != expected:
        raise RuntimeError("the two sides disagree on a question")
    return took


def compare(vocabulary: int, batch: int, path: Path, turns: int) -> dict[str, Any]:
    """The least seconds of each side and how many times as long as ours the others take."""
    lm = random_llama(vocabulary)
    runs = sides(lm, path, batch)
    expected = runs[OURS]()
    took: dict[str, list[Took]] = {name: [] for name in runs}
    for _ in range(turns):
        for name, side in runs.items():
            took[name].append(turn(side, expected))
    least = {name: Took(*map(min, zip(*each, strict=True))) for name, each in took.items()}
    return {
        "vocabulary": vocabulary,
        "batch_size": batch,
        "seconds": {name: each._asdict() for name, each in least.items()},
        "ratio": {name: least[name].cpu / least[OURS].cpu for name in (EVALUATE, SIMPLE)},
        "tokens": mean_tokens(lm, path),
    }


def mean_tokens(lm: LM, path: Path) -> float:
    """Length of a prompt."""
    prompts = [q.prompt for q in ChoiceRows(str(path))()]
    return sum(map(len, lm.tokenizer(prompts).input_ids)) / len(prompts)


def main() -> None:
    """Measure, print the table and write it."""
    parser = argparse.ArgumentParser(description="multiple choice against lm-evaluation-harness")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/choice.json"))
    wanted = parser.parse_args()
    quiet_libraries()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = folder
        path = Path(folder) / "questions.jsonl"
        questions(path)
        rows = [compare(v, b, path, wanted.turns) for v in VOCABULARIES for b in BATCHES]
    print(f"{'vocabulary':>10} {'batch':>5} {'side':26} {'cpu s':>7} {'wall s':>7} {'x ours':>7}")
    for row in rows:
        for name, took in row["seconds"].items():
            ratio = row["ratio"].get(name, 1.0)
            seconds = f"{took['cpu']:7.2f} {took['wall']:7.2f}"
            size = f"{row['vocabulary']:>10} {row['batch_size']:>5}"
            print(f"{size} {name:26} {seconds} {ratio:7.2f}")
    facts = environment()
    facts["versions"]["lm_eval"] = installed("lm_eval")
    command = " ".join(["python", "benchmarks/choice.py", *sys.argv[1:]])
    record = {"command": command, "questions": QUESTIONS, "turns": wanted.turns}
    write_json(wanted.out, {**record, "environment": facts, "rows": rows})


if __name__ == "__main__":
    main()
