"""What ``gpu.py`` measures: models, methods, savings, and the operations that a step needs."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from ilu.methods.forget.ascent import Ascent
from ilu.methods.forget.npo import NPO
from ilu.methods.forget.rmu import RMU
from ilu.methods.retain.likelihood import NLL
from ilu.methods.retain.states import States
from ilu.methods.robust.ilu import ScaleGradient, Square
from ilu.methods.robust.sam import SAM
from ilu.models.blocks import blocks
from ilu.models.lora import Lora
from ilu.training.objective import Objective, Term

LAYER = {"toy": 1, "1B": 7, "7B": 7}
RETAIN = Term(NLL(), on="retain")
LORA = Lora(16, 16.0)
SHAPES: dict[str, dict[str, int]] = {
    "toy": {
        "vocab_size": 128, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    },
    "1B": {
        "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192,
        "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
    },
    "7B": {
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    },
}  # fmt: skip


class Case(NamedTuple):
    """A row: which model, method and weights, and what saves memory."""

    size: str
    method: str
    weights: str
    saving: str = "none"


@dataclass(frozen=True)
class Load:
    """Texts of a step: examples of each stream, and tokens of each."""

    rows: int
    tokens: int
    steps: int = 4


def objective(method: str, layer: int) -> Objective:
    """What the method minimises; the environment is as large as the retain batch."""
    npo = {"forget": Term(NPO(0.1), on="forget"), "retain": RETAIN}
    rmu = {
        "forget": Term(RMU(layer=layer), on="forget"),
        "retain": Term(States(layer=layer), on="retain", weight=1200.0),
    }
    penalty = Term(ScaleGradient(), on="environment", weight=0.5, rule=Square())
    return {
        "graddiff": {"forget": Term(Ascent(), on="forget"), "retain": RETAIN},
        "npo": npo,
        "npo-ilu": {**npo, "invariance": penalty},
        "rmu": rmu,
        "rmu-ilu": {**rmu, "invariance": penalty},
        "npo-sam": {**npo, "forget": replace(npo["forget"], rule=SAM())},
    }[method]


METHODS = ("npo-ilu", "npo", "graddiff", "rmu", "rmu-ilu", "npo-sam")
SAVINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "recompute": {"recompute": True},
    "micro-batch 1": {"micro_batch": 1},
    "adamw8bit": {"optimizer": "adamw8bit"},
    "adamw-bf16": {"optimizer": "adamw-bf16", "precision": "float32", "recompute": True},
    "float32": {"precision": "float32"},
    "no kernels": {},
}
SWITCHED: dict[str, dict[str, str]] = {"no kernels": {"ILU_TRITON": "0"}}
"""Of the environment; every other row has the kernels of the output layer."""


def cases(sizes: tuple[str, ...]) -> list[Case]:
    """Rows, those that matter most first; the same weights stay in place for neighbours."""
    small, large = sizes[0], sizes[-1]
    found = [Case(small, m, "full") for m in METHODS]
    found += [Case(small, "npo-ilu", "full", s) for s in SAVINGS if s != "none"]
    if large != small:
        found += [Case(large, "npo-ilu", "full", "adamw-bf16"), Case(large, "rmu", "full")]
    found += [Case(large, m, "lora", "recompute") for m in METHODS]
    return [*found, Case(large, "npo-ilu", "lora")]


def llama(size: str, device: str, dtype: torch.dtype) -> nn.Module:
    """A model of random weights, made where it will lie."""
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPES[size], tie_word_embeddings=size == "1B")  # pyright: ignore
    with torch.device(device):
        model: Any = LlamaForCausalLM(config)
    return model.to(dtype).eval()


def operations(model: nn.Module, case: Case, terms: Objective, tokens: int) -> float:
    """Floating-point operations of a step, as the text above counts them."""
    whole: Any = model
    depth = len(blocks(model))
    block = sum(p.numel() for p in blocks(model)[0].parameters())
    output = whole.get_output_embeddings().weight.numel()
    lowest = max(0, LAYER[case.size] - 2) if case.method.startswith("rmu") else 0
    lowest = 0 if case.weights == "lora" else lowest
    total = 0.0
    for term in terms.values():
        last = getattr(term.loss, "layer", None)
        top = depth if last is None else last + 1
        forward = 2.0 * (top * block + (output if last is None else 0))
        # Frozen weights need no gradient of their own, only that of what enters them.
        back = 2.0 if case.weights == "lora" else 4.0
        backward = back * ((top - lowest) * block + (output if last is None else 0))
        reference = forward if isinstance(term.loss, States) else 0.0
        total += tokens * ((forward + backward) * passes(term) + reference)
    return total


def passes(term: Term) -> int:
    """How many gradients of its loss a term takes."""
    return 2 if isinstance(term.rule, SAM) else 1
