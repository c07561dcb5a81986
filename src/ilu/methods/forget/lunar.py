"""LUNAR: redirect the hidden states of forget texts to those of refusals."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from ilu.data.stream import counterpart
from ilu.methods.method import Method, Setup, refusing
from ilu.methods.retain.states import States
from ilu.models.mlp import mlp_outputs_pattern
from ilu.models.state_math import state_distance
from ilu.models.token_math import answered, at_least_float32
from ilu.training.objective import Term
from ilu.types import Batch, Forward, Needs


def mean_state(h: Float[Tensor, "B T D"], tokens: Int[Tensor, "B T"] | Tensor) -> Tensor:
    """Mean state over the marked tokens of each text."""
    marked = tokens.to(h.dtype).unsqueeze(-1)
    return (h * marked).sum(1) / marked.sum(1).clamp_min(1)


def redirected(
    h: Float[Tensor, "B T D"],
    forget: Float[Tensor, "B D"],
    refusal: Float[Tensor, "B D"],
    *,
    c: float,
) -> Float[Tensor, "B T D"]:
    """h + c r with r = refusal - forget, the difference of two mean states (arXiv 2502.07218)."""
    return h + c * (refusal - forget).unsqueeze(1)


@dataclass(frozen=True)
class LUNAR:
    """Squared distance of the output of block ``layer`` from ``redirected`` (arXiv 2502.07218).

    If the last matrix of this block's MLP is all that is trained, the block's output is linear in
    it, and the loss is the least-squares problem of the paper, up to a constant: it has a closed
    form, and the released code minimises it with AdamW, as here. In the paper r is one vector, the
    mean state at the last token of prompts that the model refuses less that of forget prompts. Here
    it is that of each example: its refusal's tokens, read by the original model, less all its own.
    """

    layer: int = 22
    coefficient: float = 2.0

    @property
    def needs(self) -> Needs:
        return Needs(reference=True, texts=0, blocks=(self.layer,))

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        reply = counterpart(batch, 0, "refusal")
        h, g = (at_least_float32(reference.hidden(b, self.layer)) for b in (batch, reply))
        forget, refusal = mean_state(h, batch.attention_mask), mean_state(g, answered(reply.labels))
        target = redirected(h, forget, refusal, c=self.coefficient)
        return state_distance(forward.hidden(batch, self.layer), target, batch.attention_mask)


def lunar(layer: int = 22, coefficient: float = 2.0, alpha: float = 1.0) -> Setup:
    """Redirect hidden states of forget texts to those of refusals (LUNAR, arXiv 2502.07218).

    Only the last matrix of the block's MLP is trained, and the states of the retain set stay.

    Args:
        layer: block whose output is redirected; 0 is the first.
        coefficient: length of the shift, relative to the distance of a text from its refusal.
        alpha: weight of the retain term on the same hidden states.
    """
    objective = {
        "forget": Term(LUNAR(layer, coefficient), on="forget"),
        "retain": Term(States(layer), on="retain", weight=alpha),
    }
    return refusing(Setup(objective, parameters=mlp_outputs_pattern([layer])))


METHODS = {
    "lunar": Method(
        lunar,
        1e-2,
        125,
        "lr, layer of 32, coefficient: released code; steps: ours, it makes 20 passes",
        lab={"lr": 1e-2, "layer": 3, "coefficient": 20.0, "alpha": 10.0, "steps": 200},
    ),
}
