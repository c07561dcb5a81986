"""A prompt and what follows it as token ids, with the boundary where the whole text has it."""

from collections.abc import Sequence
from typing import Any, NamedTuple


class Pair(NamedTuple):
    """Ids of a prompt and of its continuation."""

    head: list[int]
    tail: list[int]


def encode_pairs(tokenizer: Any, prompts: Sequence[str], completions: Sequence[str]) -> list[Pair]:
    """Tokenize each text whole and cut it after the prompt's ids, like lm-evaluation-harness.

    Tokenized apart, a SentencePiece tokenizer would put a second space before the completion.
    """
    whole = [p + c for p, c in zip(prompts, completions, strict=True)]
    distinct = list(dict.fromkeys(prompts))  # the options of a question share one
    heads, both = (
        [without_end(list(ids), tokenizer) for ids in encoded]
        for encoded in (tokenizer(texts).input_ids for texts in (distinct, whole))
    )
    lengths = {prompt: len(head) for prompt, head in zip(distinct, heads, strict=True)}
    cuts = (lengths[prompt] for prompt in prompts)
    return [Pair(ids[:cut], ids[cut:]) for cut, ids in zip(cuts, both, strict=True)]


def without_end(ids: list[int], tokenizer: Any) -> list[int]:
    """Drop the end-of-text token with which some tokenizers close every text."""
    end = tokenizer.eos_token_id
    return ids[:-1] if end is not None and ids and ids[-1] == end else ids
