"""Temporary seeding of the global generators, for libraries that use them."""

from collections.abc import Generator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, device: torch.device) -> Generator[None]:
    """Seed the global generators inside the context and restore their state afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        for one in devices:
            state = torch.Generator(one).manual_seed(seed).get_state()
            torch.cuda.set_rng_state(state, one)
        yield
