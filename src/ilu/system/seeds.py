"""Randomness that a step decides, for libraries that draw from the global generators."""

from collections.abc import Generator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, device: torch.device) -> Generator[None]:
    """Let the global generators start from ``seed`` here, and give them back as they were."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        for one in devices:
            state = torch.Generator(one).manual_seed(seed).get_state()
            torch.cuda.set_rng_state(state, one)
        yield
