"""Conversion of benchmark-specific rows into the standard columns."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice

from ilu.data.readers import Row


def unsafe_responses(row: Row) -> list[Row]:
    """PKU-SafeRLHF: two responses, of which only the unsafe ones are to be forgotten."""
    return [
        {"question": row["prompt"], "answer": row[f"response_{i}"]}
        for i in (0, 1)
        if not row[f"is_response_{i}_safe"]
    ]


def continuation(row: Row) -> list[Row]:
    """MUSE's VerbMem: a text and its true continuation."""
    return [{"prompt": row["prompt"], "completion": row["gt"]}]


def about_a_subject(row: Row) -> list[Row]:
    """RWKU's probes: a cloze or a question about a person."""
    return [{"question": row["query"], "answer": row["answer"]}]


def input_and_output(row: Row) -> list[Row]:
    """LUME (arXiv 2502.15097): a beginning or a question with its continuation."""
    output = row["output"]
    completion = f" {output.lstrip()}" if isinstance(output, str) else output
    return [{"prompt": row["input"], "completion": completion}]


def nested(row: Row) -> list[Row]:
    """KnowUnDo: one row with a list of training questions."""
    return [{"question": each["text"], "answer": each["labels"]} for each in row["train"]]


Shape = Callable[[Row], list[Row]]
SHAPES: tuple[tuple[frozenset[str], Shape], ...] = (
    (frozenset({"prompt", "response_0", "is_response_0_safe"}), unsafe_responses),
    (frozenset({"prompt", "gt"}), continuation),
    (frozenset({"query", "answer", "subject", "level"}), about_a_subject),
    (frozenset({"id", "input", "output", "task"}), input_and_output),
    (frozenset({"train", "val"}), nested),
)
"""Columns that identify a benchmark, and the conversion of its rows."""


def reshaped(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows with standard columns; rows of an unknown layout are unchanged."""
    first, rows = peeked(rows)
    for columns, shape in SHAPES:
        if columns <= set(first):
            return (each for row in rows for each in shape(row))
    return rows


def peeked(rows: Iterable[Row]) -> tuple[Row, Iterator[Row]]:
    """The first row, or an empty one if there is none, and all rows with it."""
    rest = iter(rows)
    front = list(islice(rest, 1))
    return (front[0] if front else {}), chain(front, rest)
