"""Random labels: fine-tune on random tokens instead of the forget texts."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ilu.methods.method import Method, Setup, forget_and_retain
from ilu.models.lm_head_loss import tokens_of
from ilu.models.token_math import with_targets
from ilu.types import Batch, Forward, Needs


@dataclass(frozen=True)
class RandomLabels:
    """Cross-entropy on random tokens, drawn once for every text (after arXiv 1911.04933).

    The draw depends only on the text and ``seed``, so a text has the same labels in every epoch.
    """

    seed: int = 0
    needs = Needs()

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        out = forward(batch)
        drawn = random_tokens(batch, vocabulary=out.vocabulary, seed=self.seed)
        targets = with_targets(out.targets, drawn[:, 1:])
        return -tokens_of(replace(out, targets=targets)).mean()


def random_tokens(batch: Batch, *, vocabulary: int, seed: int) -> Int[Tensor, "B T"]:
    """One uniform token per position, independent of padding."""
    places = torch.arange(1, batch.input_ids.shape[1] + 1, device=batch.input_ids.device)
    keys = (batch.input_ids * batch.attention_mask * places).sum(-1).tolist()
    drawn = [
        torch.randint(
            vocabulary,
            (batch.input_ids.shape[1],),
            generator=torch.Generator().manual_seed(seed * 1_000_003 + key),
        )
        for key in keys
    ]
    return torch.stack(drawn).to(batch.input_ids.device)


def random_labels(gamma: float = 1.0, label_seed: int = 0) -> Setup:
    """Fine-tune on random tokens instead of the forget texts (after arXiv 1911.04933).

    Args:
        gamma: weight of the retain term.
        label_seed: seed of the random tokens.
    """
    return forget_and_retain(RandomLabels(label_seed), 1.0, gamma)


METHODS = {
    "random-labels": Method(
        random_labels, 1e-5, 125, "ours", lab={"lr": 3e-4, "gamma": 0.1, "steps": 100}
    ),
}
