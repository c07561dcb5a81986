"""A kind of prompting attack that a name such as ``softprompt:8`` refers to, and its inputs."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

from ilu.data.multiple_choice import ChoiceRows
from ilu.types import Group, Questions


@dataclass(frozen=True, kw_only=True)
class ProbeInputs:
    """What the builder of a prompting attack receives.

    ``questions`` are measured. The attack learns from others: ``few`` for gradients, ``some`` for a
    choice among few settings, ``many`` for a fit; ``solved`` are for few-shot prompts, with the
    text ``between`` behind each. ``rows`` are the user's questions; on the lab, which has none,
    ``wordings`` are other wordings of ``questions`` and of ``some``.
    """

    questions: Questions
    few: Questions
    some: Questions
    many: Questions
    solved: Questions
    between: str = "\n\n"
    rows: ChoiceRows | None = None
    wordings: tuple[tuple[Questions, ...], tuple[Questions, ...]] = ((), ())
    seed: int = 0


@dataclass(frozen=True)
class ProbeKind:
    """A prompting attack; the docstring of ``build`` says in one sentence what it does.

    ``build`` reads the argument in the attack's name, which is empty without one; ``argument`` says
    whether there may be one. ``only_lab``: it needs questions of the lab. ``letters``: it needs
    answers that recur in several questions, which cloze questions do not have.
    """

    build: Callable[[ProbeInputs, str], Group]
    _: KW_ONLY
    argument: bool = False
    only_lab: bool = False
    letters: bool = False
