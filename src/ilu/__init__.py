"""Unlearning of language-model knowledge that survives later fine-tuning."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Options", "attack", "evaluate", "load_run", "report", "unlearn"]

if TYPE_CHECKING:
    from ilu.recipes.api import Options, attack, evaluate, load_run, report, unlearn


def __dir__() -> list[str]:
    """Complete the names of functions that are not imported yet."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import a function of the package when it is first used: ``import ilu`` loads no torch."""
    if name not in __all__:
        raise AttributeError(f"module 'ilu' has no attribute {name!r}")
    from ilu.system.optional import quiet_libraries

    quiet_libraries()
    from ilu.recipes import api

    return getattr(api, name)
