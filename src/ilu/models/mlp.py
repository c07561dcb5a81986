"""The output projections of the MLPs of chosen blocks, by the structure of the blocks."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ilu.models.blocks import block, blocks, text_config
from ilu.models.matrices import Matrix, is_linear, weight_matrices
from ilu.models.mode import mode_restored
from ilu.models.weight_names import module_name

MLP_OUTPUT = r"mlp\.(down_proj|c_proj|dense_4h_to_h|fc2)|fc2"
"""Name of the last matrix of the MLP, in Llama-like models, GPT-2, GPT-NeoX, Phi and OPT."""
LIKE_AN_MLP = re.compile(r"mlp|moe|ffn|feed_?forward|experts|\bfc2\b", re.I)
"""In the name or class of an MLP, for models that cannot run: those without storage or sharded."""
NO_MLP = re.compile(r"att(entio)?n|mamba|conv|norm|mixer", re.I)
"""In the name or class of other parts, which may have the name of the model in front, like Moe."""
TOKENS, LATER = 8, 2
"""Tokens of the trial, and how many at the end are not changed.

The MLP of RWKV reads the token before as well; the shortest convolutions read three.
"""


def mlp_outputs_pattern(layers: Iterable[int]) -> str:
    """The pattern for the output projections of these blocks, before a model is known.

    It matches their names in usual models; ``mlp_outputs_resolved`` makes it right for any model.
    """
    return rf"\.({'|'.join(map(str, layers))})\.({MLP_OUTPUT})\.weight$"


def mlp_outputs_resolved(model: nn.Module, pattern: str) -> str:
    """A pattern of exactly the output projections of ``model``, if ``pattern`` means them.

    Another pattern is returned unchanged, and so is one that matches the right names already.
    """
    found = re.match(r"\\\.\((\d+(?:\|\d+)*)\)", pattern)
    layers = [int(i) for i in found[1].split("|")] if found else []
    if not found or pattern != mlp_outputs_pattern(layers) or min(layers) >= len(blocks(model)):
        return pattern  # that the layers do not exist is said by the loss that reads them
    wanted = mlp_outputs(model, layers)
    if wanted == [n for n, _ in model.named_parameters() if re.search(pattern, n)]:
        return pattern
    return rf"^(?:{'|'.join(map(re.escape, wanted))})$"


def mlp_outputs(model: nn.Module, layers: Sequence[int]) -> list[str]:
    """Names of the output projections of the MLPs in these blocks, those of experts included.

    An MLP is a part of a block that maps every token by itself, which is tried: a change of earlier
    tokens does not change its output for the last. Attention, recurrence and convolutions do.
    ValueError where no block has an MLP.
    """
    inside = [i for i in layers if i < len(blocks(model))]
    parts = {n: m for i in inside for n, m in parts_of(block_name(model, i), block(model, i))}
    matrices = weight_matrices(model)
    with mode_restored(model):
        model.eval()
        perceptrons = by_token(model, parts) if can_run(model) else by_name(parts)
    chosen = {n for name in perceptrons for n in writers(model, name, matrices)}
    if not chosen:
        last = block_name(model, inside[-1]) if inside else ""
        some = [n for n in matrices if n.startswith(f"{last}.")]
        raise ValueError(
            f"found no MLP in the blocks {', '.join(map(str, layers))} of {type(model).__name__}, "
            "whose output projection would be trained: choose the weights to train with "
            f"`parameters`; names there: {', '.join(some)}"
        )
    return [n for n, _ in model.named_parameters() if n in chosen]


def block_name(model: nn.Module, layer: int) -> str:
    """The name of a block in the model."""
    wanted = block(model, layer)
    return next(n for n, m in model.named_modules() if m is wanted)


def parts_of(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts of a block that are called; lists of modules are not, but what they hold is."""
    for own, child in module.named_children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from parts_of(f"{name}.{own}", child)
        else:
            yield f"{name}.{own}", child


def can_run(model: nn.Module) -> bool:
    """Whether parts of the model can be called by themselves."""
    from torch.distributed.tensor import DTensor

    return not any(p.is_meta or isinstance(p, DTensor) for p in model.parameters())


def by_name(parts: Mapping[str, nn.Module]) -> list[str]:
    """The parts that have the name or the class of an MLP."""
    words = {n: f"{n.rpartition('.')[2]} {type(m).__name__}" for n, m in parts.items()}
    return [n for n, text in words.items() if LIKE_AN_MLP.search(text) and not NO_MLP.search(text)]


class Call(NamedTuple):
    """The arguments of a module and the tensor that it returned, or the first of several."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Tensor | None


def copied(x: Any) -> Any:
    """A copy of a tensor; anything else itself."""
    return x.clone() if isinstance(x, Tensor) else x


@torch.no_grad()
def by_token(model: nn.Module, parts: Mapping[str, nn.Module]) -> list[str]:
    """The parts whose output for the last token does not depend on earlier tokens."""
    calls: dict[str, Call] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if name not in calls:  # copies, since models add to tensors in place
                given = {k: copied(x) for k, x in kwargs.items()}
                calls[name] = Call(tuple(map(copied, args)), given, copied(first_tensor(output)))

        return hook

    hooks = [m.register_forward_hook(keep(n), with_kwargs=True) for n, m in parts.items()]
    untyped: Any = model
    count = untyped.get_input_embeddings().num_embeddings
    ids = torch.arange(TOKENS, device=next(model.parameters()).device)[None] % count
    try:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return [n for n, call in calls.items() if maps_each_token(parts[n], call)]


def maps_each_token(part: nn.Module, call: Call) -> bool:
    """Whether the output for the last token stays while the inputs of earlier tokens change."""
    args, kwargs = list(call.args), dict(call.kwargs)
    places = [(args, i) for i in range(len(args))] + [(kwargs, k) for k in kwargs]
    states = next(((at, k) for at, k in places if is_states(at[k])), None)  # pyright: ignore
    before = call.output
    if states is None or before is None or not is_states(before):
        return False
    where, key = states
    changed = where[key].clone()  # pyright: ignore
    changed[..., : TOKENS - LATER, :] = changed[..., : TOKENS - LATER, :].flip(-1) * 2 + 1
    where[key] = changed  # pyright: ignore
    try:
        after = first_tensor(part(*args, **kwargs))
    except (TypeError, ValueError, IndexError, AttributeError, RuntimeError):
        return False
    return after is not None and torch.allclose(after[..., -1, :], before[..., -1, :], rtol=1e-4)


def is_states(x: Any) -> bool:
    """Whether an argument is a vector for each token of the trial."""
    return isinstance(x, Tensor) and x.is_floating_point() and x.ndim > 1 and x.shape[-2] == TOKENS


def first_tensor(output: Any) -> Tensor | None:
    """The output of a module, or the first of several."""
    first = output[0] if isinstance(output, tuple) and output else output
    return first if isinstance(first, Tensor) else None


def writers(model: Any, part: str, matrices: Mapping[str, Matrix]) -> Iterator[str]:
    """The last matrix of each MLP in ``part`` whose outputs are as wide as the hidden states.

    Each expert that is a module of its own, each stack of experts and the shared expert count as an
    MLP. A matrix between other widths is preferred to a square one, which may be a gate.
    """
    width = text_config(model).hidden_size
    groups: dict[str, list[str]] = {}
    for name, matrix in matrices.items():
        owner = module_name(name)
        if f"{name}.".startswith(f"{part}.") and next(matrix.each()).shape[0] == width:
            linear = is_linear(model.get_submodule(owner))
            groups.setdefault(module_name(owner) if linear else owner, []).append(name)
    single = is_linear(model.get_submodule(part))  # may as well be a projection of attention
    for names in groups.values():
        wide = [n for n in names if next(matrices[n].each()).shape[1] != width]
        if wide or not single:
            yield (wide or names)[-1]
