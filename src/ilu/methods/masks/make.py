"""Compute scores from a model and its data, and a mask from scores."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ilu.data.stream import Role
from ilu.methods.masks.choices import Per, Reduction
from ilu.methods.masks.gradients import Named, fisher, input_squares, loss_gradient
from ilu.methods.masks.scores import Attribution, Evidence, Seen
from ilu.methods.masks.top_k import Scores, check_fractions, nonzero, top_fractions
from ilu.methods.masks.units import Units
from ilu.methods.masks.wagle import FisherWagle, Wagle
from ilu.models.weight_names import named_trained
from ilu.system.scores import Progress
from ilu.types import Example, Loss, Weights


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How weights are scored: the score, its losses and its data.

    Gradients are means over all examples in float32; with ``reduction`` sum they are those of
    WAGLE's code. ``limit`` is the largest number of examples of each set. Only weights whose name
    contains a match of the regular expression ``parameters`` are scored and may move.
    """

    score: Attribution
    forget_loss: Loss
    retain_loss: Loss
    batch_size: int = 4
    reduction: Reduction = "mean"
    limit: int | None = None
    parameters: str = ""

    def __post_init__(self) -> None:
        if self.batch_size < 1 or (self.limit is not None and self.limit < 1):
            raise ValueError(
                f"`batch_size` {self.batch_size}, `limit` {self.limit}: both must be at least 1"
            )


@dataclass(frozen=True, kw_only=True)
class Masking:
    """A mask that a run computes first: the ``fraction`` of weights with the largest scores.

    Without a fraction, all weights with a nonzero score.
    """

    scoring: Scoring
    fraction: float | None
    choice: Per | Units = "model"


class Scales(NamedTuple):
    """Mean absolute values of WAGLE's two terms, theta and g_r / curvature, and mu."""

    theta: float
    retain: float
    mu: float


class Scored(NamedTuple):
    """Scores of a model as a single-use iterator that computes them, and WAGLE's scales."""

    scores: Iterator[tuple[str, Float[Tensor, "..."]]]
    scales: Scales | None


DATA: dict[Evidence, Role] = {
    "forget": "forget", "inputs": "forget", "retain": "retain", "fisher": "retain",
}  # fmt: skip
"""Statistic -> the data set on which it is measured."""
Data = Mapping[str, Sequence[Example]]
"""Examples of ``forget`` and ``retain``."""


def score_weights(
    scoring: Scoring, model: nn.Module, data: Data, progress: Progress = lambda n, done, total: None
) -> Scored:
    """Measure the statistics, then score tensor by tensor and free the statistics of each."""
    named = named_trained(model, scoring.parameters)
    seen = evidence(scoring, model, named, data, progress)
    scales = balanced(scoring.score, named, seen.get("retain"), seen.get("fisher"))
    score = scoring.score
    if isinstance(score, Wagle | FisherWagle) and scales:
        score = replace(score, mu=scales.mu)
    return Scored(scored(score, named, seen), scales)


@torch.no_grad()
def scored(
    score: Attribution, named: Named, seen: Mapping[Evidence, dict[str, Tensor]]
) -> Iterator[tuple[str, Tensor]]:
    """The scores of each tensor with all statistics that the score needs."""
    for name, p in named.items():
        if all(name in seen[kind] for kind in score.needs):
            of_tensor = Seen(**{kind: seen[kind].pop(name) for kind in score.needs})
            yield name, score(name, p.detach().float(), of_tensor)


def evidence(
    scoring: Scoring, model: nn.Module, named: Named, data: Data, progress: Progress
) -> dict[Evidence, dict[str, Tensor]]:
    """The statistics that the score needs, by kind and tensor."""
    needs, size = scoring.score.needs, scoring.batch_size

    for need in needs:
        if not data.get(DATA[need]):
            raise ValueError(f"the score needs `{DATA[need]}`: give a file or hub dataset")

    def examples(name: str) -> Sequence[Example]:
        return data[name][: scoring.limit]

    def shown(name: str) -> Any:
        return lambda done, total: progress(f"mask: {name}", done, total)

    def slope(kind: str, loss: Loss) -> Weights:
        return loss_gradient(
            model,
            named,
            loss,
            examples(kind),
            batch_size=size,
            reduction=scoring.reduction,
            progress=shown(f"{kind} gradient"),
        )

    makers: dict[Evidence, Any] = {
        "forget": lambda: slope("forget", scoring.forget_loss),
        "retain": lambda: slope("retain", scoring.retain_loss),
        "fisher": lambda: fisher(
            model, named, scoring.retain_loss, examples("retain"), progress=shown("curvature")
        ),
        "inputs": lambda: input_squares(
            model, examples("forget"), batch_size=size, progress=shown("inputs")
        ),
    }
    return {kind: dict(makers[kind]()) for kind in needs}


@torch.no_grad()
def balanced(
    score: Attribution, named: Named, retain: Weights | None, fisher: Weights | None
) -> Scales | None:
    """Mean absolute values of both terms, and mu.

    By default mu makes them equal; with the Fisher diagonal it is the mean of that diagonal.
    """
    if retain is None or not isinstance(score, Wagle | FisherWagle):
        return None
    theta, slope = mean_size(named.values()), mean_size(retain.values())
    curved = mean_size(fisher.values()) if fisher else 0.0
    mu = score.mu or curved or slope / max(theta, 1e-30)
    if mu <= 0:
        raise ValueError("the retain gradient is 0, so mu cannot balance it: give `mu`")
    if fisher:
        return Scales(theta, mean_size(g / (fisher[n] + mu) for n, g in retain.items()), mu)
    return Scales(theta, slope / mu, mu)


def mean_size(tensors: Iterable[Tensor]) -> float:
    """Mean absolute value of all entries together."""
    sums = [(x.detach().abs().sum(dtype=torch.float64).item(), x.numel()) for x in tensors]
    return sum(s for s, _ in sums) / max(1, sum(n for _, n in sums))


def choose(
    scores: Scores, fractions: Sequence[float | None], choice: Per | Units
) -> list[Iterator[tuple[str, Bool[Tensor, "..."]]]]:
    """A mask for each fraction, from the same scores; None selects all nonzero scores."""
    shares = [fraction for fraction in fractions if fraction is not None]
    check_fractions(shares)
    if not shares:
        return [nonzero(scores) for _ in fractions]
    if isinstance(choice, Units):
        return [choice(scores, fraction) for fraction in shares]
    return top_fractions(scores, shares, per=choice)
