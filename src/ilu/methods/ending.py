"""Robust variants of any method, named by an ending such as ``-sam``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ilu.training.fit import Optim
from ilu.training.objective import Term

Apply = Callable[[Term, Any, bool], Term]
"""Returns the robust term, from the term, the settings, and whether it is a forget term.

In a method without a forget term the first term becomes robust.
"""


def as_rule(term: Term, rule: Any, forgets: bool) -> Term:
    """The term with the settings as its gradient rule."""
    return replace(term, rule=rule)


def same_optim(optim: Optim, settings: Any) -> Optim:
    """The same training settings."""
    return optim


@dataclass(frozen=True)
class Ending:
    """An entry of ``ENDINGS`` in a file of robust training.

    ``settings`` is a dataclass whose fields are the flags. ``apply`` changes the forget terms,
    ``optim`` the training settings. ``environment`` says whether it needs an environment data set,
    ``adapters`` whether it works with LoRA adapters. ``lab`` has the defaults for the lab's model.
    """

    settings: type
    apply: Apply = as_rule
    optim: Callable[[Optim, Any], Optim] = same_optim
    environment: bool = False
    adapters: bool = True
    lab: Mapping[str, Any] = field(default_factory=dict[str, Any])
