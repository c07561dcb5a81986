"""Rows of text as tokenized examples: which columns count, and which tokens take a loss."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ilu.scores import check_limit
from ilu.sources.files import Row
from ilu.sources.hub import load_rows
from ilu.sources.pairs import encode_pairs
from ilu.sources.shapes import reshaped
from ilu.types import Example

LAYOUTS = (("messages",), ("prompt", "completion"), ("question", "answer"), ("text",))
"""Columns that can be read, in the order in which they are looked for."""


@dataclass(frozen=True)
class Dataset:
    """A file or hub dataset of plain text, prompts with completions, questions, or chats.

    ``columns`` maps a wanted column to the name it has in the data, for data that names it
    differently. Only completions, answers and the last message of a chat take a loss. ``truncate``
    cuts every example to that many tokens and drops, with a warning, those whose prompt fills them.
    ``count`` takes so many rows from the front; ``skip_blank`` leaves out those without any text.
    """

    name: str
    columns: Mapping[str, str] = field(default_factory=dict)
    revision: str | None = None
    truncate: int | None = None
    count: int | None = None
    skip_blank: bool = False

    def __post_init__(self) -> None:
        check_limit(self.count)
        if self.truncate is not None and self.truncate < 1:
            raise ValueError(f"--truncate {self.truncate}: it must leave at least 1 token")

    def __call__(self, tokenizer: Any) -> list[Example]:
        read = load_rows(self.name, self.revision, self.count)
        rows = renamed(read if self.columns else reshaped(read), self.columns, self.name)
        layout = find_layout(rows[0], self.name)
        if self.skip_blank:
            rows = [row for row in rows if any(str(row[c]).strip() for c in layout)]
        check_complete(rows, layout, self.name)
        examples = (encode(row, layout, tokenizer) for row in rows)
        cut = [Example(e.ids[: self.truncate], e.prompt) for e in examples]
        kept = cut if self.truncate is None else with_answers(cut, self.name)
        check_answers(kept or cut, self.name)
        return kept


def with_answers(examples: Sequence[Example], name: str) -> list[Example]:
    """The examples that truncation has left something to predict."""
    kept = [e for e in examples if len(e.ids) > max(e.prompt, 1)]
    if kept and len(kept) < len(examples):
        lost = len(examples) - len(kept)
        warnings.warn(
            f"{name}: {lost} of {len(examples)} rows left out, --truncate cuts before their answer",
            stacklevel=2,
        )
    return kept


def check_answers(examples: Sequence[Example], name: str) -> None:
    """Every example keeps at least one token that takes a loss."""
    bad = [i for i, e in enumerate(examples, start=1) if len(e.ids) <= max(e.prompt, 1)]
    if bad:
        raise ValueError(
            f"{name}: {len(bad)} rows have no token left to predict, the first is row {bad[0]}: "
            "the text is empty or --truncate cuts before the answer"
        )


def renamed(rows: Sequence[Row], columns: Mapping[str, str], name: str) -> list[Row]:
    """Give the columns named by the user their standard names."""
    if not columns:
        return list(rows)
    missing = sorted(set(columns.values()) - set(rows[0]))
    if missing:
        raise ValueError(f"{name} has no column {missing[0]!r}; it has: {', '.join(rows[0])}")
    # Only these columns and those that are called right already, so that `--columns text=body`
    # is not overruled by a column `messages` that happens to be there.
    return [
        {want: row.get(have) for want, have in columns.items()} | rest(row, columns) for row in rows
    ]


def rest(row: Row, columns: Mapping[str, str]) -> Row:
    """The columns that complete a layout begun by the user's own."""
    wanted = {c for layout in LAYOUTS if set(layout) & set(columns) for c in layout}
    return {k: v for k, v in row.items() if k in wanted and k not in columns}


def find_layout(row: Row, name: str) -> tuple[str, ...]:
    """The first known set of columns that the data has."""
    for layout in LAYOUTS:
        if all(column in row for column in layout):
            return layout
    wanted = " or ".join("+".join(layout) for layout in LAYOUTS)
    raise ValueError(
        f"{name} has the columns {', '.join(row)}; wanted: {wanted}. "
        "Say which is which, for example --forget-columns text=body."
    )


def check_complete(rows: Sequence[Row], layout: tuple[str, ...], name: str) -> None:
    """Every row has a value in every column that counts."""
    for column in layout:
        bad = [i for i, row in enumerate(rows, start=1) if row.get(column) in (None, "", [])]
        if bad and column != "prompt":
            raise ValueError(f"{name}: {len(bad)} rows have no {column}, the first is row {bad[0]}")


def encode(row: Row, layout: tuple[str, ...], tokenizer: Any) -> Example:
    """Tokenize one row."""
    if layout == ("text",):
        return Example(list(tokenizer(str(row["text"])).input_ids), prompt=0)
    if layout == ("messages",):
        return encode_chat(row["messages"], tokenizer)
    prompt, completion = ("" if row[c] is None else str(row[c]) for c in layout)
    if layout == ("prompt", "completion"):
        return encode_pair(prompt, completion, tokenizer)
    if tokenizer.chat_template:
        turns = (("user", prompt), ("assistant", completion))
        return encode_chat([{"role": r, "content": c} for r, c in turns], tokenizer)
    return encode_pair(f"Question: {prompt}\nAnswer:", f" {completion}", tokenizer)


def encode_pair(prompt: str, completion: str, tokenizer: Any) -> Example:
    """Prompt without loss, completion with loss, closed by the end-of-text token if any."""
    return encode_answers([prompt], [completion], tokenizer)[0]


def encode_answers(
    prompts: Sequence[str], completions: Sequence[str], tokenizer: Any
) -> list[Example]:
    """The same for many at once."""
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    pairs = encode_pairs(tokenizer, prompts, completions)
    return [Example([*head, *tail, *end], prompt=len(head)) for head, tail in pairs]


def encode_chat(messages: Any, tokenizer: Any) -> Example:
    """A chat in the tokenizer's own template; the last message takes the loss."""
    if not tokenizer.chat_template:
        raise ValueError("the data has chat messages but the tokenizer has no chat template")
    if not isinstance(messages, list) or not all({"role", "content"} <= set(m) for m in messages):
        raise ValueError("messages must be a list of objects with role and content")
    whole, head = (
        str(tokenizer.apply_chat_template(part, tokenize=False, add_generation_prompt=generate))
        for part, generate in ((messages, False), (messages[:-1], True))
    )
    if not whole.startswith(head):
        raise ValueError(
            "the chat template rewrites earlier messages; use prompt+completion columns"
        )
    ids = list(tokenizer(head, add_special_tokens=False).input_ids)
    answer = tokenizer(whole.removeprefix(head), add_special_tokens=False).input_ids
    return Example([*ids, *answer], prompt=len(ids))
