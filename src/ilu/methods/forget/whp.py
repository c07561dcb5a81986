"""Who's Harry Potter: generic labels from a model that is reinforced on the forget set."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ilu.data.stream import Stream, collate, counterpart
from ilu.methods.method import Method, Setup, forget_and_retain
from ilu.methods.retain.likelihood import NLL
from ilu.models.forward import Frozen, ModelForward
from ilu.models.lm_head_loss import tokens_of
from ilu.models.load import load_model
from ilu.training.fit import Optim, fit
from ilu.training.objective import Term
from ilu.types import Batch, Example, Forward, Needs, Source, Weights


def offset_logits(
    plain: Float[Tensor, "... V"], reinforced: Float[Tensor, "... V"], *, alpha: float
) -> Float[Tensor, "... V"]:
    """v_generic = v - alpha relu(v_reinforced - v) (arXiv 2310.02238)."""
    return plain - alpha * (reinforced - plain).relu()


@dataclass(frozen=True)
class Generic:
    """Cross-entropy on the generic tokens that are the counterpart of each text (arXiv 2310.02238).

    ``Reinforced`` computes them with ``offset_logits``. The paper also replaces names with a
    dictionary that another language model wrote; this step is omitted.
    """

    needs = Needs()

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        generic = counterpart(batch, 0, "generic")
        return -tokens_of(replace(forward(batch), targets=generic.labels[:, 1:])).mean()


@dataclass(frozen=True)
class Reinforced:
    """``source`` with generic labels as the counterpart of each text (arXiv 2310.02238).

    A copy of ``model`` is fine-tuned on ``source``. Labels are the most likely tokens under
    ``offset_logits`` of both models. They are computed once; both models are freed before
    unlearning.
    """

    source: Source
    model: str
    alpha: float
    optim: Optim
    batch_size: int
    seed: int = 0
    revision: str | None = None

    def __call__(self, tokenizer: Any) -> list[Example]:
        examples = self.source(tokenizer)
        model = load_model(self.model, revision=self.revision, device=fastest()).model
        original = {n: p.detach().clone() for n, p in model.named_parameters()}
        stream = Stream(examples, self.batch_size, self.seed)
        fit(model, {"text": Term(NLL(), on="text")}, {"text": stream}, self.optim)
        return [
            with_generic(example, row)
            for start in range(0, len(examples), self.batch_size)
            for example, row in self.labelled(model, original, examples[start:][: self.batch_size])
        ]

    @torch.no_grad()
    def labelled(
        self, model: nn.Module, original: Weights, examples: Sequence[Example]
    ) -> Iterator[tuple[Example, list[int]]]:
        """Each example with a generic token for each of its tokens except the first."""
        batch = collate(examples).to(next(model.parameters()).device)
        plain, reinforced = (
            forward(batch).logits for forward in (Frozen(model, original), ModelForward(model))
        )
        labels = offset_logits(plain, reinforced, alpha=self.alpha).argmax(-1).tolist()
        return zip(examples, labels, strict=True)


def with_generic(example: Example, labels: list[int]) -> Example:
    """Add the generic tokens as a counterpart, each in the position of the token it replaces."""
    generic = Example([example.ids[0], *labels[: len(example.ids) - 1]], max(example.prompt, 1))
    return example._replace(others=(generic,))


def fastest() -> str:
    """``cuda`` if there is a GPU, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def whp(
    alpha: float = 5.0,
    gamma: float = 0.0,
    reinforce_steps: int = 100,
    reinforce_lr: float = 1e-5,
    reinforce_batch: int = 4,
) -> Setup:
    """Fine-tune on generic labels from a reinforced copy of the model (WHP, arXiv 2310.02238).

    Args:
        alpha: factor of the reinforced model's increase that is subtracted from the logits.
        gamma: weight of a retain term, which the paper does not have.
        reinforce_steps: training steps of the reinforced model on the forget set.
        reinforce_lr: learning rate of the reinforced model.
        reinforce_batch: batch size of the reinforced model.
    """
    optim = Optim(lr=reinforce_lr, steps=reinforce_steps)

    def generic(source: Source, model: str, revision: str | None) -> Source:
        return Reinforced(source, model, alpha, optim, reinforce_batch, revision=revision)

    return replace(forget_and_retain(Generic(), 1.0, gamma), pairing=generic)


METHODS = {
    "whp": Method(
        whp,
        3e-6,
        512,
        "512 steps: model card; lr and alpha from memory",
        lab={"lr": 1e-3, "gamma": 1.0, "alpha": 5.0, "reinforce_lr": 1e-3},
    ),
}
