"""Downstream classification tasks of the hub: training text and test questions.

AG News, SST-2, WinoGrande, MNLI and QQP, five of the six tasks of the ILU paper (arXiv 2506.01339);
the sixth, GSM8K, is plain text with the metric ``evals/metrics/final_number.py``. Training text
comes only from the training split, questions only from another split. Prompts are the zero-shot
prompts of lm-evaluation-harness 0.4.13, which has none for AG News. No chat template is used,
neither in training nor in questions.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ilu.data.cells import QA, column_text, readable_in
from ilu.data.hub import load_rows
from ilu.data.multiple_choice import UNLABELLED, answer_index, numbered
from ilu.data.readers import Row
from ilu.data.text import encode_answers
from ilu.system.checks import check_limit
from ilu.types import Example, Question

GLUE = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
GSM8K = "cc7b047b6e5bb11b4f1af84efc572db110a51b3c"
"""Revisions of datasets that are read in several places."""


class Task(NamedTuple):
    """The dataset of a task, and the conversion of a row into a question."""

    data: str
    train: str
    test: str
    revision: str
    ask: Callable[[Row], Question]

    def question(self, row: Row, where: str) -> Question:
        """The question of a row; its errors begin with the place of the row."""
        try:
            return self.ask(row)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None


def ag_news(row: Row) -> Question:
    """The topic of an article."""
    text = column_text(row, "text")
    prompt = f"{text}\nQuestion: Is this about world, sports, business or technology?\nAnswer:"
    return labelled(prompt, ("world", "sports", "business", "technology"), row)


def sst2(row: Row) -> Question:
    """Whether a sentence of a film review is positive."""
    sentence = column_text(row, "sentence")
    prompt = f"{sentence}\nQuestion: Is this sentence positive or negative?\nAnswer:"
    return labelled(prompt, ("negative", "positive"), row)


def mnli(row: Row) -> Question:
    """Whether the second sentence follows from the first."""
    first, second = (column_text(row, column) for column in ("premise", "hypothesis"))
    second = second.strip().removesuffix(".")
    prompt = f"{first}\nQuestion: {second}. True, False or Neither?\nAnswer:"
    return labelled(prompt, ("True", "Neither", "False"), row)


def qqp(row: Row) -> Question:
    """Whether two questions have the same meaning."""
    first, second = (column_text(row, column) for column in ("question1", "question2"))
    pair = f"Question 1: {first}\nQuestion 2: {second}\n"
    prompt = f"{pair}Question: Do both questions ask the same thing?\nAnswer:"
    return labelled(prompt, ("no", "yes"), row)


def winogrande(row: Row) -> Question:
    """The referent of a pronoun, by the likelihood of the rest of the sentence after either name.

    The likelihood of the names, which depends on how common they are, does not count.
    """
    before, blank, after = column_text(row, "sentence").partition("_")
    if not blank:
        raise ValueError("sentence has no _ in the place of the name")
    first, second = (column_text(row, column) for column in ("option1", "option2"))
    contexts = (before + first, before + second)
    number = label_of(row, "answer")
    known = None if number in UNLABELLED else one_of_two(number)
    return Question("", (f" {after.strip()}",) * 2, known, contexts)


def one_of_two(number: Any) -> int:
    """The place of the option that 1 or 2 means, as a number or as text."""
    for place, known in enumerate((1, 2)):
        if number in (known, str(known)) and not isinstance(number, bool):
            return place
    raise ValueError("answer must be 1 or 2")


def labelled(prompt: str, labels: tuple[str, ...], row: Row) -> Question:
    """A question whose options are the task's labels, in the order of their numbers."""
    answer = answer_index(label_of(row, "label"), len(labels), "label")
    return Question(prompt, tuple(f" {label}" for label in labels), answer)


def label_of(row: Row, column: str) -> Any:
    """The value of a column; ValueError for a row without it."""
    if column not in row:
        raise ValueError(f"it has no {column}; it has: {', '.join(row)}")
    return row[column]


TASKS: dict[str, Task] = {
    "ag_news": Task(
        "fancyzhx/ag_news:default", "train", "test",
        "eb185aade064a813bc0b7f42de02595523103ca4", ag_news,
    ),
    "sst2": Task(
        "stanfordnlp/sst2:default", "train", "validation",
        "8d51e7e4887a4caaa95b3fbebbf53c0490b58bbb", sst2,
    ),
    "winogrande": Task(
        "allenai/winogrande:winogrande_xl", "train", "validation",
        "01e74176c63542e6b0bcb004dcdea22d94fb67b5", winogrande,
    ),
    "mnli": Task("nyu-mll/glue:mnli", "train", "validation_matched", GLUE, mnli),
    "qqp": Task("nyu-mll/glue:qqp", "train", "validation", GLUE, qqp),
}  # fmt: skip
"""The tasks with options. The test splits of GLUE and WinoGrande have no public answers."""


@dataclass(frozen=True)
class LabelledText:
    """Training rows of a task with options; only the right answer has a loss.

    The answer comes last, so ``truncate`` drops, with a warning, the rows that are longer.
    """

    task: str
    truncate: int | None = None

    def __post_init__(self) -> None:
        known_task(self.task)

    def __call__(self, tokenizer: Any) -> list[Example]:
        task = known_task(self.task)
        name = f"{task.data}:{task.train}"
        rows = enumerate(load_rows(name, task.revision), 1)
        pairs = [answered(task, row, f"{name}: row {i}") for i, row in rows]
        prompts, answers = zip(*pairs, strict=True)
        return fitting(encode_answers(prompts, answers, tokenizer), self.truncate, name)


@dataclass(frozen=True)
class LabelledQuestions:
    """Test questions of a task with options; ``limit`` takes an evenly spread subset."""

    task: str
    limit: int | None = None

    def __post_init__(self) -> None:
        known_task(self.task)
        check_limit(self.limit)

    def __call__(self) -> list[Question]:
        task = known_task(self.task)
        name = f"{task.data}:{task.test}"
        rows = numbered(load_rows(name, task.revision), self.limit)
        return [task.question(row, f"{name}: row {i}") for i, row in rows]


@dataclass(frozen=True)
class Problems:
    """Rows whose answers end in a number; ``limit`` takes an evenly spread subset."""

    name: str = "openai/gsm8k:main:test"
    revision: str | None = GSM8K
    limit: int | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit)

    def __call__(self) -> list[Row]:
        rows = load_rows(self.name, self.revision)
        missing = {"question", "answer"} - set(rows[0])
        if missing:
            raise ValueError(f"{self.name} has no column {min(missing)!r}: {', '.join(rows[0])}")
        found = numbered(rows, self.limit)
        return [readable_in(row, QA, f"{self.name}: row {i}") for i, row in found]


def known_task(name: str) -> Task:
    """The task called ``name``."""
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; tasks with options: {', '.join(TASKS)}")
    return TASKS[name]


def answered(task: Task, row: Row, where: str) -> tuple[str, str]:
    """Prompt and right answer of the question of a row."""
    question = task.question(row, where)
    if question.answer is None:
        raise ValueError(f"{where} has no answer: this split cannot be trained on")
    return question.context(question.answer), question.options[question.answer]


def fitting(examples: Sequence[Example], length: int | None, name: str) -> list[Example]:
    """The examples of at most ``length`` tokens."""
    kept = [e for e in examples if length is None or len(e.ids) <= length]
    if not kept:
        raise ValueError(f"{name}: no row is as short as `truncate` {length}")
    if len(kept) < len(examples):
        lost = len(examples) - len(kept)
        warnings.warn(
            f"{name}: {lost} of {len(examples)} rows left out, longer than `truncate` {length}",
            stacklevel=2,
        )
    return kept
