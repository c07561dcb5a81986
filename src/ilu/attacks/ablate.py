"""Directional ablation: remove one direction from the residual stream (arXiv 2406.11717)."""

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ilu.attacks.kind import AttackInputs, AttackKind
from ilu.data.lazy import joined
from ilu.data.stream import collate
from ilu.models.blocks import block, blocks, decoder, text_config
from ilu.models.forward import every_hidden
from ilu.models.matrices import Matrix, weight_matrices
from ilu.models.mode import mode_restored
from ilu.system.scores import Reached, Steps
from ilu.types import LM, Example, Metric, Source

DOCUMENTS = 20
"""Documents of the forget set and of the retain set from which the direction is computed."""
WRITERS = re.compile(
    r"\.(o_proj|out_proj|c_proj|wo|dense|dense_4h_to_h|fc2|down_proj|w2)(\.weight)?$"
)
"""Names of the matrices whose output is added to the residual stream, in usual models."""
LEFT = 1e-3
"""Largest part of a hidden state along the direction after ablation, as a share of its norm."""
Direction = Float[Tensor, " D"]


@dataclass(frozen=True)
class Ablate:
    """Ablate the direction in which block ``layer`` tells ``forget`` from ``retain``.

    The projection is folded into every weight that writes to the residual stream: embeddings, and
    the output projections of attention and MLP with their biases. ValueError if that does not
    remove the direction, as in models that normalise after these layers. The output layer changes
    as well if it is tied to the embedding.
    """

    forget: Source
    retain: Source
    layer: int
    batch_size: int = 16
    goals: Mapping[str, Metric] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """No steps."""
        return 0

    def data(self, lm: LM) -> Sequence[Example]:
        """The documents. ValueError if the model lacks the layer."""
        block(lm.model, self.layer)
        return joined([self.forget(lm.tokenizer), self.retain(lm.tokenizer)])

    def __call__(self, lm: LM, *, reached: Reached, progress: Steps) -> None:
        forget, retain = self.forget(lm.tokenizer), self.retain(lm.tokenizer)
        with mode_restored(lm.model):
            lm.model.eval()
            r = direction(
                *(mean_states(lm, part, self.batch_size)[self.layer] for part in (forget, retain))
            )
            fold(lm.model, r)
            check_removed(lm, forget[: self.batch_size], r)
        reached("end")


def direction(forget: Float[Tensor, " D"], retain: Float[Tensor, " D"]) -> Direction:
    """r = (mean h_forget - mean h_retain) / its norm. ValueError if the means are equal."""
    difference = forget - retain
    if not difference.norm() > 0:
        raise ValueError("forget and retain have the same mean hidden state: no direction differs")
    return difference / difference.norm()


def ablated(h: Float[Tensor, "... D"], r: Direction) -> Float[Tensor, "... D"]:
    """h - r r^T h, for every h of the last dimension."""
    return h - (h @ r)[..., None] * r


@torch.no_grad()
def mean_states(lm: LM, examples: Sequence[Example], batch_size: int) -> list[Float[Tensor, " D"]]:
    """Mean output of every block over all tokens of ``examples``, in at least float32."""
    sums: list[Tensor] = []
    count = 0
    device = next(lm.model.parameters()).device
    for start in range(0, len(examples), batch_size):
        batch = collate(examples[start : start + batch_size]).to(device)
        real = batch.attention_mask.bool()
        found = [h[real] for h in every_hidden(lm.model, batch)]
        wide = [h.to(torch.promote_types(h.dtype, torch.float32)).sum(0) for h in found]
        sums = [a + b for a, b in zip(sums, wide, strict=True)] if sums else wide
        count += int(real.sum())
    return [total / count for total in sums]


@torch.no_grad()
def fold(model: nn.Module, r: Direction) -> None:
    """W <- W - r r^T W for every weight that writes to the residual stream, and its bias."""
    for embedding in embeddings(model):
        embedding.weight.copy_(ablated(embedding.weight, r.to(embedding.weight)))
    parameters = dict(model.named_parameters())
    for name, matrix in writers(model).items():
        for rows in matrix.each():
            rows.copy_(ablated(rows.T, r.to(rows)).T)
        bias = parameters.get(re.sub(r"weight$", "bias", name))
        if bias is not None and bias is not matrix.weight:
            bias.copy_(ablated(bias, r.to(bias)))


def embeddings(model: nn.Module) -> list[nn.Embedding]:
    """The embeddings of tokens and positions, as wide as the hidden states."""
    width = text_config(model).hidden_size
    found = [m for m in decoder(model).modules() if isinstance(m, nn.Embedding)]
    return [m for m in found if m.embedding_dim == width]


def writers(model: nn.Module) -> dict[str, Matrix]:
    """Name -> matrix of a block whose output is added to the residual stream."""
    inside = {id(p) for p in blocks(model).parameters()}
    return {
        name: matrix
        for name, matrix in weight_matrices(model).items()
        if id(matrix.weight) in inside and WRITERS.search(name)
    }


def check_removed(lm: LM, examples: Sequence[Example], r: Direction) -> None:
    """ValueError if a block still writes along the direction."""
    batch = collate(examples).to(r.device)
    with torch.no_grad():
        shares = [
            ((h @ r.to(h)).abs() / h.norm(dim=-1).clamp_min(1e-12))[batch.attention_mask.bool()]
            for h in every_hidden(lm.model, batch)
        ]
    largest = max(float(share.max()) for share in shares)
    if largest > LEFT:
        raise ValueError(
            f"after ablation {largest:.2g} of a hidden state is still along the direction: this "
            "model writes to its residual stream by other layers, or normalises after them"
        )


@contextmanager
def ablating(model: nn.Module, r: Direction) -> Generator[None]:
    """Ablate by hooks while the model runs, without a change of its weights.

    At the outputs of embeddings, of the layers that write to the residual stream and of every
    block. Where the weights can be folded, this gives the same hidden states.
    """

    def remove(module: nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            return ablated(output, r.to(output))
        return (ablated(output[0], r.to(output[0])), *output[1:])

    hooks = [m.register_forward_hook(remove, prepend=True) for m in residual_modules(model)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def residual_modules(model: nn.Module) -> Iterator[nn.Module]:
    """The modules after which a hidden state is ablated."""
    yield from embeddings(model)
    yield from blocks(model)
    modules = dict(model.named_modules())
    for name in writers(model):
        if name.endswith(".weight"):
            yield modules[name.removesuffix(".weight")]


def ablate(argument: str, inputs: AttackInputs) -> Ablate:
    """Remove the direction in which one block tells forget from retain documents: ablate:LAYER."""
    if not argument.isdecimal():
        raise ValueError("give the number of a block, as in ablate:2; 0 is the first")
    forget, retain = (inputs.documents(role, DOCUMENTS) for role in ("forget", "retain"))
    return Ablate(forget.feed.source, retain.feed.source, int(argument))


ATTACKS: Mapping[str, AttackKind] = {"ablate": AttackKind(ablate, example="1", needs="forget")}
