"""Look-ahead: the gradient of a term after one step of fine-tuning on an environment."""

from dataclasses import dataclass, replace

from ilu.methods.ending import Ending
from ilu.methods.retain.likelihood import NLL
from ilu.methods.robust.perturb import move, restored
from ilu.training.fit import Optim
from ilu.types import Copies, GradHere, GradOf, Grads, Params, Slope


def first_adam_step(g: Grads) -> Grads:
    """The direction of Adam's first step, -sign(g), and 0 for a zero gradient (arXiv 1412.6980)."""
    return tuple(-x.sign() for x in g)


@dataclass(frozen=True)
class LookAhead:
    """Gradient of the term after one step of fine-tuning on an environment, first order.

    l_u(theta - lookahead_step * sign(grad l_i(theta))). ILU (arXiv 2506.01339) makes grad l_i
    small. To first order, this rule instead keeps l_u constant along grad l_i. It is our own, not
    from that paper: TAR (2408.00761) with one step of an adversary that does not know the forget
    set. The step must include weights that a method like RMU does not train: see
    ``Optim.perturbed``.

    Args:
        lookahead_step: size of the step in every weight.
        adversary: the stream of the simulated fine-tuning.
    """

    lookahead_step: float = 1e-4
    adversary: str = "environment"
    power = None
    copies = Copies(3, 2)

    def __post_init__(self) -> None:
        if self.lookahead_step < 0:
            raise ValueError(f"`lookahead_step` {self.lookahead_step}: it must be at least 0")

    def reads(self) -> tuple[str, ...]:
        return (self.adversary,)

    def __call__(self, params: Params, here: GradHere, grad_of: GradOf, step: int) -> Slope:
        _, g = grad_of(NLL(), self.adversary)
        with restored(params):
            move(params, first_adam_step(g), self.lookahead_step)
            return here()


def over_all_weights(optim: Optim, rule: LookAhead) -> Optim:
    """Perturb all weights by default, since a fine-tuning changes all of them."""
    return replace(optim, perturbed="." if optim.perturbed is None else optim.perturbed)


ENDINGS = {
    "lookahead": Ending(
        LookAhead,
        optim=over_all_weights,
        environment=True,
        lab={"lookahead_step": 3e-3, "environment_batch_size": 16},
    ),
}
