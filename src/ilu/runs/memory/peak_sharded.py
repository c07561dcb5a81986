"""Peak memory of a training step where weights lie in parts on several processes (FSDP2).

A process holds its part of weights, gradients and all that is as large, and reads its rows of every
batch. Whole for a moment are the block that computes, the next one, and the weights outside of
blocks: as one vector in which they come, and as the weights that are copied from it; in the
backward pass also their gradients, and those in one vector to be summed. The output layer gives
all logits. Not counted beside what ``memory`` leaves aside: buffers of the communication library,
which gloo on the CPU holds for as long as it likes.
"""

from collections.abc import Iterator

from ilu.data.stream import share_of
from ilu.methods.retain.likelihood import NLL
from ilu.runs.memory.model_shape import Memory, Shape
from ilu.runs.memory.peak import STATES, Pass, activations, joined
from ilu.runs.recipe import Recipe
from ilu.system.distributed import Ranks
from ilu.training.objective import Term
from ilu.types import Needs

FLOAT = 4.0


def peak_in_parts(recipe: Recipe, shape: Shape, length: int, processes: int) -> Memory:
    """The most that one of ``processes`` needs, with examples of ``length`` tokens."""
    optim = recipe.optim
    gradient = FLOAT * shape.reached / processes
    reference = gradient if any(t.loss.needs.reference for t in recipe.objective.values()) else 0.0
    states = STATES[optim.optimizer] + (FLOAT if optim.average_from is not None else 0.0)
    fixed = Memory(
        weights=FLOAT * shape.weights / processes, gradients=0.0, reference=reference,
        optimizer=states * shape.trained / processes, rules=0.0, activations=0.0, head=0.0,
    )  # fmt: skip
    trained = FLOAT * shape.trained / processes
    found = [step_end(fixed, shape, trained, processes)]
    for i, term in enumerate(recipe.objective.values()):
        before = fixed._replace(gradients=gradient if i else 0.0)
        found += of_term(before, term, recipe, shape, length, gradient, processes)
    return max(found, key=lambda m: m.total)


def step_end(fixed: Memory, shape: Shape, gradient: float, processes: int) -> Memory:
    """The optimiser's step on the parts."""
    return fixed._replace(gradients=gradient, rules=2 * FLOAT * shape.largest / processes)


def of_term(
    before: Memory, term: Term, recipe: Recipe, shape: Shape, length: int, gradient: float,
    processes: int,
) -> Iterator[Memory]:  # fmt: skip
    """Moments of a term: each pass that its rule asks for, and the most that the rule holds."""

    def tokens(on: str) -> int:
        mine = share_of(recipe.data[on].batch_size, Ranks(0, processes, sharded=True))
        return length * min(mine, recipe.optim.micro_batch or mine)

    alone = not joined(term, recipe)
    copies = term.rule.copies
    own = before.gradients if before.gradients and not alone else before.gradients + gradient
    one = Pass(term.loss, tokens(term.on), exact=alone)
    yield from of_pass(
        before._replace(rules=alone * copies.at_own * gradient), one, own, shape, recipe
    )
    for on in term.rule.reads() if alone else ():
        other = Pass(NLL(), tokens(on), exact=True)
        yield from of_pass(
            before._replace(rules=copies.at_other * gradient), other, own, shape, recipe
        )
    if alone:
        yield before._replace(gradients=own, rules=(copies.most - 1) * gradient)


def of_pass(
    before: Memory, one: Pass, own: float, shape: Shape, recipe: Recipe
) -> Iterator[Memory]:
    """A block in the (reference's) forward pass, the loss, a block back, the end with ``own``."""
    kept, block = activations(one, recipe, shape)
    needs = one.loss.needs
    logits = FLOAT * one.tokens * shape.vocabulary if needs.texts else 0.0
    whole = FLOAT * shape.block
    outside = FLOAT * shape.weights - whole * shape.layers
    head = FLOAT * shape.vocabulary * shape.hidden if shape.head_reached else 0.0
    now = before._replace(activations=kept)
    # The reference's weights are in place, the trained ones beside.
    copied = before.reference * (1 + needs.reference)
    yield now._replace(reference=copied, head=logits * needs.reference,
                       gathered=2 * (outside + whole))  # fmt: skip
    yield now._replace(head=copies_of_logits(needs) * logits)
    yield now._replace(activations=kept + block, gathered=outside + head + 4 * whole)
    yield now._replace(activations=0.0, gradients=own, gathered=3 * outside)


def copies_of_logits(needs: Needs) -> float:
    """All logits that exist at once: with a gradient, and those of the rows of each ``per_token``.

    The likelihood of targets has two copies forward and two more backward.
    """
    of_targets = 6.0 if needs.entropy else 4.0
    rows = 2.0 if needs.chunked else 0.0
    return max(of_targets, needs.logits + rows) + max(0, needs.texts - 1)
