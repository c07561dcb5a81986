"""Methods that make what is to be forgotten unlikely. Each function is a recipe."""

from ilu.methods.forget.ascent import Ascent
from ilu.methods.forget.divergence import Divergence
from ilu.methods.forget.max_entropy import MaxEntropy
from ilu.methods.forget.npo import NPO, TokenNPO
from ilu.methods.forget.pdu import Flatten
from ilu.methods.forget.satimp import SatImp
from ilu.methods.forget.simnpo import SimNPO
from ilu.methods.forget.wga import WGA
from ilu.methods.retain.likelihood import NLL
from ilu.recipes.method import Plan, Retain, forgetting
from ilu.training.objective import Term
from ilu.training.schedules import Dual


def ascent() -> Plan:
    """Gradient ascent on the forget set and nothing else (TOFU, arXiv 2401.06121)."""
    return Plan({"forget": Term(Ascent(), on="forget")})


def graddiff(gamma: float = 1.0, retain_loss: Retain = "nll") -> Plan:
    """Gradient ascent on the forget set, likelihood on the retain set (arXiv 2401.06121).

    Args:
        gamma: weight of the retain term.
        retain_loss: likelihood, or closeness to the original model: nll, kl, jsd.
    """
    return forgetting(Ascent(), 1.0, gamma, retain_loss)


def kl(gamma: float = 1.0) -> Plan:
    """Gradient ascent with a KL to the original model on the retain set (arXiv 2401.06121).

    Args:
        gamma: weight of the retain term.
    """
    return forgetting(Ascent(), 1.0, gamma, "kl")


def divergence(gamma: float = 1.0, retain_loss: Retain = "kl") -> Plan:
    """Move probability to where the original model has none (WAGLE's KL, arXiv 2410.17509).

    Args:
        gamma: weight of the retain term.
        retain_loss: likelihood, or closeness to the original model: nll, kl, jsd.
    """
    return forgetting(Divergence(), 1.0, gamma, retain_loss)


def npo(beta: float = 0.1, gamma: float = 1.0, retain_loss: Retain = "nll") -> Plan:
    """NPO on whole answers with a likelihood retain term (arXiv 2404.05868).

    Args:
        beta: how soon an answer counts as forgotten; scale it down for long texts.
        gamma: weight of the retain term.
        retain_loss: likelihood, or closeness to the original model: nll, kl, jsd.
    """
    return forgetting(NPO(beta), 1.0, gamma, retain_loss)


def token_npo(beta: float = 2.0, gamma: float = 1.0, retain_loss: Retain = "nll") -> Plan:
    """NPO on the mean over each answer's tokens (after arXiv 2404.05868).

    Args:
        beta: how soon an answer counts as forgotten; about its length times that of npo.
        gamma: weight of the retain term.
        retain_loss: likelihood, or closeness to the original model: nll, kl, jsd.
    """
    return forgetting(TokenNPO(beta), 1.0, gamma, retain_loss)


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
    return forgetting(SimNPO(beta, margin), forget_weight, gamma)


def wga(beta: float = 1.0, gamma: float = 1.0) -> Plan:
    """Ascent weighted by what is still known (WGA, arXiv 2502.19301).

    Args:
        beta: power of the probability in the weight.
        gamma: weight of the retain term.
    """
    return forgetting(WGA(beta), 1.0, gamma)


def satimp(
    saturation: float = 5.0,
    importance: float = 1.0,
    gamma: float = 1.0,
    forget_weight: float = 0.1,
) -> Plan:
    """Ascent weighted by saturation and importance (SatImp, arXiv 2505.11953).

    Args:
        saturation: power of p in the weight of a token.
        importance: power of 1 - p.
        gamma: weight of the retain term.
        forget_weight: weight of the forget term.
    """
    return forgetting(SatImp(saturation, importance), forget_weight, gamma)


def pdu(limit: float = 1.5, dual_rate: float = 1.0, gamma: float = 50.0) -> Plan:
    """Flatten the logits subject to a retain loss of at most ``limit`` (PDU, arXiv 2506.05314).

    Args:
        limit: retain loss, in nats per token, that is let through.
        dual_rate: how fast the weight of the retain term follows its violation.
        gamma: weight of the retain term at the start.
    """
    kept = Term(NLL(), on="retain", weight=Dual(gamma, dual_rate, limit))
    return Plan({"forget": Term(Flatten(), on="forget"), "retain": kept})


def entropy(gamma: float = 1.0) -> Plan:
    """Predict nothing in particular; with -tar it is TAR (arXiv 2408.00761).

    Args:
        gamma: weight of the retain term.
    """
    return forgetting(MaxEntropy(), 1.0, gamma)
