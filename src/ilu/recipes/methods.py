"""The unlearning methods as objectives, with the settings that a user may change as arguments.

Each function is a recipe name of the command line; ``-ilu`` and ``-sam`` behind it come from
``variants``. A new method is one more function here and one more row in ``METHODS``.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ilu.forget.ascent import Ascent
from ilu.forget.npo import NPO, TokenNPO
from ilu.forget.rmu import RMU
from ilu.forget.simnpo import SimNPO
from ilu.objective import Objective, Term
from ilu.retain.likelihood import NLL
from ilu.retain.states import States

MLP_OUTPUT = r"mlp\.(down_proj|c_proj|dense_4h_to_h|fc2)|fc2"
"""What the last matrix of the MLP is called: Llama and its like, GPT-2, GPT-NeoX, Phi, OPT."""


@dataclass(frozen=True)
class Plan:
    """An objective, and which weights it trains (a regular expression; empty for all)."""

    objective: Objective
    parameters: str = ""


@dataclass(frozen=True)
class Method:
    """How a recipe makes its plan, and the published learning rate and steps."""

    plan: Callable[..., Plan]
    lr: float
    steps: int
    source: str


def graddiff(gamma: float = 1.0) -> Plan:
    """Gradient ascent on the forget set, likelihood on the retain set (arXiv 2401.06121).

    Args:
        gamma: weight of the retain term.
    """
    return likelihood_plan(Term(Ascent(), on="forget"), gamma)


def npo(beta: float = 0.1, gamma: float = 1.0) -> Plan:
    """NPO on whole answers with a likelihood retain term (arXiv 2404.05868).

    Args:
        beta: how soon an answer counts as forgotten; scale it down for long texts.
        gamma: weight of the retain term.
    """
    return likelihood_plan(Term(NPO(beta), on="forget"), gamma)


def token_npo(beta: float = 2.0, gamma: float = 1.0) -> Plan:
    """NPO on the mean over each answer's tokens (after arXiv 2404.05868).

    Args:
        beta: how soon an answer counts as forgotten; about its length times that of npo.
        gamma: weight of the retain term.
    """
    return likelihood_plan(Term(TokenNPO(beta), on="forget"), gamma)


def simnpo(
    beta: float = 4.5, margin: float = 0.0, gamma: float = 1.0, forget_weight: float = 0.125
) -> Plan:
    """NPO without a reference model, per token (arXiv 2410.07163).

    Args:
        beta: how soon an answer counts as forgotten.
        margin: the loss per token that counts as forgotten, inside the bracket.
        gamma: weight of the retain term.
        forget_weight: weight of the forget term.
    """
    return likelihood_plan(Term(SimNPO(beta, margin), on="forget", weight=forget_weight), gamma)


def rmu(
    layer: int = 7, coefficient: float = 6.5, alpha: float = 1200.0, direction_seed: int = 0
) -> Plan:
    """Misdirect the hidden states of one block, training the three MLPs up to it (2403.03218).

    Args:
        layer: block whose output is steered; 0 is the first.
        coefficient: length of the steering vector; compare it with the hidden states.
        alpha: weight of the retain term on the same hidden states.
        direction_seed: of the steering vector, which has a seed of its own.
    """
    trained = "|".join(str(i) for i in range(max(0, layer - 2), layer + 1))
    objective = {
        "forget": Term(RMU(layer, coefficient, direction_seed), on="forget"),
        "retain": Term(States(layer), on="retain", weight=alpha),
    }
    return Plan(objective, parameters=rf"\.({trained})\.({MLP_OUTPUT})\.weight$")


def likelihood_plan(forget: Term, gamma: float) -> Plan:
    """A forget term with the usual retain term, on all weights."""
    return Plan({"forget": forget, "retain": Term(NLL(), on="retain", weight=gamma)})


METHODS: dict[str, Method] = {
    "graddiff": Method(graddiff, 1e-5, 125, "TOFU: lr 1e-5; stop early, it is unbounded"),
    "npo": Method(npo, 1e-5, 125, "TOFU: lr 1e-5, beta 0.1"),
    "token-npo": Method(token_npo, 1e-5, 125, "ours"),
    "simnpo": Method(simnpo, 1e-5, 125, "TOFU forget10: lr 1e-5, beta 4.5, coefficient 0.125"),
    "rmu": Method(rmu, 5e-5, 150, "WMDP: lr 5e-5, 150 batches, alpha 1200, coefficient 6.5"),
}
"""Recipe name -> method. Likelihood methods: the number of steps of arXiv 2502.05374 on WMDP."""
