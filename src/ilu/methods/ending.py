"""Robust training that any method can have: an ending of its name, such as ``-sam``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ilu.training.fit import Optim
from ilu.training.objective import Term

Apply = Callable[[Term, Any, bool], Term]
"""Makes a term robust, given the settings of the ending and whether the term is to forget.

A method without a forget term has its first term made robust.
"""


def as_rule(term: Term, rule: Any, forgets: bool) -> Term:
    """The term with the settings as its gradient rule."""
    return replace(term, rule=rule)


def same_optim(optim: Optim, settings: Any) -> Optim:
    """The training as it is."""
    return optim


@dataclass(frozen=True)
class Ending:
    """An entry of ``ENDINGS`` in a file of robust training.

    ``settings`` is a dataclass whose fields are the flags. ``apply`` changes the forget terms, and
    ``optim`` the training. ``environment``: it reads one environment. ``adapters``: it can train
    LoRA adapters. ``lab`` are the defaults for the lab's model.
    """

    settings: type
    apply: Apply = as_rule
    optim: Callable[[Optim, Any], Optim] = same_optim
    environment: bool = False
    adapters: bool = True
    lab: Mapping[str, Any] = field(default_factory=dict[str, Any])
