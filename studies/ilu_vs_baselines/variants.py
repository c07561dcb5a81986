"""A variant of unlearning: a recipe, and the settings of it that are tried."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ilu.models.named import LAB
from ilu.recipes import lab
from ilu.recipes.build import build
from ilu.runs.recipe import Recipe
from ilu.types import Source

QUESTIONS, ENVIRONMENT = 240, 16
RETAIN = (5.0, 10.0)
Settings = dict[str, Any]
IMPLIED = (
    "perturbed", "reach", "scale_free", "samples", "reading", "parameters",
    "environment_batch_size", "layerwise", "directions",
)  # fmt: skip
"""Settings that the name of a row says, or that all rows of its kind share; older rows of the table
have ``reach`` for ``perturbed``."""


class Variant(NamedTuple):
    """A recipe and the settings that may be chosen.

    ``environments`` replace the task sums; ``base`` is the variant that its gain is computed over,
    where that is not the method alone.
    """

    recipe: str
    choices: Sequence[Settings]
    reading: str | None = None
    environments: Sequence[Source] = ()
    base: str | None = None

    def built(self, choice: int, seed: int) -> Recipe:
        """The recipe with a setting, and without attacks."""
        drawn = {"direction_seed": seed} if self.recipe.startswith("rmu") else {}
        given = {"model": LAB, "seed": seed, "environment_batch_size": ENVIRONMENT}
        made = build(self.recipe, {**given, **drawn, **self.choices[choice]})
        made = over_others(made, self.environments) if self.environments else made
        return replace(made, metrics=lab.metrics(QUESTIONS))


def over_others(made: Recipe, sources: Sequence[Source]) -> Recipe:
    """The recipe with a penalty over each of these environments."""
    feed, penalty = made.data["environment"], made.objective["invariance"]
    feeds = {f"environment{i}": replace(feed, source=s) for i, s in enumerate(sources, start=1)}
    penalties = {f"invariance{i}": replace(penalty, on=name) for i, name in enumerate(feeds, 1)}
    terms = {name: term for name, term in made.objective.items() if term is not penalty}
    data = {name: each for name, each in made.data.items() if each is not feed}
    return replace(made, data={**data, **feeds}, objective={**terms, **penalties})


def strengths(values: Sequence[float], **shared: Any) -> list[Settings]:
    """Lambda, with or without other settings."""
    return [{"strength": value, **shared} for value in values]


def around(rho: float, **shared: Any) -> list[Settings]:
    """SAM's radius and twice it, each with the lab's weight of RMU's retain term and twice it."""
    return [{**shared, "rho": r, "alpha": a} for r in (rho, 2 * rho) for a in RETAIN]


def forward(**shared: Any) -> list[Settings]:
    """How far to look ahead, with the same two weights."""
    return [{**shared, "lookahead_step": x, "alpha": a} for x in (3e-3, 6e-3) for a in RETAIN]
