"""Conversion of benchmark-specific rows into the standard columns."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any

from ilu.data.cells import column_text, described
from ilu.data.readers import Row

SAFE = {True: True, False: False, "true": True, "false": False}
"""Values of a column that says whether a text is safe; in a CSV file they are text."""


def unsafe_responses(row: Row) -> list[Row]:
    """PKU-SafeRLHF: two responses, of which only the unsafe ones are to be forgotten."""
    question = column_text(row, "prompt")
    return [
        {"question": question, "answer": column_text(row, f"response_{i}")}
        for i in (0, 1)
        if not is_safe(row, f"is_response_{i}_safe")
    ]


def is_safe(row: Row, column: str) -> bool:
    """Whether a text is marked as safe; ValueError for any other mark than true and false."""
    value = row.get(column)
    key = value.strip().lower() if isinstance(value, str) else value
    if not isinstance(key, str | bool) or key not in SAFE:
        raise ValueError(f"{column} is {described(value)}, and must be true or false")
    return SAFE[key]


def continuation(row: Row) -> list[Row]:
    """MUSE's VerbMem: a text and its true continuation."""
    return [{"prompt": given(row, "prompt"), "completion": given(row, "gt")}]


def about_a_subject(row: Row) -> list[Row]:
    """RWKU's probes: a cloze or a question about a person."""
    return [{"question": given(row, "query"), "answer": given(row, "answer")}]


def input_and_output(row: Row) -> list[Row]:
    """LUME (arXiv 2502.15097): a beginning or a question with its continuation."""
    output = given(row, "output")
    completion = f" {output.lstrip()}" if isinstance(output, str) else output
    return [{"prompt": given(row, "input"), "completion": completion}]


def nested(row: Row) -> list[Row]:
    """KnowUnDo: one row with a list of training questions."""
    items = given(row, "train")
    if not isinstance(items, list) or not all(isinstance(each, dict) for each in items):
        raise ValueError("train must be a list of objects with text and labels")
    return [
        {
            column: item_text(each, key, i)
            for column, key in (("question", "text"), ("answer", "labels"))
        }
        for i, each in enumerate(items, start=1)
    ]


def item_text(item: Row, key: str, number: int) -> str:
    """The text of an item of ``train``."""
    try:
        return column_text(item, key)
    except ValueError as error:
        raise ValueError(f"item {number} of train: {error}") from None


def given(row: Row, column: str) -> Any:
    """The value of a column; ValueError for a row without it."""
    if column not in row:
        raise ValueError(f"it has no {column}; it has: {', '.join(row)}")
    return row[column]


Shape = Callable[[Row], list[Row]]
SHAPES: tuple[tuple[frozenset[str], Shape], ...] = (
    (frozenset({"prompt", "response_0", "is_response_0_safe"}), unsafe_responses),
    (frozenset({"prompt", "gt"}), continuation),
    (frozenset({"query", "answer", "subject", "level"}), about_a_subject),
    (frozenset({"id", "input", "output", "task"}), input_and_output),
    (frozenset({"train", "val"}), nested),
)
"""Columns that identify a benchmark, and the conversion of its rows."""


def reshaped(rows: Iterable[Row], name: str) -> Iterator[Row]:
    """The rows with standard columns; rows of an unknown layout are unchanged.

    Errors name the data, ``name``, and the row.
    """
    first, rows = peeked(rows)
    for columns, shape in SHAPES:
        if columns <= set(first):
            numbered = enumerate(rows, start=1)
            return (each for i, row in numbered for each in shaped(shape, row, f"{name}: row {i}"))
    return rows


def shaped(shape: Shape, row: Row, where: str) -> list[Row]:
    """What a row is converted to; its errors begin with the place of the row."""
    try:
        return shape(row)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def peeked(rows: Iterable[Row]) -> tuple[Row, Iterator[Row]]:
    """The first row, or an empty one if there is none, and all rows with it."""
    rest = iter(rows)
    front = list(islice(rest, 1))
    return (front[0] if front else {}), chain(front, rest)
