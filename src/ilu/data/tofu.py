"""TOFU's questions with the answers that its metrics compare (arXiv 2401.06121)."""

from dataclasses import dataclass
from typing import Any

from ilu.data.cells import QA, readable_in
from ilu.data.hub import load_rows
from ilu.data.multiple_choice import spread
from ilu.data.readers import Row
from ilu.data.text import encode
from ilu.system.checks import check_limit
from ilu.types import Example


@dataclass(frozen=True)
class Perturbed:
    """A ``_perturbed`` set: the counterparts of an answer are its paraphrase and the wrong answers.

    Real authors and world facts have no paraphrase; the answer itself is used. All answers follow
    the original question, as in the authors' evaluation.
    """

    name: str
    revision: str | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit)

    def __call__(self, tokenizer: Any) -> list[Example]:
        rows = load_rows(self.name, self.revision)
        missing = [c for c in (*QA, "perturbed_answer") if c not in rows[0]]
        if missing:
            raise ValueError(
                f"{self.name} has no column {missing[0]!r}, it has {', '.join(rows[0])}: give a "
                "set of TOFU that ends in _perturbed"
            )
        numbered = spread(list(enumerate(rows, 1)), self.limit)
        found = [compared_texts(row, f"{self.name}: row {i}") for i, row in numbered]
        return [compared(row, tokenizer) for row in found]


def compared_texts(row: Row, where: str) -> Row:
    """The row with text as question, and the answers to compare, the true one first."""
    right = row.get("paraphrased_answer") or row.get("answer")
    wrong: Any = row.get("perturbed_answer")
    if not isinstance(wrong, list) or not wrong:
        raise ValueError(f"{where}: perturbed_answer must be a list of wrong answers")
    answers = [row.get("answer"), right, *wrong]
    rows = [readable_in({**row, "answer": answer}, QA, where) for answer in answers]
    return {**rows[0], "answers": [each["answer"] for each in rows]}


def compared(row: Row, tokenizer: Any) -> Example:
    """One question with its answer, and the answers to compare as counterparts."""
    first, *others = (encode({**row, "answer": a}, QA, tokenizer) for a in row["answers"])
    return first._replace(others=tuple(others))
