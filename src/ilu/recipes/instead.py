"""Methods that learn something else instead. Each function is a recipe."""

from dataclasses import replace

from ilu.methods.forget.ceu import CEU
from ilu.methods.forget.dpo import DPO
from ilu.methods.forget.elm import ELM
from ilu.methods.forget.idk import Refusal
from ilu.methods.forget.jensun import JensUn
from ilu.methods.forget.random_labels import RandomLabels
from ilu.methods.forget.reinforce import Reinforced
from ilu.methods.forget.undial import UNDIAL
from ilu.methods.forget.whp import Generic
from ilu.methods.retain.likelihood import HardLabels
from ilu.recipes.method import Plan, Retain, beside_refusals, contexts, forgetting, no_idea
from ilu.training.fit import Optim
from ilu.training.objective import Term
from ilu.types import Source


def dpo(beta: float = 0.1, gamma: float = 1.0) -> Plan:
    """Prefer refusals to the forget answers (DPO, arXiv 2305.18290; TOFU's IDK-DPO, 2401.06121).

    Args:
        beta: how strongly the original model holds the two back.
        gamma: weight of the retain term.
    """
    return beside_refusals(forgetting(DPO(beta), 1.0, gamma))


def po(gamma: float = 1.0, retain_loss: Retain = "nll") -> Plan:
    """Learn to refuse (PO, or IDK; TOFU, arXiv 2401.06121).

    Args:
        gamma: weight of the retain term.
        retain_loss: likelihood, or closeness to the original model: nll, kl, jsd.
    """
    return beside_refusals(forgetting(Refusal(), 1.0, gamma, retain_loss))


def jensun(gamma: float = 1.0) -> Plan:
    """Bounded divergences to a refusal and to the original model (JensUn, arXiv 2509.02820).

    Args:
        gamma: weight of the retain term.
    """
    return replace(forgetting(JensUn(), 1.0, gamma, "jsd"), beside=no_idea)


def random_labels(gamma: float = 1.0, label_seed: int = 0) -> Plan:
    """Learn random tokens in place of the forget set (after arXiv 1911.04933).

    Args:
        gamma: weight of the retain term.
        label_seed: of the random tokens.
    """
    return forgetting(RandomLabels(label_seed), 1.0, gamma)


def undial(beta: float = 10.0, gamma: float = 1.0) -> Plan:
    """Learn from one's own logits with the right token lowered (UNDIAL, arXiv 2402.10052).

    Args:
        beta: by how much it is lowered.
        gamma: weight of the retain term, which the paper does without.
    """
    return forgetting(UNDIAL(beta), 1.0, gamma)


def ceu(skip: int = 1, gamma: float = 0.0) -> Plan:
    """Learn one's own prediction without the right token (CE-U, arXiv 2503.01224).

    Args:
        skip: answer tokens at the beginning that take no part.
        gamma: weight of a retain term, which the paper does without.
    """
    return forgetting(CEU(skip), 1.0, gamma)


def elm(eta: float = 1000.0, gamma: float = 1.0) -> Plan:
    """Predict what a novice would (ELM, arXiv 2410.02760), without its generated diversions.

    Args:
        eta: how far from the expert and towards the novice.
        gamma: weight of the retain term.
    """
    kept = Term(HardLabels(), on="retain", weight=gamma)
    return Plan({"forget": Term(ELM(eta), on="forget"), "retain": kept}, beside=contexts)


def whp(
    alpha: float = 5.0,
    gamma: float = 0.0,
    reinforce_steps: int = 100,
    reinforce_lr: float = 1e-5,
    reinforce_batch: int = 4,
) -> Plan:
    """Learn what a model reinforced on the forget set would say least (WHP, arXiv 2310.02238).

    Args:
        alpha: how much of what the reinforced model adds is taken off.
        gamma: weight of a retain term, which the paper does without.
        reinforce_steps: steps of the reinforced model on the forget set.
        reinforce_lr: its learning rate.
        reinforce_batch: its batch size.
    """
    optim = Optim(lr=reinforce_lr, steps=reinforce_steps)

    def generic(source: Source, model: str, revision: str | None) -> Source:
        return Reinforced(source, model, alpha, optim, reinforce_batch, revision=revision)

    return replace(forgetting(Generic(), 1.0, gamma), beside=generic)
