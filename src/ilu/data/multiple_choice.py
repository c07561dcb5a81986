"""Multiple-choice questions from a file or hub dataset, in the format of MMLU and WMDP."""

import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any, NamedTuple, TypeVar

from ilu.data.cells import text_in
from ilu.data.hub import find_rows, local_rows
from ilu.data.question_form import Form
from ilu.data.readers import Row
from ilu.data.text import renamed
from ilu.data.tokenize import encode_pairs
from ilu.system.checks import check_limit
from ilu.types import Example, Question, Questions

LETTERS = "ABCDEFGHIJ"
COLUMNS = ("question", "choices", "answer")
FEW = 3
"""Up to this many questions may all have the same answer index by chance."""
UNLABELLED = (None, "", -1, "-1")
"""Values of the answer in test sets without public answers."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class RightAnswers:
    """Questions with their right option as the answer, which alone takes a loss.

    Questions without a known answer are left out.
    """

    questions: Questions

    def __call__(self, tokenizer: Any) -> list[Example]:
        known = [(q, q.answer) for q in self.questions() if q.answer is not None]
        prompts = [q.context(answer) for q, answer in known]
        pairs = encode_pairs(tokenizer, prompts, [q.options[answer] for q, answer in known])
        return [Example([*head, *tail], len(head)) for head, tail in pairs]


class Numbered(NamedTuple):
    """A row and its number in the data, from 1."""

    number: int
    row: Row


@dataclass(frozen=True)
class ChoiceRows:
    """Columns question, choices (a list) and answer (its index or letter), by letter or in full.

    An answer that is empty or -1 is unknown; the question is not scored.
    """

    name: str
    columns: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None
    form: Form = "letters"

    def __post_init__(self) -> None:
        check_limit(self.limit)

    def __call__(self) -> list[Question]:
        return choice_questions(self.numbered(), self.name, self.form)

    def check(self) -> None:
        """ValueError for a local file whose first row is no question. Nothing is downloaded."""
        if rows := local_rows(self.name):
            first = islice(renamed(rows.read(), self.columns, self.name), 1)
            choice_questions(numbered(list(first), None), self.name, self.form)

    def rows(self) -> list[Row]:
        """The rows under their standard names."""
        return [each.row for each in self.numbered()]

    def numbered(self) -> list[Numbered]:
        """The same with their numbers in the data."""
        rows = list(renamed(find_rows(self.name).read(), self.columns, self.name))
        return numbered(rows, self.limit)


@dataclass(frozen=True)
class Paraphrases:
    """The same questions in other words: entry ``wording`` of a column ``paraphrases`` of lists."""

    source: ChoiceRows
    wording: int

    def __call__(self) -> list[Question]:
        rows = self.source.numbered()
        for i, row in rows:
            if len(paraphrases(row)) <= self.wording:
                raise ValueError(
                    f"{self.source.name}, row {i}: paraphrases must be a list, in every row as "
                    "long as in the first"
                )
        changed = [
            Numbered(i, {**row, "question": paraphrases(row)[self.wording]}) for i, row in rows
        ]
        return choice_questions(changed, self.source.name, self.source.form)


def paraphrases(row: Row) -> list[Any]:
    """Other wordings of the question of a row; empty without such a list."""
    texts: Any = row.get("paraphrases")
    return texts if isinstance(texts, list) else []


def no_head(row: Row) -> str:
    """No text before a question."""
    return ""


def choice_questions(
    rows: Sequence[Numbered], name: str, form: Form, head: Callable[[Row], str] = no_head
) -> list[Question]:
    """The questions of rows with standard columns, each after its ``head``.

    A cloze has no head, since the head announces options.
    """
    first = rows[0].row
    missing = [c for c in COLUMNS if c not in first]
    if missing:
        raise ValueError(
            f"{name} has the columns {', '.join(first)}; wanted: {', '.join(COLUMNS)}. "
            f"Say what it is called, for example `data_columns` {missing[0]}=q"
        )
    questions = [question(row, f"{name}, row {i}", form) for i, row in rows]
    answers = {q.answer for q in questions}
    if form == "letters" and len(questions) > FEW and len(answers) == 1 and answers != {None}:
        letter = LETTERS[answers.pop() or 0]
        warnings.warn(
            f"{name}: every right answer is {letter}, so a model that always takes {letter} seems "
            "to know all: shuffle the choices",
            stacklevel=2,
        )
    if form == "cloze":
        return questions
    pairs = zip(questions, rows, strict=True)
    return [q._replace(prompt=head_of(row, head, f"{name}, row {i}") + q.prompt)
            for q, (i, row) in pairs]  # fmt: skip


def head_of(row: Row, head: Callable[[Row], str], where: str) -> str:
    """The text before the question of a row."""
    try:
        return head(row)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def question(row: Row, where: str, form: Form = "letters") -> Question:
    """The question, its choices by letter, and ``Answer:``; or, as a cloze, without the choices."""
    if absent := [c for c in COLUMNS if c not in row]:
        raise ValueError(f"{where}: it has no {absent[0]}")
    choices: Any = row["choices"]
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(LETTERS):
        raise ValueError(f"{where}: choices must be a list of 2 to {len(LETTERS)} answers")
    choices = [text_in(c, f"{where}: choice {k}") for k, c in enumerate(choices, start=1)]
    index = answer_index(row["answer"], len(choices), where)
    text = text_in(row["question"], f"{where}: question").strip()
    if form == "cloze":
        return Question(f"Question: {text}\nAnswer:", tuple(f" {c}" for c in choices), index)
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
    prompt = "\n".join([text, *lines, "Answer:"])
    return Question(prompt, tuple(f" {letter}" for letter in LETTERS[: len(choices)]), index)


def answer_index(answer: Any, count: int, where: str) -> int | None:
    """Index of the choice that an index or letter names; None for an unknown answer."""
    if answer in UNLABELLED:
        return None
    known: dict[Any, int] = {LETTERS[i]: i for i in range(count)}
    known |= {i: i for i in range(count)} | {str(i): i for i in range(count)}
    key = answer.strip().upper() if isinstance(answer, str) else answer
    one = isinstance(key, str | int | float) and not isinstance(key, bool)
    index = known.get(key) if one else None
    if index is None:
        said = f" {answer!r}" if len(str(answer)) <= 4 else ""  # long answers are not quoted
        raise ValueError(f"{where}: the answer{said} names none of the {count} choices")
    return index


def numbered(rows: Sequence[Row], limit: int | None) -> list[Numbered]:
    """Rows with their numbers, of which ``limit`` draws that many, spread over all."""
    return spread([Numbered(i, row) for i, row in enumerate(rows, start=1)], limit)


def spread(items: Sequence[Item], count: int | None) -> list[Item]:
    """``count`` items evenly spread over all, for data sorted by subject or label.

    One random item, with a fixed seed, from each of ``count`` equal segments. Regular steps would
    be biased on periodic data, such as four questions about each person.
    """
    check_limit(count)
    if not items:
        return []
    count = min(count or len(items), len(items))
    ends = [i * len(items) // count for i in range(count + 1)]
    draw = random.Random("spread")
    return [items[draw.randrange(start, end)] for start, end in pairwise(ends)]
