"""Rows of text as tokenized examples: the columns to read, and the tokens with a loss."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from ilu.data.cells import is_missing, is_several, readable, readable_in, text_in
from ilu.data.chat import encode_chat
from ilu.data.hub import find_rows, local_rows
from ilu.data.layouts import peeked, reshaped
from ilu.data.readers import Row, is_data_file
from ilu.data.token_cache import Encoded, fits_memory, in_memory, stored
from ilu.data.tokenize import (
    answer_example,
    encode_pairs,
    encode_text,
    split_pairs,
    warn_of_spanning,
)
from ilu.system.checks import check_limit
from ilu.types import Example

LAYOUTS = (("messages",), ("prompt", "completion"), ("question", "answer"), ("text",))
"""Supported sets of columns."""
MAYBE_ANSWERS = (
    "labels", "label", "answer", "answers", "target", "targets", "output", "outputs", "response",
    "completion",
)  # fmt: skip
"""Columns of text that may be the answer to a column ``text``."""


@dataclass(frozen=True)
class Dataset:
    """A file or hub dataset of plain text, prompts with completions, questions, or chats.

    ``columns`` maps a standard column to its name in the data. Only completions, answers and the
    last message of a chat have a loss. ``truncate`` cuts every example to that many tokens and
    drops, with a warning, examples without a token left to predict. ``count`` is the number of rows
    to take from the front. ``skip_blank`` skips rows without text. Examples of large files are
    cached on disk, so that memory does not grow.
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
            raise ValueError(f"`truncate` {self.truncate}: it must leave at least 1 token")

    def __call__(self, tokenizer: Any) -> Sequence[Example]:
        rows = find_rows(self.name, self.revision, self.count)
        if fits_memory(rows.files):
            in_list = list(rows.read())
            cached = in_memory(self.examples(lambda: iter(in_list), tokenizer))
        else:
            how = {**asdict(self), "name": None, "revision": None}  # the hash of the data counts
            make = partial(self.examples, rows.read, tokenizer)
            cached = stored(make, rows.files, tokenizer, how)
        if cached.dropped:
            total = cached.dropped + len(cached.examples)
            warnings.warn(
                f"{self.name}: {cached.dropped} of {total} rows left out, "
                "`truncate` cuts before their answer",
                stacklevel=2,
            )
        warn_of_spanning(cached.spanning, len(cached.examples), self.name)
        if cached.aliases:
            warnings.warn(
                f"{self.name}: {cached.aliases} rows have a list of several answers, of which only "
                "the first is used: write the others as rows of their own",
                stacklevel=2,
            )
        self.warn_of_unread(rows.read())
        self.warn_without_end(cached.examples, tokenizer)
        return cached.examples

    def warn_of_unread(self, rows: Iterable[Row]) -> None:
        """Name the columns of a file that are not read, if the user has named none."""
        if self.columns or not is_data_file(self.name):
            return
        first, _ = peeked(self.known(rows))
        unread = [column for column in first if column not in find_layout(first, self.name)]
        if unread:
            warnings.warn(
                f"{self.name}: these columns are not read: {', '.join(unread)}", stacklevel=3
            )

    def warn_without_end(self, examples: Sequence[Example], tokenizer: Any) -> None:
        """Warn of completions that end with no token, so that a model does not learn to stop."""
        if not examples[0].prompt or examples[0].end or self.truncate is not None:
            return
        if tokenizer.eos_token_id is None:
            why = "the tokenizer has no end-of-text token: name its `eos_token`"
        else:
            why = "the chat template writes nothing after the last answer"
        warnings.warn(
            f"{self.name}: no token ends the completions that a model is trained on, so it does "
            f"not learn to stop; {why}",
            stacklevel=3,
        )

    def check(self) -> None:
        """ValueError for a local file whose columns or rows cannot be used; of a large file only
        the first row is checked. Nothing is downloaded.
        """
        rows = local_rows(self.name, self.count)
        if rows is None:
            return
        layout = find_layout(peeked(self.known(rows.read()))[0], self.name)
        checked = None if fits_memory(rows.files) else 1
        check_complete(islice(self.filled(rows.read(), layout), checked), layout, self.name)

    def examples(self, read: Callable[[], Iterator[Row]], tokenizer: Any) -> Iterator[Encoded]:
        """Each row as tokens, after a check of all rows; no example if no token is left."""
        layout = find_layout(peeked(self.known(read()))[0], self.name)
        check_complete(self.filled(read(), layout), layout, self.name)
        number, some = 0, False
        for number, row in enumerate(self.filled(read(), layout), start=1):
            full, spans = self.encoded(row, layout, tokenizer, number)
            cut = full.cut(self.truncate)
            left = len(cut.ids) > max(cut.prompt, 1)
            if not left and self.truncate is None:
                raise ValueError(
                    f"{self.name}: row {number} has no token left to predict: the text is empty"
                )
            some = some or left
            yield Encoded(cut if left else None, spans, any(map(is_several, row.items())))
        if not some:
            raise ValueError(
                f"{self.name}: no token left to predict in any of {number} rows: the text is empty "
                "or `truncate` cuts before the answer"
            )

    def encoded(
        self, row: Row, layout: tuple[str, ...], tokenizer: Any, number: int
    ) -> tuple[Example, bool]:
        """One row as tokens; its errors name the row."""
        try:
            return encode_row(row, layout, tokenizer)
        except ValueError as error:
            raise ValueError(f"{self.name}: row {number}: {error}") from error

    def known(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows with standard names of columns."""
        return renamed(rows, self.columns, self.name) if self.columns else reshaped(rows, self.name)

    def filled(self, rows: Iterable[Row], layout: tuple[str, ...]) -> Iterator[Row]:
        """The same, without blank rows if ``skip_blank`` is set."""
        for row in self.known(rows):
            if not self.skip_blank or any(has_text(row[c]) for c in layout):
                yield row


def has_text(value: Any) -> bool:
    """Whether a cell has more than blanks."""
    return bool(value.strip()) if isinstance(value, str) else not is_missing(value)


def renamed(rows: Iterable[Row], columns: Mapping[str, str], name: str) -> Iterator[Row]:
    """Rename the columns that the user mapped to their standard names."""
    first, rows = peeked(rows)
    if not columns:
        return rows
    missing = sorted(set(columns.values()) - set(first))
    if missing:
        raise ValueError(f"{name} has no column {missing[0]!r}; it has: {', '.join(first)}")
    # Only these columns and those that are called right already, so that ``columns` text=body`
    # is not overruled by a column `messages` that happens to be there.
    return (
        {want: row.get(have) for want, have in columns.items()} | rest(row, columns) for row in rows
    )


def rest(row: Row, columns: Mapping[str, str]) -> Row:
    """Further columns of the layouts that the user's columns belong to."""
    wanted = {c for layout in LAYOUTS if set(layout) & set(columns) for c in layout}
    return {k: v for k, v in row.items() if k in wanted and k not in columns}


def find_layout(row: Row, name: str) -> tuple[str, ...]:
    """The known set of columns that the data has; ValueError where it could be one of two."""
    found = [layout for layout in LAYOUTS if all(column in row for column in layout)]
    if len(found) > 1:
        first, second = ("+".join(layout) for layout in found[:2])
        same = ",".join(f"{column}={column}" for column in found[0])
        raise ValueError(
            f"{name} has the columns {', '.join(row)}, which can be read as {first} or as "
            f"{second}. Say which to read, for example `forget_columns` {same}"
        )
    if found == [("text",)]:
        check_whole_text(row, name)
    if found:
        return found[0]
    wanted = " or ".join("+".join(layout) for layout in LAYOUTS)
    raise ValueError(
        f"{name} has the columns {', '.join(row)}; wanted: {wanted}. "
        "Say which is which, for example `forget_columns` text=body."
    )


def check_whole_text(row: Row, name: str) -> None:
    """ValueError for a text with a column that may be the answer to it."""
    for column in MAYBE_ANSWERS:
        if isinstance(row.get(column), str):
            raise ValueError(
                f"{name} has the columns {', '.join(row)}: text may be a text of its own, or a "
                f"question with its answer in {column}. Say which, as `forget_columns` text=text "
                f"or question=text,answer={column}"
            )


def check_complete(rows: Iterable[Row], layout: tuple[str, ...], name: str) -> None:
    """ValueError unless every row has a value in every column of the layout."""
    first, bad = dict[str, int](), Counter[str]()
    for number, row in enumerate(rows, start=1):
        for column in layout:
            if column != "prompt" and is_missing(row.get(column)):
                first.setdefault(column, number)
                bad[column] += 1
        if all(column == "prompt" or not is_missing(row.get(column)) for column in layout):
            readable_in(row, layout, f"{name}: row {number}")
    for column in layout:
        if bad[column]:
            raise ValueError(
                f"{name}: {bad[column]} rows have no {column}, the first is row {first[column]}"
            )


def encode(row: Row, layout: tuple[str, ...], tokenizer: Any) -> Example:
    """Tokenize one row."""
    return encode_row(row, layout, tokenizer)[0]


def encode_row(row: Row, layout: tuple[str, ...], tokenizer: Any) -> tuple[Example, bool]:
    """The same, and whether prompt and completion share a token."""
    texts = readable(row, layout)
    if "messages" in texts:
        return encode_chat(texts["messages"], tokenizer), False
    if layout == ("text",):
        return encode_text(texts["text"], tokenizer), False
    prompt, completion = (texts[column] for column in layout)
    if layout == ("prompt", "completion"):
        return encode_two(prompt, completion, tokenizer)
    if tokenizer.chat_template:
        turns = (("user", prompt), ("assistant", completion))
        chat = [{"role": r, "content": c} for r, c in turns]
        return encode_chat(chat, tokenizer), False
    return encode_two(f"Question: {prompt}\nAnswer:", f" {completion}", tokenizer)


def encode_two(prompt: str, completion: str, tokenizer: Any) -> tuple[Example, bool]:
    """Prompt and completion of a row."""
    (pair,), spanning = split_pairs(tokenizer, [prompt], [completion])
    return answer_example(pair, tokenizer), bool(spanning)


def encode_pair(prompt: str, completion: str, tokenizer: Any) -> Example:
    """Prompt without a loss, completion and end-of-text token (if any) with a loss."""
    return encode_answers([prompt], [completion], tokenizer)[0]


def encode_answers(
    prompts: Sequence[str], completions: Sequence[str], tokenizer: Any
) -> list[Example]:
    """The same for many at once."""
    return [answer_example(p, tokenizer) for p in encode_pairs(tokenizer, prompts, completions)]


@dataclass(frozen=True)
class Passages:
    """One column of a file or hub dataset, without blank rows."""

    name: str
    column: str = "text"
    revision: str | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit)

    def check(self) -> None:
        """ValueError for a local file without the column. Nothing is downloaded."""
        if rows := local_rows(self.name):
            self.with_column(rows.read())

    def with_column(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows; ValueError if the first lacks the column."""
        first, every = peeked(rows)
        if self.column not in first:
            have = ", ".join(first)
            raise ValueError(f"{self.name} has the columns {have}; wanted: {self.column}")
        return every

    def text(self, row: Row, number: int) -> str:
        """The text of a row; empty if it has none."""
        value = row.get(self.column)
        where = f"{self.name}: row {number}: {self.column}"
        return "" if is_missing(value) else text_in(value, where)

    def __call__(self) -> list[str]:
        rows = self.with_column(find_rows(self.name, self.revision).read())
        texts = (self.text(row, number) for number, row in enumerate(rows, start=1))
        found = list(islice((text for text in texts if text.strip()), self.limit))
        if not found:
            raise ValueError(f"{self.name}: every row of the column {self.column} is blank")
        return found
