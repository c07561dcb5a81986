"""MUSE's few-shot questions (arXiv 2407.06460)."""

from dataclasses import dataclass
from typing import Any

from ilu.data.hub import load_rows
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
        head = "".join(f"Question: {r['question']}\nAnswer: {r['answer']}\n\n" for r in solved)
        return [
            encode_pair(f"{head}Question: {r['question']}\nAnswer:", f" {r['answer']}", tokenizer)
            for r in rows[: self.limit]
        ]
