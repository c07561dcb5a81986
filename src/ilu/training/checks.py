"""Settings that save memory: what they cannot be combined with, and what is left to hold."""

from torch import nn

from ilu.system.distributed import Ranks
from ilu.training.objective import Objective, ends_plainly, joins, passes
from ilu.training.optim.bfloat16 import fits_bfloat16
from ilu.training.optim.by_name import Kind
from ilu.types import Mask


def check_sharded(optimizer: Kind) -> None:
    """Raise ValueError for what cannot work, or has not been shown to, on parts of weights."""
    if optimizer in ("adamw8bit", "adamw-bf16"):
        raise ValueError(
            f"{optimizer} cannot be combined with `shard`: its 8-bit blocks would straddle "
            "the parts. Use adamw, sgd, sophia or soul, or leave out `shard`"
        )


def check_bfloat16(model: nn.Module, objective: Objective, mask: Mask | None) -> None:
    """Raise ValueError for what weights in bfloat16 would round away."""
    ruled = [name for name, term in objective.items() if not joins(term)]
    if ruled:
        raise ValueError(
            f"adamw-bf16 cannot train term {ruled[0]!r}: its gradient is taken at perturbed "
            "weights and bfloat16 would round the perturbation away. Use adamw or adamw8bit"
        )
    if mask is not None and not fits_bfloat16(model):
        raise ValueError(
            "adamw-bf16 cannot keep masked weights: the model has float32 weights that bfloat16 "
            "would round. Use adamw or adamw8bit"
        )


def check_fused(
    objective: Objective,
    mask: Mask | None,
    ranks: Ranks,
    *,
    clip: float | None,
    micro_batch: int | None,
    optimizer: Kind,
) -> None:
    """Raise ValueError where moving one weight needs the gradients of others, or of more passes."""
    reason = {
        f"clips by the norm of all gradients (clip {clip}): turn that off with `clip` None": (
            clip is not None
        ),
        f"has no {optimizer}, which needs all weights: use adamw, sgd, adamw8bit or adamw-bf16": (
            optimizer in ("sophia", "soul")
        ),
        "moves whole weights: leave out `mask`": mask is not None,
        "runs in one process, as several sum their gradients first": ranks.size > 1,
        **of_terms(objective, micro_batch),
    }
    for what, wrong in reason.items():
        if wrong:
            raise ValueError(f"a step with `fused_backward` {what}; or leave out `fused_backward`")


def of_terms(objective: Objective, micro_batch: int | None) -> dict[str, bool]:
    """The same for what the last term does to its gradient."""
    if not objective:
        return {}
    name = [*objective][-1]
    whole = ends_plainly(objective, None)
    return {
        f"ends with a backward pass, but the rule of term {name!r} comes after it: choose a "
        "recipe whose last term has none (of -ilu recipes, `reading` logits)": not whole,
        f"squares or scales term {name!r} as a whole, which micro-batches would split: leave out "
        "`micro_batch`": whole and not ends_plainly(objective, micro_batch),
    }


def check_offloaded(objective: Objective, ranks: Ranks) -> None:
    """Raise ValueError where there are no original weights to keep elsewhere."""
    if ranks.sharded:
        raise ValueError(
            "`offload_reference` keeps whole weights, and with `shard` each process has its part: "
            "leave out one of the two"
        )
    if not any(term.loss.needs_reference for term in objective.values()):
        raise ValueError(
            "`offload_reference` has nothing to keep: no term of this recipe compares with the "
            "original weights. Leave it out"
        )


def held_around(
    name: str, objective: Objective, *, every: float, largest: float, split: bool
) -> tuple[float, float]:
    """Bytes of gradients before the last pass of a term, and what it adds, in a fused backward.

    ``every`` and ``largest`` are the gradients of all weights and of one; a weight that moves needs
    two more as large. ``split``: the term is read in micro-batches.
    """
    first, last = passes(objective)[0], passes(objective)[-1]
    begins = name in first and not split
    ends = name in last and (not split or name == [*last][-1])
    return 0.0 if begins else every, 3 * largest if ends else every
