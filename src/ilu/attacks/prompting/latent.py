"""Latent perturbation: one vector is added to hidden states, random or optimised by gradient."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ilu.attacks.prompting.kind import ProbeInputs, ProbeKind
from ilu.attacks.prompting.prompts import answered, chosen, correct, disjoint
from ilu.data.stream import collate
from ilu.models.blocks import blocks
from ilu.models.forward import ModelForward, Shift, shifting
from ilu.models.token_math import mean_nll
from ilu.system.scores import Score
from ilu.types import LM, Batch, Question, Questions

Vector = Float[Tensor, " D"]


@dataclass(frozen=True)
class LatentShift:
    """Accuracy with one vector added to every output of a block.

    The norm of the vector is ``size`` times the mean norm of these outputs.
    ``latent_random_accuracy`` uses the best of ``draws`` random directions on ``train``.
    ``latent_gradient_accuracy`` uses a vector that lowers the loss of the right options of
    ``train``, after ``steps`` steps of normalised projected gradient descent. Both are measured on
    ``questions``. This is the attack of latent adversarial training (arXiv 2407.15549) with one
    shift for all texts, as in activation steering (2308.10248). ``layer`` None is the middle block.
    """

    questions: Questions
    train: Questions
    layer: int | None = None
    size: float = 0.3
    draws: int = 4
    steps: int = 8
    seed: int = 0
    batch_size: int = 128

    def __call__(self, lm: LM) -> dict[str, Score]:
        train, questions = disjoint(self.train(), self.questions())
        batch = collate(answered(lm.tokenizer, train)).to(next(lm.model.parameters()).device)
        layer = len(blocks(lm.model)) // 2 if self.layer is None else self.layer
        radius = self.size * mean_norm(lm, batch, layer)
        draw = torch.Generator().manual_seed(self.seed)
        vectors = [of_length(v, radius) for v in directions(lm, batch, layer, self.draws, draw)]
        accuracies = [self._measured(lm, layer, v, train).value for v in vectors]
        best = accuracies.index(max(accuracies))
        pushed = ascended(lm, batch, layer, radius, self.steps)
        return {
            "latent_random_accuracy": self._measured(lm, layer, vectors[best], questions),
            "latent_random_choice": chosen(best),
            "latent_gradient_accuracy": self._measured(lm, layer, pushed, questions),
        }

    def _measured(self, lm: LM, layer: int, by: Vector, questions: list[Question]) -> Score:
        with shifting(lm.model, everywhere(layer, by)):
            return correct(lm, questions, self.batch_size)


def everywhere(layer: int, by: Vector) -> Shift:
    """A shift at all positions of every batch."""
    nothing = torch.zeros(1, 1, dtype=torch.long)
    return Shift(layer, by[None, None], Batch(nothing, nothing, nothing))


def of_length(v: Vector, radius: float) -> Vector:
    """The vector of norm ``radius`` in the direction of ``v``."""
    return radius * v / v.norm().clamp_min(1e-12)


@torch.no_grad()
def mean_norm(lm: LM, batch: Batch, layer: int) -> float:
    """Mean norm of the block's outputs over all tokens except padding."""
    states = ModelForward(lm.model).hidden(batch, layer).float()
    return states.norm(dim=-1)[batch.attention_mask.bool()].mean().item()


def directions(lm: LM, batch: Batch, layer: int, count: int, draw: torch.Generator) -> list[Vector]:
    """Gaussian vectors of the model's hidden width."""
    with torch.no_grad():
        like = ModelForward(lm.model).hidden(batch, layer)[0, 0]
    return [torch.randn(len(like), generator=draw).to(like) for _ in range(count)]


def ascended(lm: LM, batch: Batch, layer: int, radius: float, steps: int) -> Vector:
    """The shift of lowest loss among the iterates of projected gradient descent within ``radius``.

    v <- P(v - radius/2 g/|g|) from v = 0, P the projection onto the ball.
    """
    with torch.no_grad():
        v = torch.zeros_like(ModelForward(lm.model).hidden(batch, layer)[0, 0])
    best, lowest = v, float("inf")
    for step in range(steps + 1):
        value, g = slope(lm, batch, layer, v)
        if value < lowest:
            best, lowest = v, value
        if step < steps:
            moved = v - of_length(g, radius / 2)
            v = moved * min(1.0, radius / max(moved.norm().item(), 1e-12))
    return best


def slope(lm: LM, batch: Batch, layer: int, v: Vector) -> tuple[float, Vector]:
    """Mean loss of the right options under a shift, and its gradient."""
    v = v.detach().requires_grad_()
    with torch.enable_grad(), shifting(lm.model, everywhere(layer, v)):
        outputs = ModelForward(lm.model)(batch)
        loss = mean_nll(outputs.logits, outputs.targets).mean()
        (g,) = torch.autograd.grad(loss, [v])
    return loss.item(), g


def latent_shift(inputs: ProbeInputs, argument: str) -> LatentShift:
    """Add one vector to the hidden states, random or by gradient."""
    return LatentShift(inputs.questions, inputs.some, seed=inputs.seed)


PROBES = {"latent": ProbeKind(latent_shift)}
