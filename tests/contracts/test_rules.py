"""Every gradient rule declares how many gradients it holds. A new file is picked up by itself."""

import inspect

import pytest
import torch
from torch import nn

import ilu.methods.robust
from ilu.cli.catalogue import RULE, arguments
from ilu.methods.robust.gru import GRU
from ilu.methods.robust.ilu import Penalty, Square, parameters
from ilu.methods.robust.l1 import L1
from ilu.methods.robust.lookahead import LookAhead
from ilu.methods.robust.repselect import RepSelect
from ilu.methods.robust.sam import SAM
from ilu.system.discover import modules
from ilu.types import GradRule, Slope
from tests.methods.test_rules import RULES, name
from tests.runs.test_memory import peak_bytes

COUNT, SIZE = 64, 1024


def rules():
    """The rules of the package with their default settings."""
    for module in modules(ilu.methods.robust):
        for _, cls in inspect.getmembers(module, inspect.isclass):
            if cls.__module__ == module.__name__ and arguments(cls) == RULE:
                yield cls()


TWO = Penalty(parameters, adversaries=("x", "y"))
INSIDE = (Square(), SAM(0.1), LookAhead(1e-3))
WRAPPED = [kind(inner=rule) for kind in (L1, GRU, RepSelect) for rule in INSIDE]
DEFAULT = [rule for rule in rules() if type(rule) not in map(type, RULES)]
FOUND = [*RULES, TWO, *WRAPPED, *DEFAULT]


def test_the_rules_were_found():
    assert {type(rule).__name__ for rule in rules()} >= {"SAM", "Square", "Penalty", "TAR"}
    assert all(isinstance(rule, GradRule) for rule in FOUND)


@pytest.mark.parametrize("rule", FOUND, ids=name)
def test_declares_truthfully_how_many_gradients_it_holds(rule):
    read = set[str]()
    assert count(rule, read) == pytest.approx(rule.copies.most, abs=0.2)
    # 32 exist for a moment where a gradient is taken, so what else exists then is the rest.
    assert count(rule, read, own=32) - 32 == pytest.approx(rule.copies.at_own, abs=0.2)
    if read:
        assert count(rule, read, other=32) - 32 == pytest.approx(rule.copies.at_other, abs=0.2)
    there = rule.copies.at_own + rule.copies.added
    assert count(rule, read, forward=32) - 32 == pytest.approx(there, abs=0.2)
    assert read == set(rule.reads())


def count(rule, read, own=0, other=0, forward=0) -> float:
    """The most gradients that exist while a rule works, if taking one needs so many more.

    ``own`` and ``other`` are needed at the end of a pass, with its gradient; ``forward`` before it.
    """
    params = [nn.Parameter(torch.ones(SIZE)) for _ in range(COUNT)]

    def gradient(more: int, onto=None) -> Slope:
        torch.empty(max(0, more - (onto is not None)) * COUNT * SIZE)
        return Slope(1.0, onto or tuple(torch.ones(SIZE) for _ in params))

    def of_other(loss, on) -> Slope:
        read.add(on)
        return gradient(other)

    def here(onto=None) -> Slope:
        torch.empty(forward * COUNT * SIZE)
        return gradient(own, onto)

    return peak_bytes(lambda: rule(params, here, of_other, 0)) / (COUNT * SIZE * 4)
