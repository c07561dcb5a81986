"""Downstream tasks of the hub that choose among labels: what to train on, and what to ask after.

AG News, SST-2, WinoGrande, MNLI and QQP, five of the six tasks of the ILU paper (arXiv 2506.01339);
the sixth, GSM8K, is plain text here and ``evals/arithmetic.py`` there. Training text comes from the
training split alone, questions from a split that no training reads. Prompts are those of
lm-evaluation-harness 0.4.13 without examples; it has none for AG News. A chat template is not used,
in training as in the questions.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ilu.data.hub import load_rows
from ilu.data.multiple_choice import UNLABELLED, answer_index, spread
from ilu.data.readers import Row
from ilu.data.text import encode_answers
from ilu.system.checks import check_limit
from ilu.types import Example, Question

GLUE = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
GSM8K = "cc7b047b6e5bb11b4f1af84efc572db110a51b3c"
"""Revisions of datasets that are read in several places."""


class Task(NamedTuple):
    """Where a task's rows are, and how one of them becomes a question."""

    data: str
    train: str
    test: str
    revision: str
    ask: Callable[[Row], Question]


def ag_news(row: Row) -> Question:
    """Say what an article is about."""
    prompt = (
        f"{row['text']}\nQuestion: Is this about world, sports, business or technology?\nAnswer:"
    )
    return labelled(prompt, ("world", "sports", "business", "technology"), row)


def sst2(row: Row) -> Question:
    """Say whether a sentence of a film review is kind."""
    prompt = f"{row['sentence']}\nQuestion: Is this sentence positive or negative?\nAnswer:"
    return labelled(prompt, ("negative", "positive"), row)


def mnli(row: Row) -> Question:
    """Say whether a second sentence follows from the first."""
    second = str(row["hypothesis"]).strip().removesuffix(".")
    prompt = f"{row['premise']}\nQuestion: {second}. True, False or Neither?\nAnswer:"
    return labelled(prompt, ("True", "Neither", "False"), row)


def qqp(row: Row) -> Question:
    """Say whether two questions mean the same."""
    pair = f"Question 1: {row['question1']}\nQuestion 2: {row['question2']}\n"
    prompt = f"{pair}Question: Do both questions ask the same thing?\nAnswer:"
    return labelled(prompt, ("no", "yes"), row)


def winogrande(row: Row) -> Question:
    """Say who is meant: the likelihood of the end of the sentence after either name.

    The likelihood of the names themselves, which says how common they are, does not count.
    """
    before, _, after = str(row["sentence"]).partition("_")
    contexts = (before + row["option1"], before + row["option2"])
    number = row["answer"]
    known = None if number in UNLABELLED else answer_index(int(number) - 1, 2, "winogrande")
    return Question("", (f" {after.strip()}",) * 2, known, contexts)


def labelled(prompt: str, labels: tuple[str, ...], row: Row) -> Question:
    """A question whose options are the task's labels, in the order of their numbers."""
    answer = answer_index(row["label"], len(labels), "label")
    return Question(prompt, tuple(f" {label}" for label in labels), answer)


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
"""The tasks with options; the test splits of GLUE and WinoGrande come without their answers."""


@dataclass(frozen=True)
class LabelledText:
    """Training rows of a task with options; the right answer takes the loss.

    The answer comes last, so ``truncate`` leaves out, with a warning, the rows that are longer.
    """

    task: str
    truncate: int | None = None

    def __post_init__(self) -> None:
        known_task(self.task)

    def __call__(self, tokenizer: Any) -> list[Example]:
        task = known_task(self.task)
        name = f"{task.data}:{task.train}"
        asked = [task.ask(row) for row in load_rows(name, task.revision)]
        pairs = [answered(question, f"{name}, row {i}") for i, question in enumerate(asked, 1)]
        prompts, answers = zip(*pairs, strict=True)
        return fitting(encode_answers(prompts, answers, tokenizer), self.truncate, name)


@dataclass(frozen=True)
class LabelledQuestions:
    """Test questions of a task with options, ``limit`` of them taken evenly from all."""

    task: str
    limit: int | None = None

    def __post_init__(self) -> None:
        known_task(self.task)
        check_limit(self.limit)

    def __call__(self) -> list[Question]:
        task = known_task(self.task)
        rows = load_rows(f"{task.data}:{task.test}", task.revision)
        return [task.ask(row) for row in spread(rows, self.limit)]


@dataclass(frozen=True)
class Problems:
    """Rows with question and answer, whose answers end in a number; ``limit`` taken evenly."""

    name: str = "openai/gsm8k:main:test"
    revision: str | None = GSM8K
    limit: int | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit)

    def __call__(self) -> list[Row]:
        rows = spread(load_rows(self.name, self.revision), self.limit)
        missing = {"question", "answer"} - set(rows[0])
        if missing:
            raise ValueError(f"{self.name} has no column {min(missing)!r}: {', '.join(rows[0])}")
        return [{"question": str(r["question"]), "answer": str(r["answer"])} for r in rows]


def known_task(name: str) -> Task:
    """The task called ``name``."""
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; tasks with options: {', '.join(TASKS)}")
    return TASKS[name]


def answered(asked: Question, where: str) -> tuple[str, str]:
    """Prompt and right answer of a question."""
    if asked.answer is None:
        raise ValueError(f"{where} has no answer: this split cannot be trained on")
    return asked.context(asked.answer), asked.options[asked.answer]


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
