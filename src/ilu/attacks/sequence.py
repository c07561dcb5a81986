"""Several attacks in sequence on the same weights."""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ilu.attacks.interpolate import Interpolate
from ilu.attacks.kind import AttackInputs, AttackKind
from ilu.attacks.merge import Merge
from ilu.attacks.registry import label
from ilu.attacks.weight_edit import WeightEdit
from ilu.data.lazy import joined
from ilu.system.scores import Reached, Score, Steps
from ilu.types import LM, Attack, Example, Group, Metric


@dataclass(frozen=True)
class InTurn:
    """A sequence of ``attacks``, each of which starts from the weights that the previous one left.

    Scores are measured after each attack. The goals of all are measured at the end; their names
    begin with that of their attack.
    """

    attacks: Mapping[str, Attack]

    def __post_init__(self) -> None:
        if len(self.attacks) < 2:
            raise ValueError(f"a sequence of {len(self.attacks)} attacks: it needs at least two")

    @property
    def goals(self) -> Mapping[str, Metric | Group]:
        """The goals of all attacks."""
        return {
            f"{a}_{g}": m if isinstance(m, Metric) else partial(prefixed, a, m)
            for a, part in self.attacks.items()
            for g, m in part.goals.items()
        }

    @property
    def steps(self) -> int:
        """Steps of all attacks."""
        return sum(attack.steps for attack in self.attacks.values())

    def data(self, lm: LM) -> Sequence[Example]:
        """The training examples of all attacks, in their order."""
        return joined([attack.data(lm) for attack in self.attacks.values()])

    def __call__(self, lm: LM, *, reached: Reached, progress: Steps) -> None:
        done, *rest = 0, *self.attacks.values()
        for i, attack in enumerate(self.attacks.values(), start=1):
            attack(
                lm,
                reached=lambda stage: None,
                progress=lambda now, total, before=done: progress(before + now, self.steps),
            )
            done += attack.steps
            reached(f"step {done}" if i < len(rest) else "end")


def prefixed(name: str, group: Group, lm: LM) -> dict[str, Score]:
    """The scores of a group, under names that begin with the name of their attack."""
    return {f"{name}_{metric}": score for metric, score in group(lm).items()}


def other_models(attack: Attack) -> Iterator[tuple[str, str | None]]:
    """Further models that an attack reads, with their revisions."""
    if isinstance(attack, InTurn):
        for part in attack.attacks.values():
            yield from other_models(part)
    if isinstance(attack, WeightEdit) and isinstance(attack.change, Interpolate):
        yield attack.change.original, attack.change.revision
    if isinstance(attack, Merge):
        yield attack.original, attack.revision


def in_turn(argument: str, inputs: AttackInputs) -> InTurn:
    """Fine-tune on several tasks in sequence, with a plus between their names."""
    attacks: dict[str, Attack] = {}
    for task in argument.split("+"):
        attacks[distinct(label(task), attacks)] = inputs.task(task)
    return InTurn(attacks)


def distinct(name: str, others: Collection[str]) -> str:
    """The name, or the first of NAME-2, NAME-3, ... that is not among the others."""
    numbers = (f"{name}-{i}" for i in itertools.count(2))
    return next(each for each in itertools.chain([name], numbers) if each not in others)


ATTACKS: Mapping[str, AttackKind] = {"in-turn": AttackKind(in_turn, example="mood+sums")}
