"""Generate text in batches: greedy decoding or sampling."""

import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ilu.data.chat import turn_ends
from ilu.data.tokenize import without_end
from ilu.models.blocks import context_length
from ilu.types import LM


def generate(
    lm: LM,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int = 16,
    temperature: float = 0.0,
) -> list[str]:
    """The new text after each prompt, in the order of ``prompts``."""
    heads = [without_end(list(ids), lm.tokenizer) for ids in lm.tokenizer(list(prompts)).input_ids]
    return continuations(
        lm,
        heads,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        temperature=temperature,
    )


def continuations(
    lm: LM,
    heads: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_size: int = 16,
    temperature: float = 0.0,
) -> list[str]:
    """The new text after tokenized prompts, such as those of a chat template.

    Greedy by default. With a ``temperature`` tokens are sampled from the full distribution with the
    global generators (``seeds.seeded``). The sampling settings and penalties of the model's
    ``generation_config`` are ignored. A text ends at an end token of the tokenizer or of
    ``generation_config``. A sampled text also ends at a begin-of-text token, which in the training
    data of some models is the only separator of texts.
    """
    check_room(heads, max_new_tokens, context_length(lm.model))
    # Sorted by length, the longest first: if memory does not suffice, the first batch fails.
    order = sorted(range(len(heads)), key=lambda i: -len(heads[i]))
    ends, texts = end_tokens(lm), [""] * len(heads)
    if temperature and lm.tokenizer.bos_token_id is not None:
        ends.add(lm.tokenizer.bos_token_id)
    with decoding(lm.model, ends, max_new_tokens, temperature):
        size = batch_size if len(heads) > 1 and continues_batches(lm.model) else 1
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            for row, ids in zip(rows, continue_batch(lm, [heads[i] for i in rows]), strict=True):
                texts[row] = lm.tokenizer.decode(until(ids, ends), skip_special_tokens=True)
    return texts


_TRIED: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def continues_batches(model: nn.Module) -> bool:
    """Whether a model continues a row of a padded batch as it does the row alone; tried once.

    Recurrent models may read the padding as text, or mix the states of rows, as RWKV does.
    """
    if model not in _TRIED:
        _TRIED[model] = same_in_a_batch(model)
        if not _TRIED[model]:
            warnings.warn(
                f"{type(model).__name__} continues a prompt in a batch otherwise than alone: "
                "prompts are continued one by one, which takes longer",
                stacklevel=2,
            )
    return _TRIED[model]


@torch.no_grad()
def same_in_a_batch(model: Any) -> bool:
    """Whether three new tokens have the same logits alone and after padding in a batch.

    From the first step on at which rounding chooses another token, there is nothing to compare.
    """
    device = next(model.parameters()).device
    short = torch.tensor([[1, 0, 1]], device=device)
    long = torch.tensor([[0, 0, 0, 0, 0, 1, 0, 1], [0, 1, 0, 1, 1, 0, 0, 1]], device=device)
    mask = torch.ones_like(long)
    mask[0, :5] = 0
    rough = 1e-3 if next(model.parameters()).element_size() >= 4 else 5e-2
    alone, padded = (
        next_logits(model, short, torch.ones_like(short)),
        next_logits(model, long, mask),
    )
    for one, other in zip(alone, padded, strict=False):
        if (one - other).abs().max() > rough * one.abs().max():
            return False
        if one.argmax() != other.argmax():
            break
    return True


def next_logits(model: Any, ids: Tensor, mask: Tensor) -> list[Tensor]:
    """Logits of three new tokens of the first row, by the model's own generation."""
    made = model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=3, do_sample=False,
        return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    return [logits[0].float() for logits in made.logits]


def check_room(heads: Sequence[Sequence[int]], new: int, limit: int | None) -> None:
    """ValueError if prompt and new tokens exceed the context; truncation would bias the score."""
    if new < 1:
        raise ValueError(f"max_new_tokens {new}: at least 1 token must be generated")
    if any(not head for head in heads):
        raise ValueError("a prompt has no tokens to continue: this tokenizer begins no text itself")
    longest = max(map(len, heads), default=0)
    if limit is not None and longest + new > limit:
        raise ValueError(
            f"a prompt of {longest} tokens leaves no room for {new} new ones in the model's "
            f"{limit}: shorten it, or generate fewer"
        )


def end_tokens(lm: LM) -> set[int]:
    """Every token that ends a text: of the tokenizer, of the model's ``generation_config``, and of
    the chat template, whose end of a turn neither need name.
    """
    model: Any = lm.model
    configured = model.generation_config.eos_token_id
    several = configured if isinstance(configured, list) else [configured]
    ends = {lm.tokenizer.eos_token_id, *several} | turn_ends(lm.tokenizer)
    return {token for token in ends if token is not None}


@contextmanager
def decoding(
    model: Any, ends: set[int], max_new_tokens: int, temperature: float
) -> Generator[None]:
    """Replace the model's ``generation_config``, whose values would fill in unspecified settings.

    Rows that have ended are filled with a padding token, which is never read.
    """
    from transformers import GenerationConfig

    configured = model.generation_config
    drawn = {"temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    model.generation_config = GenerationConfig(
        **drawn,
        do_sample=temperature > 0,
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(ends) or None,
        pad_token_id=min(ends, default=0),
    )
    try:
        yield
    finally:
        model.generation_config = configured


@torch.no_grad()
def continue_batch(lm: LM, heads: Sequence[Sequence[int]]) -> list[list[int]]:
    """New tokens of each row; prompts are padded on the left, under a zero attention mask."""
    model: Any = lm.model
    width = max(map(len, heads))
    ids = torch.tensor([[0] * (width - len(head)) + list(head) for head in heads])
    mask = torch.tensor([[0] * (width - len(head)) + [1] * len(head) for head in heads])
    device = next(model.parameters()).device
    tokens = model.generate(input_ids=ids.to(device), attention_mask=mask.to(device))
    return tokens[:, width:].tolist()


def until(ids: Sequence[int], ends: set[int]) -> list[int]:
    """The tokens before the first that ends the text."""
    stop = next((i for i, token in enumerate(ids) if token in ends), len(ids))
    return list(ids[:stop])
