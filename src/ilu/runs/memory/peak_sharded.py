"""Peak memory of a training step with weights sharded over several processes (FSDP2).

A process has its shards of weights, gradients and optimiser state, and its rows of every batch.
Gathered are the block that computes, the next block, and the weights outside of blocks: as the
vector that is received and as the weights copied from it; in the backward pass also their
gradients and the vector in which these are reduced. The output layer computes all logits. Not
counted, besides what ``peak`` leaves out: buffers of the communication library.
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
    """Peak memory of one of ``processes`` processes, for examples of ``length`` tokens."""
    optim = recipe.optim
    gradient = FLOAT * shape.with_gradient / processes
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
    """The optimiser's step on the shards."""
    return fixed._replace(gradients=gradient, rules=2 * FLOAT * shape.largest / processes)


def of_term(
    before: Memory, term: Term, recipe: Recipe, shape: Shape, length: int, gradient: float,
    processes: int,
) -> Iterator[Memory]:  # fmt: skip
    """Memory at each pass that the rule of a term makes, with the copies of the rule."""

    def tokens(on: str) -> int:
        mine = share_of(recipe.data[on].batch_size, Ranks(0, processes, sharded=True))
        return length * min(mine, recipe.optim.micro_batch or mine)

    alone = not joined(term, recipe)
    copies = term.rule.copies
    own = before.gradients if before.gradients and not alone else before.gradients + gradient
    one = Pass(term.loss, tokens(term.on), exact=alone)
    there = alone * (copies.at_own + copies.added) * gradient
    end = before.gradients if alone and copies.added else own
    yield from of_pass(before._replace(rules=there), one, end, shape, recipe)
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
    """Memory in a block forward, at the loss, in a block backward, and at the end with ``own``."""
    kept, block = activations(one, recipe, shape)
    needs = one.loss.needs
    logits = FLOAT * one.tokens * shape.vocabulary if needs.texts else 0.0
    block_bytes = FLOAT * shape.block
    outside = FLOAT * shape.weights - block_bytes * shape.layers
    head = FLOAT * shape.vocabulary * shape.hidden if shape.head_gradient else 0.0
    now = before._replace(activations=kept)
    # The reference's weights are in the model, the trained ones are stored.
    copied = before.reference * (1 + needs.reference)
    yield now._replace(reference=copied, head=logits * needs.reference,
                       gathered=2 * (outside + block_bytes))  # fmt: skip
    yield now._replace(head=copies_of_logits(needs) * logits)
    yield now._replace(activations=kept + block, gathered=outside + head + 4 * block_bytes)
    yield now._replace(activations=0.0, gradients=own, gathered=3 * outside)


def copies_of_logits(needs: Needs) -> float:
    """Number of copies of all logits that exist at once.

    The likelihood of targets has two copies in the forward and two more in the backward pass.
    """
    of_targets = 6.0 if needs.entropy else 4.0
    rows = 2.0 if needs.chunked else 0.0
    return max(of_targets, needs.logits + rows) + max(0, needs.texts - 1)
