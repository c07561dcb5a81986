"""Peak memory of a training step where weights lie in parts on several processes (FSDP2).

A process holds its part of weights, gradients and all that is as large, and reads its rows of every
batch. Whole for a moment are the block that computes, the next one, and the weights outside of
blocks: as one vector in which they come, and as the weights that are copied from it; in the
backward pass also their gradients, and those in one vector to be summed. The output layer gives
all logits. Not counted beside what ``memory`` leaves aside: buffers of the communication library,
which gloo on the CPU holds for as long as it likes.
"""

from ilu.data import share_of
from ilu.memory import STATES, Memory, Shape, activations, held_by, needs
from ilu.objective import Term
from ilu.ranks import Ranks
from ilu.recipe import Recipe
from ilu.robust.invariance import Square
from ilu.robust.rules import plain

LOGITS = {"ScaleGradient": 6, "MaxEntropy": 6, "KL": 9, "JSD": 9, "Divergence": 9, "UNDIAL": 9}
"""All logits that exist at once for a loss that is more than the likelihood of its targets.

A test counts those of the penalty and of KL; the others are taken to be like them.
"""
OF_LIKELIHOOD = 4
"""The same for the others: two forward, two more backward."""
FLOAT = 4.0


def peak_in_parts(recipe: Recipe, shape: Shape, length: int, processes: int) -> Memory:
    """The most that one of ``processes`` needs, with examples of ``length`` tokens."""
    optim = recipe.optim
    gradient = FLOAT * shape.trained / processes
    reference = gradient if any(needs(t) for t in recipe.objective.values()) else 0.0
    states = STATES[optim.optimizer] + (FLOAT if optim.average_from is not None else 0.0)
    fixed = Memory(
        weights=FLOAT * shape.weights / processes, gradients=0.0, reference=reference,
        optimizer=states * shape.trained / processes, rules=0.0, activations=0.0, head=0.0,
    )  # fmt: skip
    moments = [step_end(fixed, shape, gradient, processes)]
    for i, term in enumerate(recipe.objective.values()):
        examples = share_of(recipe.data[term.on].batch_size, Ranks(0, processes, sharded=True))
        tokens = length * min(examples, optim.micro_batch or examples)
        before = fixed._replace(gradients=gradient if i else 0.0)
        moments += of_term(before, term, tokens, recipe, shape, gradient)
    return max(moments, key=lambda m: m.total)


def step_end(fixed: Memory, shape: Shape, gradient: float, processes: int) -> Memory:
    """The optimiser's step on the parts."""
    return fixed._replace(gradients=gradient, rules=2 * FLOAT * shape.largest / processes)


def of_term(
    before: Memory, term: Term, tokens: int, recipe: Recipe, shape: Shape, gradient: float
) -> list[Memory]:
    """Moments of a term: a block in the (reference's) forward pass, the loss, the backward pass."""
    plainly = term.rule is plain or isinstance(term.rule, Square)
    rules = 0.0 if plainly else (held_by(term.rule) - 1) * gradient
    kept, block = activations(term, tokens, recipe, shape)
    logits = 0.0 if hasattr(term.loss, "layer") else FLOAT * tokens * shape.vocabulary
    copies = LOGITS.get(type(term.loss).__name__, OF_LIKELIHOOD)
    one = FLOAT * shape.block
    outside = FLOAT * shape.weights - one * shape.layers
    own = before.gradients if before.gradients and plainly else before.gradients + gradient
    head = FLOAT * shape.vocabulary * shape.hidden if shape.head_trained else 0.0
    # The reference's weights are in place, the trained ones beside.
    reference = before.reference + (gradient if needs(term) else 0.0)
    now = before._replace(rules=rules, activations=kept)
    return [
        now._replace(reference=reference, head=logits * needs(term), gathered=2 * (outside + one)),
        now._replace(head=copies * logits),
        now._replace(activations=kept + block, gathered=outside + head + 4 * one),
        now._replace(activations=0.0, gradients=own, gathered=3 * outside),
    ]
