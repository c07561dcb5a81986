"""The contexts of multiple-choice options as rows of a batch.

Options of a question share its prompt. A row has the prompt once, then the rest of every context,
as branches: a token attends to the prompt and to its own branch, and its position is that in its
context. So four options of two tokens after a prompt of ten take 14 tokens in place of 44. Whether
a model reads such rows correctly is tried once; otherwise every context is a row.
"""

from collections.abc import Sequence
from itertools import groupby
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
    """One row of a batch: ``branches`` has 0 for a token of the prompt, then 1, 2, ..."""

    ids: tuple[int, ...]
    branches: tuple[int, ...]
    positions: tuple[int, ...]
    options: tuple[Scored, ...]

    @property
    def places(self) -> list[int]:
        """The places whose logits are needed, in order."""
        return sorted({place for each in self.options for place in each.places})


def rows(contexts: Sequence[Context], *, shared: bool) -> list[Row]:
    """Rows of whole questions if prompts are ``shared``, else of single contexts."""
    if not shared:
        return [row([context]) for context in contexts]
    made: list[Row] = []
    for _, group in groupby(contexts, key=lambda context: context[1][0].question):
        each = list(group)
        made += [row(each)] if saves(each) else [row([context]) for context in each]
    return made


def saves(contexts: Sequence[Context]) -> bool:
    """Whether the prompt is at least as long as what follows it in any context."""
    trunk = common(contexts)
    return trunk > 0 and all(len(ids) <= 2 * trunk for ids, _ in contexts)


def common(contexts: Sequence[Context]) -> int:
    """The number of tokens with which all contexts begin."""
    columns = zip(*(ids for ids, _ in contexts), strict=False)
    each = (len(set(column)) == 1 for column in columns)
    return next((i for i, same in enumerate(each) if not same), min(len(c[0]) for c in contexts))


def row(contexts: Sequence[Context]) -> Row:
    """One row of contexts with a common beginning."""
    trunk = common(contexts)
    ids, branches = list(contexts[0][0][:trunk]), [0] * trunk
    positions, options = list(range(trunk)), list[Scored]()
    for number, (context, scored) in enumerate(contexts, start=1):
        path = [*range(trunk), *range(len(ids), len(ids) + len(context) - trunk)]
        ids += context[trunk:]
        branches += [number] * (len(context) - trunk)
        positions += range(trunk, len(context))
        options += [Scored(*each, tuple(path[-len(each.tokens) :])) for each in scored]
    return Row(tuple(ids), tuple(branches), tuple(positions), tuple(options))


def visible(branches: Int[Tensor, "B T"]) -> Bool[Tensor, "B 1 T T"]:
    """Which tokens each token attends to: earlier ones of the prompt and of its own branch.

    Padding has branch -1 and attends to itself as well, since a row of a mask may not be empty.
    """
    own = branches[:, :, None] == branches[:, None, :]
    seen = (own | (branches == 0)[:, None, :]).tril()
    return seen[:, None]


def inputs(batch: Sequence[Row], device: torch.device) -> dict[str, Tensor]:
    """What the model reads of rows, padded on the right; of rows without branches a plain mask."""
    width = max(len(each.ids) for each in batch)

    def filled(values: Sequence[Sequence[int]], empty: int) -> Tensor:
        return torch.tensor([[*v, *[empty] * (width - len(v))] for v in values], device=device)

    ids = filled([each.ids for each in batch], 0)
    branches = filled([each.branches for each in batch], -1)
    if not any(any(each.branches) for each in batch):
        return {"input_ids": ids, "attention_mask": (branches == 0).long()}
    positions = filled([each.positions for each in batch], 0)
    return {"input_ids": ids, "attention_mask": visible(branches), "position_ids": positions}


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
    """Whether two questions of different lengths have the same logits in rows and separately."""
    device = next(model.parameters()).device
    heads = ((0, 1, 0, 0, 1, 1), (1, 0))
    contexts = [
        ((*head, *tail), [OptionInRow(i, k, (0,) * (1 + len(tail)))])
        for i, head in enumerate(heads)
        for k, tail in enumerate([(1, 0), (0,), (1, 1)])
    ]
    try:
        found, alone = (
            option_logits(model, rows(contexts, shared=shared), device) for shared in (True, False)
        )
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, AttributeError, IndexError, RuntimeError, NotImplementedError):
        return False
    rough = 1e-3 if next(model.parameters()).element_size() >= 4 else 5e-2
    return bool((found - alone).abs().max() <= rough * alone.abs().max())


def option_logits(model: Any, batch: Sequence[Row], device: torch.device) -> Tensor:
    """Logits at every place of every option, in the order of the options."""
    found = model(**inputs(batch, device), use_cache=False).logits.float()
    places = [
        (i, place) for i, each in enumerate(batch) for o in each.options for place in o.places
    ]
    row_of, place = torch.tensor(places, device=device).unbind(-1)
    return found[row_of, place]
