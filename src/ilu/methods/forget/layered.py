"""Layered unlearning: forget one fold after the other, and retain those that are still to come."""

from dataclasses import replace

from ilu.methods.forget.npo import NPO
from ilu.methods.method import Folds, Method, Retain, Setup, forget_and_retain


def layered(
    beta: float = 0.1,
    gamma: float = 1.0,
    retain_loss: Retain = "nll",
    folds: int = 4,
    fold_group: int = 1,
    fold_gamma: float = 1.0,
) -> Setup:
    """NPO in stages: stage i forgets folds 1 to i and retains later ones (arXiv 2505.09500).

    So every fold but the last is suppressed by several layers of training, and learning a later
    fold again removes only the layers that it was part of. Every step reads an equal part of its
    batch from each fold. The stages are equally long. The paper trains each stage on its own
    mixture of data; here each fold has the same weight in all stages, so that the weight of what is
    forgotten grows. Its base methods are RMU and SimNPO.

    Args:
        beta: how early the loss of an answer saturates.
        gamma: weight of the retain term.
        retain_loss: likelihood, or a divergence from the original model: nll, kl, jsd.
        folds: number of folds and of stages; every fold gets an equal part of `batch_size`.
        fold_group: adjacent examples that stay in one fold, such as all about one person.
        fold_gamma: weight of the likelihood of the folds that are still retained.
    """
    setup = forget_and_retain(NPO(beta), 1.0, gamma, retain_loss)
    return replace(setup, folds=Folds(folds, fold_group, fold_gamma))


METHODS = {
    "layered": Method(
        layered,
        1e-5,
        125,
        "lr, beta, gamma: NPO; 125 steps: WMDP; folds: ours",
        lab={"lr": 3e-4, "steps": 75, "batch_size": 16, "beta": 0.01, "gamma": 3.0, "folds": 3,
             "fold_group": 4},
    ),
}  # fmt: skip
