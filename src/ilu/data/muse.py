"""MUSE's few-shot questions (arXiv 2407.06460)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ilu.data.cells import QA, readable_in
from ilu.data.hub import load_rows
from ilu.data.multiple_choice import spread
from ilu.data.readers import Row
from ilu.data.text import encode_pair
from ilu.system.checks import check_limit
from ilu.types import Example


@dataclass(frozen=True)
class FewShot:
    """Questions of ``name``, each after all questions of ``solved`` with their answers."""

    name: str
    solved: str
    revision: str | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit)

    def __call__(self, tokenizer: Any) -> list[Example]:
        solved, rows = (load_rows(name, self.revision) for name in (self.solved, self.name))
        head = "".join(f"Question: {q}\nAnswer: {a}\n\n" for q, a in texts(solved, self.solved))
        return [
            encode_pair(f"{head}Question: {question}\nAnswer:", f" {answer}", tokenizer)
            for question, answer in spread(list(texts(rows, self.name)), self.limit)
        ]


def texts(rows: Sequence[Row], name: str) -> Iterator[tuple[str, str]]:
    """Question and answer of each row."""
    for i, row in enumerate(rows, start=1):
        text = readable_in(row, QA, f"{name}: row {i}")
        yield text["question"], text["answer"]
