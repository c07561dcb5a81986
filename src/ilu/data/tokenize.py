"""Token ids of a prompt and its continuation, tokenized as one text."""

from collections.abc import Sequence
from typing import Any, NamedTuple


class Pair(NamedTuple):
    """Ids of a prompt and of its continuation."""

    head: list[int]
    tail: list[int]


def encode_pairs(tokenizer: Any, prompts: Sequence[str], completions: Sequence[str]) -> list[Pair]:
    """Tokenize prompt and completion together and split after the prompt's ids.

    This is what lm-evaluation-harness does. Tokenized separately, a SentencePiece tokenizer would
    put a second space before the completion.
    """
    if not prompts:  # tokenizers raise IndexError for no text
        return []
    full = [p + c for p, c in zip(prompts, completions, strict=True)]
    distinct = list(dict.fromkeys(prompts))  # the options of a question share one
    heads, both = (
        [without_end(list(ids), tokenizer) for ids in encoded]
        for encoded in (tokenizer(texts).input_ids for texts in (distinct, full))
    )
    lengths = {prompt: len(head) for prompt, head in zip(distinct, heads, strict=True)}
    cuts = (lengths[prompt] for prompt in prompts)
    return [Pair(ids[:cut], ids[cut:]) for cut, ids in zip(cuts, both, strict=True)]


def without_end(ids: list[int], tokenizer: Any) -> list[int]:
    """Remove the end-of-text token that some tokenizers append to every text."""
    end = tokenizer.eos_token_id
    return ids[:-1] if end is not None and ids and ids[-1] == end else ids
