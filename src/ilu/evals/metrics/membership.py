"""Membership inference: can it be told from a model's likelihoods what it was trained on?

Every score is larger for a likelier member: an AUC of .5 says that nothing can be told, and 1 that
all can. After unlearning, the forget set should look as it does to a model that never saw it, which
need not be .5 and is not 0. Members and non-members must come from one distribution, or the AUC
measures how the two differ.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ilu.data.stream import check_lengths, collate
from ilu.evals.score import mean_score
from ilu.models.blocks import context_length
from ilu.models.forward import ModelForward
from ilu.models.token_math import at_least_float32
from ilu.scores import Score
from ilu.system.checks import check_limit
from ilu.system.optional import need
from ilu.types import LM, Example, Source

Logps = Sequence[float] | Float[Tensor, " T"]
"""Log-probability of each token of one text, in nats."""
GROUPS = ("members", "nonmembers")
Scored = list[float | None]
"""A membership score per text; None for one without a token to score."""


class TokenStats(NamedTuple):
    """Of each token of a text: its log-probability, and mean and deviation of those of all tokens.

    Mean and deviation are taken under the model's own prediction, so the mean is minus its entropy.
    """

    logp: Float[Tensor, " T"]
    mean: Float[Tensor, " T"]
    std: Float[Tensor, " T"]


def mean_logp(token_logps: Logps) -> float:
    """Minus the loss per token: the attack by loss (arXiv 1709.01604); larger for members."""
    return as_tensor(token_logps).mean().item()


def min_k(token_logps: Logps, *, share: float) -> float:
    """Mean of the lowest ``share`` of the log-probabilities (arXiv 2310.16789); larger for members.

    At least one token; the count is rounded down, as in the authors' code.
    """
    return lowest(as_tensor(token_logps), share)


def min_k_plus_plus(stats: TokenStats, *, share: float) -> float:
    """Min-K% of (log p - mean) / deviation (arXiv 2404.02936); larger for members.

    A prediction without deviation is certain or uniform, and says 0.
    """
    centred = stats.logp - stats.mean
    return lowest((centred / stats.std).where(stats.std > 0, 0.0), share)


def zlib_ratio(token_logps: Logps, text: str) -> float:
    """Mean log-probability per byte of the zlib-compressed text (arXiv 2012.07805)."""
    return mean_logp(token_logps) / len(zlib.compress(text.encode()))


def reference_ratio(token_logps: Logps, reference_logps: Logps) -> float:
    """Log-probability per token less that of a model that saw neither (arXiv 2012.07805)."""
    return mean_logp(token_logps) - mean_logp(reference_logps)


def lowest(values: Float[Tensor, " T"], share: float) -> float:
    """Mean of the lowest ``share`` of the values, of at least one."""
    if not 0 < share <= 1:
        raise ValueError(f"a share of {share:g} of the tokens: it must be above 0 and at most 1")
    count = max(1, int(share * len(values) + 1e-9))  # 0.29 * 100 is 28.999...
    return values.sort().values[:count].mean().item()


def as_tensor(values: Logps) -> Float[Tensor, " T"]:
    """A list of numbers as a tensor; a tensor as it is."""
    return torch.as_tensor(values, dtype=torch.float64)


def token_stats(logits: Float[Tensor, "T V"], tokens: Sequence[int]) -> TokenStats:
    """What Min-K%++ and all others read, from the logits that predict ``tokens``."""
    logp = at_least_float32(logits).log_softmax(-1)
    p = logp.exp()
    mean = (p * logp.where(p > 0, 0.0)).sum(-1)
    centred = (logp - mean[:, None]).where(p > 0, 0.0)
    picked = logp[range(len(tokens)), list(tokens)]
    return TokenStats(picked, mean, (p * centred**2).sum(-1).sqrt())


def auc(members: Sequence[float | None], nonmembers: Sequence[float | None]) -> Score:
    """P(a member scores above a non-member), ties by half; an item is a member's share of these.

    The error is DeLong's (doi 10.2307/2531595): it counts the chance in both groups.
    """
    need("sklearn", "evals", "membership inference")
    import numpy as np
    from sklearn.metrics import roc_auc_score

    of_members, others = scored(members, nonmembers)
    labels = [1] * len(of_members) + [0] * len(others)
    value = float(roc_auc_score(labels, [*of_members, *others]))
    x, y = np.asarray(of_members)[:, None], np.asarray(others)[None]
    beaten = (x > y) + 0.5 * (x == y)
    parts = (beaten.mean(1), beaten.mean(0))
    error = sum(part.var(ddof=1) / len(part) if len(part) > 1 else 0.0 for part in parts) ** 0.5
    shares = iter(parts[0].tolist())
    items = tuple(None if m is None else next(shares) for m in members)
    return Score(value, float(error), len(of_members), items, items.count(None))


def tpr_at_fpr(
    members: Sequence[float | None], nonmembers: Sequence[float | None], *, fpr: float
) -> Score:
    """Share of members found when at most ``fpr`` of the non-members are (arXiv 2112.03570).

    The error is the binomial one over members, at the threshold that the non-members set.
    """
    need("sklearn", "evals", "membership inference")
    from sklearn.metrics import roc_curve

    of_members, others = scored(members, nonmembers)
    labels = [1] * len(of_members) + [0] * len(others)
    false, true, thresholds = roc_curve(labels, [*of_members, *others], drop_intermediate=False)
    best = max(i for i, rate in enumerate(false) if rate <= fpr)
    items = tuple(None if m is None else float(m >= thresholds[best]) for m in members)
    n, value = len(of_members), float(true[best])
    return Score(value, (value * (1 - value) / n) ** 0.5, n, items, items.count(None))


def scored(
    members: Sequence[float | None], nonmembers: Sequence[float | None]
) -> tuple[list[float], list[float]]:
    """The scores that there are; both groups need one."""
    groups = [[s for s in group if s is not None] for group in (members, nonmembers)]
    for name, group in zip(("members", "non-members"), groups, strict=True):
        if not group:
            raise ValueError(f"none of the {name} can be scored: they need 2 tokens or more")
    return groups[0], groups[1]


@dataclass(frozen=True)
class MembershipInference:
    """Five attacks that tell members from non-members; four of them share one pass over the model.

    For each ``NAME_auc`` and, as ``NAME_tpr``, the share of members found at a false-positive rate
    of ``fpr``. The norm of the gradient is left out unless ``gradient`` is set: it costs a backward
    pass per text. ``members_logp`` and ``nonmembers_logp`` have the log-probability per token of
    every text, from which ``reference_attack`` makes the sixth beside a model that saw neither.
    """

    members: Source
    nonmembers: Source
    share: float = 0.2
    fpr: float = 0.01
    gradient: bool = False
    limit: int | None = None
    batch_size: int = 8

    def __post_init__(self) -> None:
        check_limit(self.limit)

    def __call__(self, lm: LM) -> dict[str, Score]:
        sources = (self.members, self.nonmembers)
        groups = [source(lm.tokenizer)[: self.limit] for source in sources]
        members, others = (self.attacks(lm, group) for group in groups)
        pairs = {name: (members[name], others[name]) for name in members}
        aucs = {f"{name}_auc": auc(*pair) for name, pair in pairs.items()}
        tprs = {f"{name}_tpr": tpr_at_fpr(*pair, fpr=self.fpr) for name, pair in pairs.items()}
        logps = {
            f"{group}_logp": mean_score(scores["loss"])
            for group, scores in zip(GROUPS, (members, others), strict=True)
        }
        return aucs | tprs | logps

    def attacks(self, lm: LM, examples: Sequence[Example]) -> dict[str, Scored]:
        """Every attack that needs this model alone, on every text."""
        stats = all_stats(lm, examples, batch_size=self.batch_size)
        texts = [lm.tokenizer.decode(e.ids[e.prompt :], skip_special_tokens=True) for e in examples]
        pairs = list(zip(stats, texts, strict=True))
        found: dict[str, Scored] = {
            "loss": [s and mean_logp(s.logp) for s, _ in pairs],
            "min_k": [s and min_k(s.logp, share=self.share) for s, _ in pairs],
            "min_k_plus_plus": [s and min_k_plus_plus(s, share=self.share) for s, _ in pairs],
            "zlib": [s and zlib_ratio(s.logp, text) for s, text in pairs],
        }
        if self.gradient:
            found["gradient_norm"] = gradient_norms(lm, examples)
        return found


def reference_attack(
    own: Mapping[str, Score], reference: Mapping[str, Score], *, fpr: float = 0.01
) -> Mapping[str, Score]:
    """The attack by ``reference_ratio`` (arXiv 2012.07805) from the scores of both models.

    Each model reads the texts in its own tokens, so the two may have different tokenizers.
    """
    pair = [less(own[f"{g}_logp"].items, reference[f"{g}_logp"].items) for g in GROUPS]
    return {"reference_auc": auc(*pair), "reference_tpr": tpr_at_fpr(*pair, fpr=fpr)}


def less(own: Sequence[float | None], other: Sequence[float | None]) -> Scored:
    """Differences; None where either is."""
    pairs = zip(own, other, strict=True)
    return [None if a is None or b is None else a - b for a, b in pairs]


@torch.no_grad()
def all_stats(lm: LM, examples: Sequence[Example], *, batch_size: int) -> list[TokenStats | None]:
    """Statistics of the tokens of every text that take a loss; None where there are none."""
    check_lengths(examples, context_length(lm.model), "membership inference")
    device, forward = next(lm.model.parameters()).device, ModelForward(lm.model)
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i].ids))
    found: list[TokenStats | None] = [None] * len(examples)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        logits = forward(collate([examples[i] for i in rows]).to(device)).logits
        for row, i in enumerate(rows):
            ids, first = examples[i].ids, max(examples[i].prompt, 1)
            if len(ids) > first:
                found[i] = token_stats(logits[row, first - 1 : len(ids) - 1], ids[first:])
    return found


def gradient_norms(lm: LM, examples: Sequence[Example]) -> Scored:
    """Minus the Euclidean norm of the gradient of the loss per token; larger for members.

    Over all weights at once; open-unlearning takes the mean of one norm per tensor.
    """
    params = [p for p in lm.model.parameters() if p.requires_grad]
    device, forward = next(lm.model.parameters()).device, ModelForward(lm.model)
    found = Scored()
    for example in examples:
        if len(example.ids) <= max(example.prompt, 1):
            found.append(None)
            continue
        loss = -forward.tokens(collate([example]).to(device)).mean().sum()
        grads = torch.autograd.grad(loss, params, allow_unused=True, materialize_grads=True)
        found.append(-(sum(g.double().square().sum().item() for g in grads) ** 0.5))
    return found
