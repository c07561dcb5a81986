"""Methods by weight arithmetic, time or sparsity. Each function is a recipe."""

from ilu.methods.forget.task_vector import Negation
from ilu.methods.retain.likelihood import NLL
from ilu.methods.robust.rules import L1
from ilu.recipes.method import Plan
from ilu.training.objective import Term


def task_vector(alpha: float = 1.0) -> Plan:
    """Learn the forget set, then go the other way (task arithmetic, arXiv 2212.04089).

    A penalty of -ilu acts on the weights that learn, before they are turned round.

    Args:
        alpha: how far the other way.
    """
    return Plan({"forget": Term(NLL(), on="forget")}, edit=Negation(alpha))


def finetune() -> Plan:
    """Only train on the retain set, and hope that the rest is forgotten (arXiv 1911.04933)."""
    return Plan({"retain": Term(NLL(), on="retain")})


def l1_sparse(l1: float = 1e-4) -> Plan:
    """Train on the retain set and shrink all weights (l1-sparse unlearning, arXiv 2304.04934).

    Args:
        l1: weight of the sum of absolute weights.
    """
    return Plan({"retain": Term(NLL(), on="retain", rule=L1(l1))})
