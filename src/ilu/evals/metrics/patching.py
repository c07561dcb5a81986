"""Activation patching: in which blocks a model lacks what its original knows (arXiv 2605.24614)."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ilu.data.splits import limited
from ilu.data.stream import check_lengths, collate
from ilu.evals.score import mean_score, scored
from ilu.evals.suite import Scores
from ilu.models.blocks import block, blocks, context_length, text_config
from ilu.models.forward import ModelForward, every_hidden
from ilu.models.load import SecondModel, load_model
from ilu.system.checks import check_limit
from ilu.system.scores import Score
from ilu.types import LM, Batch, Example, Source

TAU = 0.05
"""Smallest drop, in nats per token, at which a block of the original counts as knowing an answer;
the paper's."""
DEPTH = "depth"


@dataclass(frozen=True)
class Patching:
    """Drop of the original's log-probability of an answer, for the hidden states of each block.

    For every block l, the original reads the text with the output of block l replaced by that of
    the measured model, at the positions that predict the answer. ``drop_block_l`` is s - s_l, where
    s and s_l are its mean log-probabilities per answer token without and with the replacement, in
    nats. 0: the states of the measured model serve as well as its own. Blocks count from 0.

    Deviation from arXiv 2605.24614: all tokens of an answer count; the paper marks the words in it
    that carry the fact.
    """

    source: Source
    original: SecondModel
    limit: int | None = None
    batch_size: int = 16

    def __post_init__(self) -> None:
        check_limit(self.limit)

    @torch.no_grad()
    def __call__(self, lm: LM) -> dict[str, Score]:
        device = next(lm.model.parameters()).device
        full = load_model(self.original.name, device=str(device))
        check_alike(lm, full, self.original.name)
        examples = self.examples(lm, full)
        items: list[list[float]] = [[] for _ in blocks(full.model)]
        for start in range(0, len(examples), self.batch_size):
            batch = collate(examples[start : start + self.batch_size]).to(device)
            found = drops(full.model, every_hidden(lm.model, batch), batch)
            for each, values in zip(items, found, strict=True):
                each += values.tolist()
        return {drop_name(layer): mean_score(each) for layer, each in enumerate(items)}

    def examples(self, lm: LM, full: LM) -> list[Example]:
        """The texts without what closes an answer. ValueError if the models read other tokens."""
        own, theirs = (limited(self.source(each.tokenizer), self.limit) for each in (lm, full))
        if [e.ids for e in own] != [e.ids for e in theirs]:
            raise ValueError(
                f"`original` {self.original.name} reads the texts as other tokens than the "
                "measured model: give the model that was unlearned"
            )
        check_lengths(own, context_length(full.model), "`data`")
        return [example.without_end() for example in own]


def check_alike(lm: LM, full: LM, name: str) -> None:
    """ValueError unless both models have as many blocks, of the same width."""
    ours, theirs = (
        (len(blocks(each.model)), text_config(each.model).hidden_size) for each in (lm, full)
    )
    if ours != theirs:
        raise ValueError(
            f"`original` {name} has {theirs[0]} blocks of width {theirs[1]}, the measured model "
            f"{ours[0]} of width {ours[1]}: give the model that was unlearned"
        )


def drops(
    model: nn.Module, states: Sequence[Float[Tensor, "B T D"]], batch: Batch
) -> list[Float[Tensor, " B"]]:
    """Delta_l = mean over answer tokens of s - s_l, for each block l (arXiv 2605.24614).

    ``states`` are the outputs of every block of the other model on ``batch``.
    """
    forward = ModelForward(model)
    own = forward.tokens(batch)
    where = torch.zeros_like(batch.attention_mask, dtype=torch.bool)
    where[:, :-1] = own.valid
    found: list[Tensor] = []
    for layer, other in enumerate(states):
        with patched(model, layer, other, where):
            found.append(own.mean() - forward.tokens(batch).mean())
    return found


@contextmanager
def patched(
    model: nn.Module, layer: int, states: Float[Tensor, "B T D"], where: Bool[Tensor, "B T"]
) -> Generator[None]:
    """Replace the output of block ``layer`` by ``states`` at the positions ``where``."""

    def replace(module: nn.Module, inputs: Any, output: Any) -> Any:
        own = output if isinstance(output, Tensor) else output[0]
        mixed = torch.where(where[..., None], states.to(own), own)
        return mixed if isinstance(output, Tensor) else (mixed, *output[1:])

    # Before the hook that reads the block's output, which is there already.
    hook = block(model, layer).register_forward_hook(replace, prepend=True)
    try:
        yield
    finally:
        hook.remove()


def erased(own: float, gap: float) -> float | None:
    """clip(Delta_l of the unlearned model / Delta_l of the never-knew model, 0, 1).

    None where the latter, ``gap``, is at most ``TAU``: this block shows no knowledge to erase.
    """
    return None if gap <= TAU else min(1.0, max(0.0, own / gap))


def unlearning_depth(own: Sequence[float], gaps: Sequence[float]) -> float | None:
    """Mean of ``erased`` over the blocks, weighted by their gaps: the Unlearning Depth Score.

    0: intact in every block; 1: as absent as in the model that never knew. None where no block of
    the original shows knowledge of this answer.
    """
    pairs = [(share, gap) for d, gap in zip(own, gaps, strict=True)
             if (share := erased(d, gap)) is not None]  # fmt: skip
    total = sum(gap for _, gap in pairs)
    return sum(share * gap for share, gap in pairs) / total if pairs else None


def depth_scores(own: Scores, reference: Scores) -> Scores:
    """``depth`` over all answers, and the erased share of each block as ``erased_block_l``.

    ``reference`` are the scores of a model that never knew the answers. An answer without a gap in
    a block does not count there.
    """
    names = [name for name in map(drop_name, range(len(own))) if name in own]
    rows = [(as_floats(own[name]), as_floats(reference[name])) for name in names]
    blocks = {
        f"erased_block_{layer}": [erased(d, gap) for d, gap in zip(*row, strict=True)]
        for layer, row in enumerate(rows)
    }
    each = zip(*(zip(*row, strict=True) for row in rows), strict=True)
    items = [unlearning_depth(*zip(*pairs, strict=True)) for pairs in each]
    why = "the original and the reference know the answers alike there"
    found = scored(DEPTH, items, why)
    shown = {n: v for n, v in blocks.items() if any(item is not None for item in v)}
    return {**found, **{name: mean_score(values) for name, values in shown.items()}}


def drop_name(layer: int) -> str:
    """The name of the score of a block."""
    return f"drop_block_{layer}"


def as_floats(score: Score) -> list[float]:
    """The value of every item, all of which are known."""
    return [value for value in score.items if value is not None]
