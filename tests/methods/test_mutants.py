"""The known defects of other code, planted on purpose: the tests of our own losses catch each."""

from dataclasses import dataclass

import pytest
import torch

from ilu.methods.forget.npo import npo
from ilu.methods.forget.rmu import steering_vector
from ilu.methods.robust.perturb import move, norm
from ilu.models.token_math import mean_nll
from ilu.types import Copies, Needs, Slope
from tests.contracts import test_losses as contract
from tests.methods import test_rules as rules


@dataclass(frozen=True)
class KLOverPadding:
    """Defect 5: a mean over all positions (arXiv 0000.00000)."""

    needs = Needs(reference=True)

    def __call__(self, forward, reference, batch):
        p, q = (f(batch).logits.log_softmax(-1) for f in (reference, forward))
        return (p.exp() * (p - q)).sum(-1).mean(-1)


@dataclass(frozen=True)
class UnmaskedUndial:
    """Defect 6: -100 as an index, and prompt and padding in the mean (arXiv 0000.00000)."""

    needs = Needs(reference=True)

    def __call__(self, forward, reference, batch):
        out, teacher = forward(batch), reference(batch).logits
        rows, places = (torch.arange(n) for n in out.targets.shape)
        lowered = teacher.clone()
        lowered[rows[:, None], places, out.targets % teacher.shape[-1]] -= 10
        return -(lowered.softmax(-1) * out.logits.log_softmax(-1)).sum(-1).mean(-1)


@dataclass(frozen=True)
class BatchNPO:
    """Defect 8: one ratio for the whole batch (arXiv 0000.00000)."""

    needs = Needs(reference=True)

    def __call__(self, forward, reference, batch):
        means = [mean_nll(o.logits, o.targets) for o in (forward(batch), reference(batch))]
        ours, theirs = (m.mean().expand(len(batch)) for m in means)
        return npo(ours, theirs, beta=0.1)


@dataclass(frozen=True)
class UselessReference:
    """Defect 4: asks for a reference that it never reads (arXiv 0000.00000)."""

    needs = Needs(reference=True)

    def __call__(self, forward, reference, batch):
        out = forward(batch)
        return -mean_nll(out.logits, out.targets)


@dataclass(frozen=True)
class CrossedRMU:
    """A [b] divided by a [b, 1] is a [b, b]: every text by every length (arXiv 0000.00000)."""

    layer: int = 1
    needs = Needs()

    def __call__(self, forward, reference, batch):
        hidden = forward.hidden(batch, self.layer)
        error = (hidden - steering_vector(hidden.shape[-1], seed=0)).square().mean(-1)
        real = batch.attention_mask
        return ((error * real).sum(-1) / real.sum(-1, keepdim=True)).mean(0)


@dataclass(frozen=True)
class RMUOverPadding:
    """Padding in the mean over tokens (arXiv 0000.00000)."""

    layer: int = 1
    needs = Needs()

    def __call__(self, forward, reference, batch):
        hidden = forward.hidden(batch, self.layer)
        return (hidden - steering_vector(hidden.shape[-1], seed=0)).square().mean((-2, -1))


@dataclass(frozen=True)
class DetachedPenalty:
    """A penalty added as a Python number has no gradient (arXiv 0000.00000)."""

    needs = Needs()

    def __call__(self, forward, reference, batch):
        out = forward(batch)
        return mean_nll(out.logits, out.targets).detach()


PLANTED = [
    (KLOverPadding, contract.test_ignores_padding),
    (KLOverPadding, contract.test_a_batch_without_labels_gives_no_gradient),
    (UnmaskedUndial, contract.test_ignores_padding),
    (UnmaskedUndial, contract.test_a_batch_without_labels_gives_no_gradient),
    (BatchNPO, contract.test_an_example_does_not_depend_on_the_others),
    (UselessReference, contract.test_declares_truthfully_whether_it_needs_the_reference),
    (CrossedRMU, contract.test_an_example_does_not_depend_on_the_others),
    (RMUOverPadding, contract.test_ignores_padding),
    (DetachedPenalty, contract.test_gives_a_gradient_to_the_model_and_not_to_the_reference),
]
CRASHES = (DetachedPenalty,)
"""Nothing to differentiate is torch's own error; all others must be found by an assertion."""


@pytest.mark.parametrize(("mutant", "check"), PLANTED, ids=lambda x: getattr(x, "__name__", str(x)))
def test_the_contract_catches(mutant, check, tiny):
    with pytest.raises(RuntimeError if mutant in CRASHES else AssertionError):
        check(mutant, tiny)


@dataclass(frozen=True)
class SubtractingSAM:
    """Defect 10: undone by subtraction."""

    power = None
    copies = Copies(most=2)

    def reads(self):
        return ()

    def __call__(self, params, here, grad_of, step):
        _, grads = here()
        move(params, grads, 0.05 / norm(grads))
        slope = here()
        move(params, grads, -0.05 / norm(grads))
        return slope


@dataclass(frozen=True)
class NumberPenalty:
    """The gradient and curvature penalties as released: a number is added, and no gradient."""

    power = None
    copies = Copies(most=2)

    def reads(self):
        return ()

    def __call__(self, params, here, grad_of, step):
        value, grads = here()
        return Slope(value + norm(grads).item(), grads)


def test_bit_identity_catches_subtraction(tiny):
    with pytest.raises(AssertionError):
        rules.test_rules_leave_weights_bit_identical(SubtractingSAM(), torch.float32, tiny)


def test_the_pull_of_a_penalty_is_missed_when_it_is_a_number(tiny):
    with pytest.raises(AssertionError):
        rules.test_a_penalty_pulls_at_the_weights(NumberPenalty(), tiny)
