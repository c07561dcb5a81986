"""MUSE's questions behind a few that are answered already (arXiv 2407.06460)."""

from dataclasses import dataclass
from typing import Any

from ilu.data.hub import load_rows
from ilu.data.text import encode_pair
from ilu.system.checks import check_limit
from ilu.types import Example


@dataclass(frozen=True)
class FewShot:
    """Questions of ``name``, each behind all of ``shown`` with their answers."""

    name: str
    shown: str
    revision: str | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit)

    def __call__(self, tokenizer: Any) -> list[Example]:
        shown, asked = (load_rows(name, self.revision) for name in (self.shown, self.name))
        head = "".join(f"Question: {r['question']}\nAnswer: {r['answer']}\n\n" for r in shown)
        return [
            encode_pair(f"{head}Question: {r['question']}\nAnswer:", f" {r['answer']}", tokenizer)
            for r in asked[: self.limit]
        ]
