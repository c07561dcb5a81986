"""Merging with the original model or with a benign fine-tune of it: linear, TIES, DARE."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ilu.attacks.finetune import FineTune
from ilu.attacks.interpolate import Interpolate, load_original
from ilu.attacks.kind import AttackInputs, AttackKind, number
from ilu.attacks.weight_edit import WeightEdit
from ilu.models.named import check_name, full_name
from ilu.system.errors import unknown
from ilu.system.scores import Reached, Steps
from ilu.types import LM, Attack, Example, Group, Metric

MergeRule = Literal["linear", "ties", "dare"]
RULES: tuple[MergeRule, ...] = get_args(MergeRule)
USUAL: Mapping[MergeRule, float] = {"linear": 0.5, "ties": 0.2, "dare": 0.9}
"""Rule -> its parameter: the share of the other model; the share of a task vector that TIES keeps
(arXiv 2306.01708); the share that DARE drops (arXiv 2311.03099)."""
Vector = Float[Tensor, " N"]
"""All weights of a model, or their change, as one vector."""


@dataclass(frozen=True)
class Merge:
    """Merge the model with ``other``, a fine-tune of the ``original``, or with the original itself.

    theta = theta_o + merge(tau_u, tau_b): tau_u is the change by unlearning, tau_b that by the
    benign fine-tune, and 0 for the original itself. ``rule`` linear is (1 - p) tau_u + p tau_b,
    ``ties`` keeps the share p of each, ``dare`` drops the share p of each and takes the mean; p is
    ``parameter``. The result is not scaled (lambda = 1 in both papers). ``other`` is trained on
    the original first. Holds up to six copies of the weights.
    """

    rule: MergeRule
    original: str
    parameter: float
    other: FineTune | None = None
    revision: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.parameter <= 1 or (self.rule == "dare" and self.parameter == 1):
            raise ValueError(
                f"merging by {self.rule} with {self.parameter:g}: the share must be from 0 to 1, "
                "and below 1 for dare"
            )

    @property
    def goals(self) -> Mapping[str, Metric | Group]:
        """No goals: a merge is measured by what comes back."""
        return {}

    @property
    def steps(self) -> int:
        """The steps of the benign fine-tuning."""
        return self.other.steps if self.other else 0

    def data(self, lm: LM) -> Sequence[Example]:
        """The examples of the benign fine-tuning."""
        check_name(self.original)
        return self.other.data(lm) if self.other else ()

    def __call__(self, lm: LM, *, reached: Reached, progress: Steps) -> None:
        original = load_original(self.original, self.revision, lm.model)
        base = flat(original.model)
        if self.other:
            self.other(original, reached=lambda stage: None, progress=progress)
        own, other = flat(lm.model), flat(original.model)
        if self.rule == "linear":
            merged = own.lerp(other, self.parameter)
        elif self.rule == "ties":
            merged = base + ties([own - base, other - base], self.parameter)
        else:
            draw = torch.Generator().manual_seed(self.seed)
            kept = [dare(each - base, self.parameter, draw) for each in (own, other)]
            merged = base + (kept[0] + kept[1]) / 2
        write(lm.model, merged)
        reached("end")


def ties(vectors: Sequence[Vector], keep: float) -> Vector:
    """Trim, elect signs, merge disjointly (arXiv 2306.01708, algorithm 1).

    Of each tau the share ``keep`` of largest magnitude stays. The sign of a weight is that of the
    sum of the trimmed tau. The result is the mean of those with that sign, leaving out zeros.
    Where the sum is 0 the result is 0; the authors' code takes the majority sign of all weights.
    """
    trimmed = torch.stack([trim(tau, keep) for tau in vectors])
    agree = (trimmed.sign() == trimmed.sum(0).sign()) & (trimmed != 0)
    return (trimmed * agree).sum(0) / agree.sum(0).clamp_min(1)


def trim(tau: Vector, keep: float) -> Vector:
    """tau with all but the share ``keep`` of largest magnitude set to 0."""
    count = round(keep * len(tau))
    if count == 0:
        return torch.zeros_like(tau)
    smallest = tau.abs().kthvalue(len(tau) - count + 1).values
    return torch.where(tau.abs() >= smallest, tau, 0.0)


def dare(tau: Vector, drop: float, draw: torch.Generator) -> Vector:
    """m * tau / (1 - p), where each m is 0 with probability p = ``drop`` (arXiv 2311.03099)."""
    kept = torch.rand(tau.shape, generator=draw) >= drop
    return torch.where(kept.to(tau.device), tau / (1 - drop), 0.0)


@torch.no_grad()
def flat(model: nn.Module) -> Vector:
    """A copy of all weights as one vector, in at least float32."""
    return torch.cat([p.float().flatten() for p in model.parameters()])


@torch.no_grad()
def write(model: nn.Module, weights: Vector) -> None:
    """Write the weights of ``flat`` into a model."""
    parameters = list(model.parameters())
    parts = weights.split([p.numel() for p in parameters])
    for p, part in zip(parameters, parts, strict=True):
        p.copy_(part.view(p.shape))


def merge(argument: str, inputs: AttackInputs) -> Attack:
    """Merge with the original or a fine-tune of it: RULE[@SHARE][:TASK], linear, ties or dare."""
    name, _, task = argument.partition(":")
    name, _, share = name.partition("@")
    known: Mapping[str, MergeRule] = {rule: rule for rule in RULES}
    rule = known.get(name)
    if rule is None:
        raise unknown("rule of merging", name, RULES)
    if inputs.original is None:
        raise ValueError("merging needs the model before unlearning: set `original`")
    original, parameter = full_name(inputs.original), number(share) if share else USUAL[rule]
    if rule == "linear" and not task:
        return WeightEdit(Interpolate(original, parameter))
    other = inputs.task(task) if task else None
    return Merge(rule, original, parameter, other, seed=inputs.seed)


ATTACKS: Mapping[str, AttackKind] = {
    "merge": AttackKind(merge, example="ties:mood", needs="original", zero="linear@0")
}
