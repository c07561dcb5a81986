"""Token ids of an answer in its text: one rule for training, losses, choice and every metric.

Prompt and answer are tokenized as one text, and the characters of the answer decide which tokens
are its own. The first token of the answer is the first that ends after the border, so a token with
characters of both belongs to the answer. Tokens of the words end where the characters of the
answer end; what follows them is the closing of the answer.
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

from ilu.types import Example


class Marked(NamedTuple):
    """A text whose characters ``start`` to ``stop`` are the answer."""

    text: str
    start: int
    stop: int


class Located(NamedTuple):
    """The ids of a text; those from ``start`` to ``stop`` are the words of the answer."""

    ids: list[int]
    start: int
    stop: int


class Pair(NamedTuple):
    """Ids of a prompt and of its continuation."""

    head: list[int]
    tail: list[int]


class Pairs(NamedTuple):
    """Pairs, and the number of them in which one token has characters of both texts."""

    pairs: list[Pair]
    spanning: int


def encode_pairs(tokenizer: Any, prompts: Sequence[str], completions: Sequence[str]) -> list[Pair]:
    """Token ids of prompts and completions; one warning with the number of spanning tokens."""
    found = split_pairs(tokenizer, prompts, completions)
    warn_of_spanning(found.spanning, len(found.pairs))
    return found.pairs


def split_pairs(tokenizer: Any, prompts: Sequence[str], completions: Sequence[str]) -> Pairs:
    """The same with the number of spanning tokens in place of a warning.

    Where prompt and completion do not meet within a token this is what lm-evaluation-harness does.
    Tokenized separately, a SentencePiece tokenizer would put a second space before the completion.
    """
    if not prompts:  # tokenizers raise IndexError for no text
        return Pairs([], 0)
    pairs = zip(prompts, completions, strict=True)
    marked = [Marked(p + c, len(p), len(p + c)) for p, c in pairs]
    located = locate(tokenizer, marked, special=True)
    distinct = list(dict.fromkeys(prompts))  # the options of a question share one
    alone = dict(zip(distinct, ids_of(tokenizer, distinct, special=True), strict=True))
    spanning = sum(
        alone[prompt] != ids[:start]
        for prompt, (ids, start, _) in zip(prompts, located, strict=True)
    )
    return Pairs([Pair(ids[:start], ids[start:]) for ids, start, _ in located], spanning)


def warn_of_spanning(count: int, total: int, name: str = "prompts and completions") -> None:
    """Warn if prompt and completion meet within a token in ``count`` of ``total`` rows."""
    if count:
        warnings.warn(
            f"{name}: in {count} of {total} rows the prompt and the completion share a token, "
            "which counts to the completion: end the prompt without a space, and begin the "
            "completion with it",
            stacklevel=2,
        )


def locate(tokenizer: Any, texts: Sequence[Marked], *, special: bool) -> list[Located]:
    """The tokens of marked texts, with the begin-of-text token if ``special``.

    A tokenizer in Python gives no characters of tokens. There the answer begins after the longest
    common beginning of the ids of the text and of the prompt alone.
    """
    if not getattr(tokenizer, "is_fast", False):
        return [located_by_ids(tokenizer, text, special=special) for text in texts]
    encoded = tokenizer(
        [text.text for text in texts], return_offsets_mapping=True, **adding(special)
    )
    rows = zip(texts, encoded.input_ids, encoded.offset_mapping, strict=True)
    return [
        located_by_characters(without_end(list(ids), tokenizer) if special else list(ids), at, text)
        for text, ids, at in rows
    ]


def located_by_characters(ids: list[int], at: Sequence[tuple[int, int]], text: Marked) -> Located:
    """The answer by the first and last character of each token."""
    count = len(ids)
    start = next((i for i in range(count) if at[i][1] > text.start), count)
    stop = next((i for i in range(start, count) if at[i][0] >= text.stop), count)
    return Located(ids, start, stop)


def located_by_ids(tokenizer: Any, text: Marked, *, special: bool) -> Located:
    """The answer by the ids that the text shares with its beginnings."""
    parts = [text.text, text.text[: text.start], text.text[: text.stop]]
    ids, head, words = ids_of(tokenizer, parts, special=special)
    start = shared(ids, head)
    stop = len(ids) if text.stop == len(text.text) else shared(ids, words)
    return Located(ids, start, max(start, stop))


def shared(first: Sequence[Any], second: Sequence[Any]) -> int:
    """The length of the common beginning of two sequences."""
    pairs = zip(first, second, strict=False)
    least = min(len(first), len(second))
    return next((i for i, (a, b) in enumerate(pairs) if a != b), least)


def ids_of(tokenizer: Any, texts: Sequence[str], *, special: bool) -> list[list[int]]:
    """The ids of texts, without an end-of-text token that the tokenizer appends."""
    rows = tokenizer(list(texts), **adding(special)).input_ids
    return [without_end(list(ids), tokenizer) if special else list(ids) for ids in rows]


def adding(special: bool) -> dict[str, bool]:
    """How a tokenizer is called: it adds its special tokens unless a call says otherwise."""
    return {} if special else {"add_special_tokens": False}


def without_end(ids: list[int], tokenizer: Any) -> list[int]:
    """Remove the end-of-text token that some tokenizers append to every text."""
    end = tokenizer.eos_token_id
    return ids[:-1] if end is not None and ids and ids[-1] == end else ids


def encode_text(text: str, tokenizer: Any) -> Example:
    """A text without a prompt; an end-of-text token at its end is no word of it."""
    ids = list(tokenizer(text).input_ids)
    return Example(ids, 0, end=len(ids) - len(without_end(ids, tokenizer)))


def answer_example(pair: Pair, tokenizer: Any) -> Example:
    """A pair with an end-of-text token, if the tokenizer has one; the prompt has no loss."""
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return Example([*pair.head, *pair.tail, *end], len(pair.head), end=len(end))
