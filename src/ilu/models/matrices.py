"""The weight matrices of a model, defined by their parameters and not by the class of a layer."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ilu.models.blocks import blocks, text_config

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Matrix(NamedTuple):
    """A parameter that is a matrix, a stack of matrices (experts) or a kernel of a convolution.

    ``transposed``: rows are inputs, as in GPT-2, instead of outputs. Each output of a ``kernel`` is
    one row.
    """

    weight: nn.Parameter
    transposed: bool = False
    kernel: bool = False

    def each(self) -> Iterator[Tensor]:
        """Each matrix, as a view whose rows are outputs."""
        w = self.weight.detach()
        if self.kernel:
            yield w.flatten(1)
            return
        for one in w.flatten(0, -3) if w.ndim > 2 else w[None]:
            yield one.T if self.transposed else one


def weight_matrices(model: nn.Module) -> Mapping[str, Matrix]:
    """Name -> matrix: all in the blocks, and linear layers outside of them but the output layer.

    Biases that are stacked as the experts are, embeddings, and tensors with a single dimension
    larger than 1 are no matrices.
    """
    inside = {id(p) for p in blocks(model).parameters()}
    linear = linear_modules(model)
    outside = {id(m.weight) for m in linear.values()}
    names = {id(p): n for n, p in model.named_parameters()}
    found: dict[str, Matrix] = {}
    for module in model.modules():
        for own, p in module.named_parameters(recurse=False):
            wanted = id(p) in inside or id(p) in outside
            if wanted and is_matrix(own, p) and not isinstance(module, nn.Embedding):
                kernel = isinstance(module, CONVOLUTIONS)
                found[names[id(p)]] = Matrix(p, rows_are_inputs(model, module, p), kernel)
    return found


def is_matrix(name: str, p: nn.Parameter) -> bool:
    """Whether two or more dimensions are larger than 1, and it is no bias."""
    floating = p.is_floating_point() and type(p) is nn.Parameter
    return floating and sum(n > 1 for n in p.shape) >= 2 and not name.endswith("bias")


def rows_are_inputs(model: Any, module: nn.Module, p: nn.Parameter) -> bool:
    """Whether a weight is multiplied from the right, as Conv1D and some stacked experts do.

    Of stacked experts without a mark, the first weight of the module reads the hidden states and
    the last writes them, which shows in its shape. Where each matrix has the experts one below the
    other, as in DBRX, all have the width of the hidden states as the last dimension.
    """
    if is_conv1d(module):
        return True
    if isinstance(module, (nn.Linear, nn.Embedding, *CONVOLUTIONS)):
        return False
    width = text_config(model).hidden_size
    if p.ndim < 3:
        flat = [q for n, q in module.named_parameters(recurse=False) if is_matrix(n, q)]
        below = all(q.ndim == 2 and q.shape[-1] == width != q.shape[0] for q in flat)
        return len(flat) > 1 and below and p is flat[-1]
    marked = getattr(module, "is_transposed", None)
    if marked is not None:
        return bool(marked)
    stacks = [
        q for n, q in module.named_parameters(recurse=False) if q.ndim > 2 and is_matrix(n, q)
    ]
    first, last = stacks[0].shape, stacks[-1].shape
    usual = first[-1] == width and last[-2] == width
    return not usual and first[-2] == width and last[-1] == width


def linear_modules(model: nn.Module) -> dict[str, Any]:
    """Name -> nn.Linear or Conv1D, but not the output layer.

    Subclasses may return something else than a linear map, such as routers with their scores.
    """
    untyped: Any = model
    output = untyped.get_output_embeddings()
    return {n: m for n, m in model.named_modules() if is_linear(m) and m is not output}


def is_linear(module: nn.Module) -> bool:
    """Whether a layer is a linear layer, or a subclass of one."""
    return isinstance(module, nn.Linear) or is_conv1d(module)


def is_linear_map(layer: Any, inputs: tuple[Any, ...], output: Any) -> bool:
    """Whether a layer that was called returned the linear map of its input, and nothing else."""
    if not isinstance(output, Tensor):
        return False
    if is_conv1d(layer) or type(layer).forward is nn.Linear.forward:
        return True
    wanted = nn.functional.linear(inputs[0], layer.weight, layer.bias)
    return output.shape == wanted.shape and torch.allclose(output, wanted, rtol=1e-3, atol=1e-4)


def is_conv1d(module: nn.Module) -> bool:
    """Whether a layer is the transposed linear layer of GPT-2."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def share_of_blocks(model: nn.Module, names: Collection[str]) -> float:
    """Share of the weights in the blocks that parameters of these names hold."""
    inside = {id(p) for p in blocks(model).parameters()}
    sizes = {n: p.numel() for n, p in model.named_parameters() if id(p) in inside}
    return sum(size for n, size in sizes.items() if n in names) / sum(sizes.values())
