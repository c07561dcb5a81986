"""Unlearning methods, endings and stages by name, found by walking ``ilu.methods``."""

from collections.abc import Mapping

import ilu.methods
from ilu.methods.ending import Ending
from ilu.methods.method import Method
from ilu.methods.stage import Stage
from ilu.system.discover import discovered


def methods() -> Mapping[str, Method]:
    """Every method by its name."""
    return discovered(ilu.methods, "METHODS")


def endings() -> Mapping[str, Ending]:
    """Every kind of robust training by its ending."""
    return discovered(ilu.methods, "ENDINGS")


def stages() -> Mapping[str, Stage]:
    """Every stage after the unlearning by its ending."""
    return discovered(ilu.methods, "STAGES")
