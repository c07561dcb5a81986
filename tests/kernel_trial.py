"""The Triton kernels of the output layer: on a GPU, or in Triton's interpreter.

    TRITON_INTERPRET=1 pytest tests/kernel_trial.py    # without a GPU; `pip install triton` alone

Triton reads that variable when it is imported, so ``test_kernel.py`` runs this file in a process of
its own.
"""

import pytest
import torch
import torch.nn.functional as F

from ilu.losses import head as chunks
from ilu.losses import kernel
from ilu.losses.head import tokens_of
from ilu.predictions import Head, Outputs

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HEADS = {
    "plain": {},
    "bias": {"bias": True},
    "scaled": {"scale": 0.3},
    "capped": {"bias": True, "scale": 2.0, "cap": 3.0},
}
BLOCKS = {
    "one block": {},
    "computed again": {"KEPT": 0},
    "blocks that divide nothing": {"KEPT": 0, "BLOCK": 90, "DEVICE_BLOCK": 90, "ROWS": 3},
}


@pytest.fixture(params=BLOCKS)
def served(request, monkeypatch):
    """Kernels with tiles that divide nothing, and how often each was used."""
    count = {"add_block": 0, "gradient": 0}

    def counted(name):
        inner = getattr(kernel, name)

        def call(*args, **kwargs):
            count[name] += 1
            return inner(*args, **kwargs)

        monkeypatch.setattr(kernel, name, call)

    for name, value in BLOCKS[request.param].items():
        monkeypatch.setattr(chunks, name, value)
    monkeypatch.setattr(kernel, "TILE", 8)
    monkeypatch.setattr(kernel, "serves", lambda z: z.dtype != torch.float64)
    for name in count:
        counted(name)
    return count


def made(kind, dtype=torch.float32, vocabulary=37):
    """Outputs of 3 x 4 positions, 3 of which do not count, and the leaves they depend on."""
    torch.manual_seed(0)
    extra = dict(HEADS[kind])
    leaves = [torch.randn(3, 4, 6), 2 * torch.randn(vocabulary, 6)]
    leaves += [torch.randn(vocabulary)] if extra.pop("bias", False) else []
    leaves = [x.to(DEVICE, dtype).requires_grad_() for x in leaves]
    targets = torch.randint(0, vocabulary, (3, 4), device=DEVICE)
    targets[0, :2], targets[2, 3:] = -100, -100
    return Outputs(leaves[0], targets, Head(*leaves[1:], **extra)), leaves


def exactly(out):
    """The same in float64, where no kernel serves, with leaves of its own."""
    leaves = [x.detach().double().requires_grad_() for x in (out.states, *out.head[:2]) if x is not None]
    return Outputs(leaves[0], out.targets, Head(*leaves[1:], **dict(zip(("scale", "cap"), out.head[2:4])))), leaves


READ = {
    "logp": lambda t: t.logp,
    "entropy": lambda t: t.entropy,
    "gap": lambda t: (-t.logp - t.entropy).sum().square() / 100,
    "npo": lambda t: F.logsigmoid(0.1 * t.sum()),
}
