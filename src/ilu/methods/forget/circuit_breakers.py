"""Circuit breakers: make representations of the forget set orthogonal to the original ones."""

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
    """relu(cos(h, h_original)) over tokens without padding and ``layers`` (arXiv 2406.04313).

    Representation rerouting: the loss is 0 once the two are orthogonal.
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
    """Make hidden states orthogonal to the original ones (rerouting, arXiv 2406.04313).

    Args:
        layers: blocks of both losses; 0 is the first. The default is the published 10 and 20,
            which count the embedding as 0; on the lab 2 and 4.
        alpha: sum of the weights of the forget and the retain term.
        ramp: steps over which the weight moves from the forget to the retain term.
    """
    forget = Term(Reroute(layers), on="forget", weight=Ramp(alpha, 0.0, ramp))
    retain = Term(StateNorms(layers), on="retain", weight=Ramp(0.0, alpha, ramp))
    return Setup({"forget": forget, "retain": retain})


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
