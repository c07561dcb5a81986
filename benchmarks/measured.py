"""Processor seconds and peak memory of training steps, each measurement in a process of its own."""

import ctypes
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from ilu.models.forward import Frozen, ModelForward
from ilu.models.weight_names import named_trained
from ilu.training.objective import Engine, Memory, Objective, Views, accumulate
from ilu.training.optim.adamw import adamw
from ilu.training.optim.protocol import update
from ilu.types import IGNORE, Batch

Step = Callable[[], float]


def llama(*, width: int, layers: int, vocabulary: int, seed: int = 0) -> nn.Module:
    """A random Llama with tied embeddings, four heads and an MLP four times as wide."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def random_batch(*, rows: int, tokens: int, prompt: int, vocabulary: int, seed: int) -> Batch:
    """Rows without padding whose first ``prompt`` tokens take no loss."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocabulary, (rows, tokens), generator=draw)
    labels = ids.clone()
    labels[:, :prompt] = IGNORE
    return Batch(ids, torch.ones_like(ids), labels)


def trained_only(model: nn.Module, pattern: str) -> dict[str, nn.Parameter]:
    """The weights that match, which alone have a gradient from now on."""
    named = dict(named_trained(model, pattern))
    for name, p in model.named_parameters():
        p.requires_grad_(name in named)
    return named


def our_step(
    model: nn.Module,
    objective: Objective,
    batches: Mapping[str, Batch],
    pattern: str = "",
    *,
    packed: bool = False,
) -> Step:
    """A step of ``training.fit``: objective, clipping and AdamW; returns the weighted loss."""
    named = trained_only(model, pattern)
    needed = any(term.loss.needs.reference for term in objective.values())
    original = {n: p.detach().clone() for n, p in named.items()} if needed else None
    frozen = Frozen(model, original, packed=packed)
    views, memory = Views(ModelForward(model, packed=packed), frozen), Memory()
    engine = Engine(views, views, list(named.values()))
    optimizer, weights = adamw(named, None), {n: t.weight for n, t in objective.items()}

    def step() -> float:
        values = accumulate(objective, engine, batches.__getitem__, memory, 0)
        update(named, optimizer, step=0, rate=1e-5, decay=0.0, clip=1.0)
        for p in named.values():
            p.grad = None
        return sum(float(weights[n]) * v for n, v in values.items())  # pyright: ignore[reportArgumentType]

    return step


def alone(measure: Callable[..., Any], *given: Any) -> Any:
    """What ``measure`` returns in a process forked for it, on one thread."""
    assert torch.get_num_threads() == 1, "a fork inherits no other threads"
    with get_context("fork").Pool(1) as pool:
        return pool.apply(measure, given)


def least_seconds(steps: Sequence[Step], turns: int) -> list[float]:
    """Least processor seconds of each step; they take turns."""
    took: list[list[float]] = [[] for _ in steps]
    for _ in range(turns):
        for step, each in zip(steps, took, strict=True):
            began = time.process_time()
            step()
            each.append(time.process_time() - began)
    return [min(each) for each in took]


def status(key: str) -> int:
    """Bytes of a line of the process's status: VmRSS, or VmHWM, the largest so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024


def return_freed_memory() -> None:
    """Let this process return what it frees at once, so that its resident set is what is in use.

    glibc keeps freed blocks in its heap, and since the blocks that torch requests are aligned, one
    of the same size often does not fit there again. With ``M_MMAP_THRESHOLD`` (-3) each block of 64
    KiB or more is a mapping of its own. This takes a third more time.
    """
    if not ctypes.CDLL("libc.so.6").mallopt(-3, 2**16):
        raise OSError("mallopt refused: memory in use is measured with glibc only")


def peak_mib(make: Callable[[], Step], turns: int = 2) -> float:
    """Growth of the resident set at its largest, over model, optimiser and some steps."""
    if sys.platform != "linux":
        raise OSError("peak memory is read from /proc, which only Linux has")
    Path("/proc/self/clear_refs").write_text("5")
    before, step = status("VmRSS"), make()
    for _ in range(turns):
        step()
    return round((status("VmHWM") - before) / 2**20, 1)
