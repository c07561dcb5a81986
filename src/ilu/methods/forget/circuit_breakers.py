"""Circuit breakers: turn representations away from where they were."""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ilu.methods.method import Method, Setup
from ilu.methods.retain.states import StateNorms
from ilu.models.state_math import check_layers, compare_states
from ilu.models.weight_names import in_blocks
from ilu.training.objective import Term
from ilu.training.schedules import Ramp
from ilu.types import Batch, Forward, Needs


@dataclass(frozen=True)
class Reroute:
    """relu(cos(h, h_original)) over real tokens and the blocks ``layers`` (arXiv 2406.04313).

    Representation rerouting is done once the two are orthogonal.
    """

    layers: tuple[int, ...] = (9, 19)

    def __post_init__(self) -> None:
        check_layers(self.layers)

    @property
    def needs(self) -> Needs:
        return Needs(reference=True, texts=0, blocks=self.layers)

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        return compare_states(positive_cosine, self.layers, (forward, reference), batch)


def positive_cosine(x: Float[Tensor, "B T D"], y: Float[Tensor, "B T D"]) -> Float[Tensor, "B T"]:
    """relu(cos(x, y)) at every token."""
    return F.cosine_similarity(x, y, dim=-1).relu()


def circuit_breakers(
    layers: tuple[int, ...] = (9, 19), alpha: float = 10.0, ramp: int = 300
) -> Setup:
    """Turn hidden states away from where they were (representation rerouting, arXiv 2406.04313).

    Args:
        layers: blocks whose outputs are turned and kept; 0 is the first. Left out, the published
            10 and 20, which count the embedding as 0, and on the lab 2 and 4.
        alpha: sum of the two weights.
        ramp: steps in which the weight moves from the forget to the retain term.
    """
    turned = Term(Reroute(layers), on="forget", weight=Ramp(alpha, 0.0, ramp))
    kept = Term(StateNorms(layers), on="retain", weight=Ramp(0.0, alpha, ramp))
    return Setup({"forget": turned, "retain": kept})


METHODS = {
    "circuit-breakers": Method(
        circuit_breakers,
        1e-4,
        150,
        "scripts: LoRA 16 in blocks 0 to 20, batch 16",
        {"lora_rank": 16, "batch_size": 16, "parameters": in_blocks(range(21))},
        lab={"lr": 1e-3, "layers": (2, 4), "ramp": 200, "steps": 150},
    ),
}
