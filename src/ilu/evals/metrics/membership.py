"""Membership inference: which texts was a model trained on, judged by its likelihoods?

Every score is larger for a likelier member. An AUC of .5 means that members and non-members are
indistinguishable, and 1 that they are separated perfectly. After unlearning, the AUC of the forget
set should equal that of a model that never saw it, which need not be .5 and is not 0. Members and
non-members must come from one distribution; otherwise the AUC measures how the two differ.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ilu.data.splits import limited
from ilu.data.stream import check_lengths, collate
from ilu.evals.score import mean_score
from ilu.models.blocks import context_length
from ilu.models.forward import ModelForward
from ilu.models.token_math import at_least_float32
from ilu.system.checks import check_limit
from ilu.system.optional import need
from ilu.system.scores import Score
from ilu.types import LM, Example, Source

Logps = Sequence[float] | Float[Tensor, " T"]
"""Log-probability of each token of one text, in nats."""
GROUPS = ("members", "nonmembers")
Scored = list[float | None]
"""A membership score per text; None for one without a token to score."""


class TokenStats(NamedTuple):
    """Log-probability of each token of a text, and mean and deviation over the vocabulary.

    Mean and deviation are taken under the model's prediction, so the mean is minus the entropy.
    """

    logp: Float[Tensor, " T"]
    mean: Float[Tensor, " T"]
    std: Float[Tensor, " T"]


def mean_logp(token_logps: Logps) -> float:
    """Minus the loss per token: the loss attack (arXiv 1709.01604); larger for members."""
    return as_tensor(token_logps).mean().item()


def min_k(token_logps: Logps, *, share: float) -> float:
    """Mean of the lowest ``share`` of the log-probabilities (arXiv 2310.16789); larger for members.

    At least one token; the count is rounded down, as in the authors' code.
    """
    return lowest(as_tensor(token_logps), share)


def min_k_plus_plus(stats: TokenStats, *, share: float) -> float:
    """Min-K% of (log p - mean) / deviation (arXiv 2404.02936); larger for members.

    A prediction with deviation 0 is certain or uniform and counts as 0.
    """
    centred = stats.logp - stats.mean
    return lowest((centred / stats.std).where(stats.std > 0, 0.0), share)


def zlib_ratio(token_logps: Logps, text: str) -> float:
    """Mean log-probability per byte of the zlib-compressed text (arXiv 2012.07805)."""
    return mean_logp(token_logps) / len(zlib.compress(text.encode()))


def reference_ratio(token_logps: Logps, reference_logps: Logps) -> float:
    """Log-probability per token minus that of a model that saw neither (arXiv 2012.07805)."""
    return mean_logp(token_logps) - mean_logp(reference_logps)


def lowest(values: Float[Tensor, " T"], share: float) -> float:
    """Mean of the lowest ``share`` of the values, of at least one."""
    if not 0 < share <= 1:
        raise ValueError(f"a share of {share:g} of the tokens: it must be above 0 and at most 1")
    count = max(1, int(share * len(values) + 1e-9))  # 0.29 * 100 is 28.999...
    return values.sort().values[:count].mean().item()


def as_tensor(values: Logps) -> Float[Tensor, " T"]:
    """The numbers as a float64 tensor."""
    return torch.as_tensor(values, dtype=torch.float64)


def token_stats(logits: Float[Tensor, "T V"], tokens: Sequence[int]) -> TokenStats:
    """The statistics that the attacks use, from the logits that predict ``tokens``."""
    logp = at_least_float32(logits).log_softmax(-1)
    p = logp.exp()
    mean = (p * logp.where(p > 0, 0.0)).sum(-1)
    centred = (logp - mean[:, None]).where(p > 0, 0.0)
    picked = logp[range(len(tokens)), list(tokens)]
    return TokenStats(picked, mean, (p * centred**2).sum(-1).sqrt())


def auc(members: Sequence[float | None], nonmembers: Sequence[float | None]) -> Score:
    """P(a member scores above a non-member), ties count half. An item is one member's share.

    The error is DeLong's (doi 10.2307/2531595), which includes the sampling of both groups.
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
    """Share of members that are detected at a false-positive rate of ``fpr`` (arXiv 2112.03570).

    The error is binomial over members, at the threshold given by the non-members.
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
    """The scores that are not None; ValueError if a group has none."""
    found: list[list[float]] = []
    for name, group in {"members": members, "non-members": nonmembers}.items():
        if not group:
            raise ValueError(f"there are no {name}")
        found.append([score for score in group if score is not None])
        if not found[-1]:
            raise ValueError(f"none of the {name} can be scored: they need 2 tokens or more")
    return found[0], found[1]


@dataclass(frozen=True)
class MembershipInference:
    """Five membership inference attacks, four of which share one forward pass.

    They read the words of a text. A token that ends a text is the same in all texts, so the
    likelihood of its end says nothing of membership.

    Each has ``NAME_auc`` and ``NAME_tpr``, the share of members that are detected at a
    false-positive rate of ``fpr``. The attack by the norm of the gradient runs only with
    ``gradient``: it costs a backward pass per text. ``members_logp`` and ``nonmembers_logp`` are
    the log-probability per token of every text. ``reference_attack`` uses them for a sixth attack,
    which needs a model that saw neither group.
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
        groups = [
            [example.without_end() for example in limited(source(lm.tokenizer), self.limit)]
            for source in sources
        ]
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
        """The scores of every text under the attacks that need only this model."""
        stats = all_stats(lm, examples, batch_size=self.batch_size)
        texts = [lm.tokenizer.decode(e.ids[e.prompt :], skip_special_tokens=True) for e in examples]
        pairs = list(zip(stats, texts, strict=True))
        scores: dict[str, Scored] = {
            "loss": [s and mean_logp(s.logp) for s, _ in pairs],
            "min_k": [s and min_k(s.logp, share=self.share) for s, _ in pairs],
            "min_k_plus_plus": [s and min_k_plus_plus(s, share=self.share) for s, _ in pairs],
            "zlib": [s and zlib_ratio(s.logp, text) for s, text in pairs],
        }
        if self.gradient:
            scores["gradient_norm"] = gradient_norms(lm, examples)
        return scores


def reference_attack(
    scores: Mapping[str, Score], reference: Mapping[str, Score], *, fpr: float = 0.01
) -> Mapping[str, Score]:
    """The attack by ``reference_ratio`` (arXiv 2012.07805), from the scores of both models.

    Each model uses its own tokens, so the two may have different tokenizers.
    """
    pair = [less(scores[f"{g}_logp"].items, reference[f"{g}_logp"].items) for g in GROUPS]
    return {"reference_auc": auc(*pair), "reference_tpr": tpr_at_fpr(*pair, fpr=fpr)}


def less(scores: Sequence[float | None], other: Sequence[float | None]) -> Scored:
    """Differences; None where one value is None."""
    pairs = zip(scores, other, strict=True)
    return [None if a is None or b is None else a - b for a, b in pairs]


@torch.no_grad()
def all_stats(lm: LM, examples: Sequence[Example], *, batch_size: int) -> list[TokenStats | None]:
    """Statistics of the tokens with a loss, for each text; None for a text without such tokens."""
    check_lengths(examples, context_length(lm.model), "membership inference")
    device, forward = next(lm.model.parameters()).device, ModelForward(lm.model)
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i].ids))
    stats: list[TokenStats | None] = [None] * len(examples)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        logits = forward(collate([examples[i] for i in rows]).to(device)).logits
        for row, i in enumerate(rows):
            ids, first = examples[i].ids, max(examples[i].prompt, 1)
            if len(ids) > first:
                stats[i] = token_stats(logits[row, first - 1 : len(ids) - 1], ids[first:])
    return stats


def gradient_norms(lm: LM, examples: Sequence[Example]) -> Scored:
    """Minus the Euclidean norm of the gradient of the loss per token; larger for members.

    Over all weights at once; open-unlearning takes the mean of one norm per tensor.
    """
    params = [p for p in lm.model.parameters() if p.requires_grad]
    device, forward = next(lm.model.parameters()).device, ModelForward(lm.model)
    scores = Scored()
    for example in examples:
        if len(example.ids) <= max(example.prompt, 1):
            scores.append(None)
            continue
        loss = -forward.tokens(collate([example]).to(device)).mean().sum()
        grads = torch.autograd.grad(loss, params, allow_unused=True, materialize_grads=True)
        scores.append(-(sum(g.double().square().sum().item() for g in grads) ** 0.5))
    return scores
