"""Multiple-choice questions from a file or hub dataset, asked the way MMLU and WMDP are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ilu.sources.files import Row
from ilu.sources.hub import load_rows
from ilu.sources.text import renamed
from ilu.types import Question, check_limit

LETTERS = "ABCDEFGHIJ"
COLUMNS = ("question", "choices", "answer")


@dataclass(frozen=True)
class ChoiceRows:
    """Columns question, choices (a list) and answer (its index or letter), scored by letter."""

    name: str
    columns: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit)

    def __call__(self) -> list[Question]:
        rows = renamed(load_rows(self.name), self.columns, self.name)[: self.limit]
        missing = [c for c in COLUMNS if c not in rows[0]]
        if missing:
            raise ValueError(
                f"{self.name} has the columns {', '.join(rows[0])}; wanted: {', '.join(COLUMNS)}. "
                "Say which is which, for example --columns question=q"
            )
        return [question(row, f"{self.name}, row {i}") for i, row in enumerate(rows, start=1)]


def question(row: Row, where: str) -> Question:
    """The question, its choices by letter, and ``Answer:``."""
    choices: Any = row["choices"]
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(LETTERS):
        raise ValueError(f"{where}: choices must be a list of 2 to {len(LETTERS)} answers")
    known: dict[Any, int] = {LETTERS[i]: i for i in range(len(choices))}
    known |= {i: i for i in range(len(choices))} | {str(i): i for i in range(len(choices))}
    answer = row["answer"]
    index = known.get(answer.strip().upper() if isinstance(answer, str) else answer)
    if index is None:
        raise ValueError(f"{where}: the answer {answer!r} names none of the {len(choices)} choices")
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
    prompt = "\n".join([str(row["question"]).strip(), *lines, "Answer:"])
    return Question(prompt, tuple(f" {letter}" for letter in LETTERS[: len(choices)]), index)
