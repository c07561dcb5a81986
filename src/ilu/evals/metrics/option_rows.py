"""The contexts of multiple-choice options as rows of a batch.

Options of a question share its prompt, and questions may share the beginning of theirs. A row has
the contexts of many questions, and each common beginning once, then what follows it in every
context, as branches of trees: a token attends to the tokens before it in its own context, and its
position is that in its context. So four options of two tokens after a prompt of ten take 14 tokens
in place of 44, a second question with the same first four tokens 10 more, and nothing is padding.
Whether a model reads such rows correctly is tried once; otherwise every context is a row.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from ilu.models.blocks import text_config


class OptionInRow(NamedTuple):
    """The tokens of one option; options with equal contexts are scored together."""

    question: int
    option: int
    tokens: tuple[int, ...]


Context = tuple[tuple[int, ...], list[OptionInRow]]
"""The tokens before the last of an option, and the options that have these."""


class Scored(NamedTuple):
    """An option, and for each of its tokens the place in the row that predicts it."""

    question: int
    option: int
    tokens: tuple[int, ...]
    places: tuple[int, ...]


class Row(NamedTuple):
    """One row of a batch: token i and those after it, up to ``ends[i]``, attend to token i."""

    ids: tuple[int, ...]
    ends: tuple[int, ...]
    positions: tuple[int, ...]
    options: tuple[Scored, ...]

    @property
    def places(self) -> list[int]:
        """The places whose logits are needed, in order."""
        return sorted({place for each in self.options for place in each.places})

    @property
    def branched(self) -> bool:
        """Whether a token does not attend to all that come before it."""
        return any(end < len(self.ids) for end in self.ends)


MOST = 256
"""Tokens of a row, or twice its longest context if that is more: attention costs their square."""


def rows(contexts: Sequence[Context], *, shared: bool, size: int = 1) -> list[Row]:
    """Rows of many contexts if beginnings are ``shared``, else of single ones.

    A row of many has no more tokens than ``size`` contexts, or two, and needs no more logits than
    ``size`` contexts, or eight.
    """
    if not shared:
        return [row([context]) for context in contexts]
    made, group = list[Row](), list[Context]()
    for each in sorted(contexts, key=lambda context: context[0]):  # equal beginnings are adjacent
        if group and not has_room([*group, each], size):
            made.append(row(group))
            group = []
        group.append(each)
    return [*made, row(group)] if group else made


def has_room(contexts: Sequence[Context], size: int) -> bool:
    """Whether a row of several contexts is within its limits."""
    made, longest = row(contexts), max(len(ids) for ids, _ in contexts)
    tokens = min(max(size, 2) * longest, max(MOST, 2 * longest))
    places = max(size, 8) * max(len(option.tokens) for option in made.options)
    return len(made.ids) <= tokens and len(made.places) <= places


def shared_length(first: Sequence[int], second: Sequence[int]) -> int:
    """The number of tokens with which both begin."""
    pairs = zip(first, second, strict=False)
    least = min(len(first), len(second))
    return next((i for i, (a, b) in enumerate(pairs) if a != b), least)


def row(contexts: Sequence[Context]) -> Row:
    """One row of contexts, in the order of their tokens."""
    ids, ends, positions = list[int](), list[int](), list[int]()
    options, path, before = list[Scored](), list[int](), tuple[int, ...]()
    for context, scored in sorted(contexts, key=lambda each: each[0]):
        kept = shared_length(before, context)
        for place in path[kept:]:
            ends[place] = len(ids)
        path = [*path[:kept], *range(len(ids), len(ids) + len(context) - kept)]
        ids += context[kept:]
        ends += [0] * (len(context) - kept)
        positions += range(kept, len(context))
        options += [Scored(*each, tuple(path[-len(each.tokens) :])) for each in scored]
        before = context
    for place in path:
        ends[place] = len(ids)
    return Row(tuple(ids), tuple(ends), tuple(positions), tuple(options))


def visible(ends: Int[Tensor, "B T"]) -> Bool[Tensor, "B 1 T T"]:
    """Which tokens each token attends to: those before it that it follows, and itself."""
    place = torch.arange(ends.shape[1], device=ends.device)
    seen = (place <= place[:, None]) & (place[:, None] < ends[:, None, :])
    return seen[:, None]


def inputs(batch: Sequence[Row], device: torch.device) -> dict[str, Tensor]:
    """What the model reads of rows, padded on the right; of rows without branches a plain mask.

    Padding attends to itself, since a row of a mask may not be empty.
    """
    width = max(len(each.ids) for each in batch)

    def filled(values: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor([[*v, *[0] * (width - len(v))] for v in values], device=device)

    ids = filled([each.ids for each in batch])
    if not any(each.branched for each in batch):
        return {"input_ids": ids, "attention_mask": filled([[1] * len(r.ids) for r in batch])}
    ends = filled([[*each.ends, *range(len(each.ids) + 1, width + 1)] for each in batch])
    positions = filled([each.positions for each in batch])
    return {"input_ids": ids, "attention_mask": visible(ends), "position_ids": positions}


_TRIED: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def reads_branches(model: nn.Module, longest: int) -> bool:
    """Whether rows with branches have the logits of their contexts; tried once for each model.

    Attention windows are ignored under such a mask, so ``longest`` must not exceed them.
    """
    if least_window(model) < longest:
        return False
    if model not in _TRIED:
        _TRIED[model] = same_in_branches(model)
    return _TRIED[model]


def least_window(model: nn.Module) -> float:
    """The shortest window or chunk of attention in the configuration."""
    settings: dict[str, Any] = vars(text_config(model))
    sizes = [
        size
        for name, size in settings.items()
        if ("window" in name or "chunk" in name) and type(size) is int and size > 1
    ]
    return min(sizes, default=float("inf"))


@torch.no_grad()
def same_in_branches(model: Any) -> bool:
    """Whether questions in rows, two of them in one, have the same logits as their contexts."""
    device = next(model.parameters()).device
    heads = ((0, 1, 0, 0, 1, 1), (0, 1, 0, 1, 1), (1, 0))
    contexts = [
        ((*head, *tail), [OptionInRow(i, k, (0,) * (1 + len(tail)))])
        for i, head in enumerate(heads)
        for k, tail in enumerate([(1, 0), (0,), (1, 1)])
    ]
    try:
        found, alone = (
            option_logits(model, rows(contexts, shared=shared, size=8), device)
            for shared in (True, False)
        )
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, AttributeError, IndexError, RuntimeError, NotImplementedError):
        return False
    rough = 1e-3 if next(model.parameters()).element_size() >= 4 else 5e-2
    return bool((found - alone).abs().max() <= rough * alone.abs().max())


def option_logits(model: Any, batch: Sequence[Row], device: torch.device) -> Tensor:
    """Logits at every place of every option, in the order of questions and options."""
    found = model(**inputs(batch, device), use_cache=False).logits.float()
    options = sorted(
        (o.question, o.option, i, o) for i, each in enumerate(batch) for o in each.options
    )
    places = [(i, place) for _, _, i, option in options for place in option.places]
    row_of, place = torch.tensor(places, device=device).unbind(-1)
    return found[row_of, place]
