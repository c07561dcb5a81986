"""Methods that work on hidden states. Each function is a recipe."""

from collections.abc import Iterable

from ilu.methods.forget.circuit_breakers import Reroute
from ilu.methods.forget.repnoise import RepNoise
from ilu.methods.forget.rmu import RMU, AdaptiveRMU, Entries
from ilu.methods.retain.states import StateNorms, States
from ilu.recipes.method import Plan, beside_refusals, forgetting
from ilu.training.objective import Term
from ilu.training.schedules import Ramp
from ilu.types import Loss

MLP_OUTPUT = r"mlp\.(down_proj|c_proj|dense_4h_to_h|fc2)|fc2"
"""What the last matrix of the MLP is called: Llama and its like, GPT-2, GPT-NeoX, Phi, OPT."""


def rmu(
    layer: int = 7,
    coefficient: float = 6.5,
    alpha: float = 1200.0,
    direction: Entries = "positive",
    direction_seed: int = 0,
) -> Plan:
    """Misdirect the hidden states of one block, training the three MLPs up to it (2403.03218).

    Args:
        layer: block whose output is steered; 0 is the first.
        coefficient: length of the steering vector; compare it with the hidden states.
        alpha: weight of the retain term on the same hidden states.
        direction: entries of the steering vector: positive, as published, or gaussian.
        direction_seed: of the steering vector, which has a seed of its own.
    """
    return steering(RMU(layer, coefficient, direction_seed, direction), layer, alpha)


def adaptive_rmu(
    layer: int = 7,
    scale: float = 5.0,
    alpha: float = 1200.0,
    direction: Entries = "positive",
    direction_seed: int = 0,
) -> Plan:
    """RMU with a steering vector as long as the hidden states ask for (arXiv 2408.06223).

    Args:
        layer: block whose output is steered; 0 is the first.
        scale: length of the steering vector relative to the original hidden states.
        alpha: weight of the retain term on the same hidden states.
        direction: entries of the steering vector: positive, as published, or gaussian.
        direction_seed: of the steering vector, which has a seed of its own.
    """
    return steering(AdaptiveRMU(layer, scale, direction_seed, direction), layer, alpha)


def steering(loss: Loss, layer: int, alpha: float) -> Plan:
    """A loss on the output of a block, training the last three MLPs up to it."""
    kept = Term(States(layer), on="retain", weight=alpha)
    return Plan(
        {"forget": Term(loss, on="forget"), "retain": kept},
        parameters=steered_weights(layer),
    )


def steered_weights(layer: int) -> str:
    """Names of what RMU trains: the last matrices of the three MLPs up to ``layer``."""
    trained = "|".join(str(i) for i in range(max(0, layer - 2), layer + 1))
    return rf"\.({trained})\.({MLP_OUTPUT})\.weight$"


def in_blocks(which: Iterable[int]) -> str:
    """Names of all weights in some blocks."""
    return rf"\.({'|'.join(map(str, which))})\."


def circuit_breakers(
    layers: tuple[int, ...] = (9, 19), alpha: float = 10.0, ramp: int = 300
) -> Plan:
    """Turn hidden states away from where they were (representation rerouting, arXiv 2406.04313).

    Args:
        layers: blocks whose outputs are turned and kept; 0 is the first. Left out, the published
            10 and 20, which count the embedding as 0, and on the lab 2 and 4.
        alpha: sum of the two weights.
        ramp: steps in which the weight moves from the forget to the retain term.
    """
    turned = Term(Reroute(layers), on="forget", weight=Ramp(alpha, 0.0, ramp))
    kept = Term(StateNorms(layers), on="retain", weight=Ramp(0.0, alpha, ramp))
    return Plan({"forget": turned, "retain": kept})


def repnoise(layer: int = 20, alpha: float = 1.0, beta: float = 0.001, gamma: float = 1.0) -> Plan:
    """Make the hidden states of the forget texts look like noise (RepNoise, arXiv 2405.14577).

    Args:
        layer: block whose output becomes noise; 0 is the first.
        alpha: weight of the ascent.
        beta: weight of the noise.
        gamma: weight of the retain term.
    """
    return beside_refusals(forgetting(RepNoise(layer, alpha, beta), 1.0, gamma))
