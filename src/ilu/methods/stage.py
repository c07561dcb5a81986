"""Stages after the unlearning, named by the last ending of a recipe, such as ``-undo``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Stage:
    """An entry of ``STAGES`` in a file of such a stage.

    ``settings`` is a dataclass whose fields are the flags. ``lab`` has the defaults for the lab's
    model, also those of the data.
    """

    settings: type
    lab: Mapping[str, Any] = field(default_factory=dict[str, Any])
