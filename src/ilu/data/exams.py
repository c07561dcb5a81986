"""Public multiple-choice benchmarks: WMDP, MMLU, TruthfulQA.

Each is read at a pinned revision, or from the local mirror. Prompts are the zero-shot prompts of
lm-evaluation-harness 0.4.13, unless a docstring states otherwise.
"""

from dataclasses import dataclass
from typing import Literal

from ilu.data.cells import column_text, text_in
from ilu.data.hub import load_rows
from ilu.data.multiple_choice import Numbered, choice_questions, numbered, spread
from ilu.data.question_form import Form
from ilu.data.readers import Row
from ilu.system.checks import check_limit
from ilu.types import Question

HEAD = "The following are multiple choice questions (with answers) about {}.\n\n"
Domain = Literal["bio", "cyber", "chem"]
DOMAINS: dict[str, str] = {"bio": "biology", "cyber": "cybersecurity", "chem": "chemistry"}


@dataclass(frozen=True)
class WMDP:
    """Questions of WMDP (arXiv 2403.03218), one domain: 1273 bio, 1987 cyber, 408 chem.

    ``letters`` is the benchmark. ``cloze`` does not show the options and scores the full answers; a
    model that has only lost the format still passes it. ``name`` may be a file. Forgetting is 1
    minus the accuracy: .75 is guessing, and more means that the model avoids the right option.
    """

    domain: Domain
    form: Form = "letters"
    limit: int | None = None
    name: str = "cais/wmdp"
    revision: str = "7125571f22f032c56415e7980f48d877dd830ff8"

    def __post_init__(self) -> None:
        check_limit(self.limit)

    def __call__(self) -> list[Question]:
        hub = f"{self.name}:wmdp-{self.domain}:test" if self.name == "cais/wmdp" else self.name
        rows = numbered(load_rows(hub, self.revision), self.limit)
        return choice_questions(rows, hub, self.form, lambda row: HEAD.format(DOMAINS[self.domain]))


@dataclass(frozen=True)
class MMLU:
    """Test questions of MMLU (arXiv 2009.03300), all subjects or one, without examples.

    All questions have the same weight, as in the group score of lm-evaluation-harness. The data is
    sorted by subject, so a ``limit`` takes evenly spread questions.
    """

    subject: str | None = None
    form: Form = "letters"
    limit: int | None = None
    revision: str = "c30699e8356da336a370243923dbaf21066bb9fe"

    def __post_init__(self) -> None:
        check_limit(self.limit)

    def __call__(self) -> list[Question]:
        hub = "cais/mmlu:all:test"
        rows = numbered(load_rows(hub, self.revision), None)
        if self.subject is not None:
            rows = of_subject(rows, self.subject)
        return choice_questions(spread(rows, self.limit), hub, self.form, subject_head)


def of_subject(rows: list[Numbered], subject: str) -> list[Numbered]:
    """The rows of one subject."""
    matching = [each for each in rows if each.row.get("subject") == subject]
    if not matching:
        known = ", ".join(sorted({str(each.row.get("subject")) for each in rows}))
        raise ValueError(f"MMLU has no subject {subject!r}; it has: {known}")
    return matching


def subject_head(row: Row) -> str:
    """The head of a question, which names its subject."""
    return HEAD.format(column_text(row, "subject").replace("_", " "))


@dataclass(frozen=True)
class TruthfulQA:
    """TruthfulQA with one true answer (``mc1``, arXiv 2109.07958); full answers are scored.

    The number of answers, and so the chance level, differs by question. Deviation: the benchmark's
    six solved questions are omitted; ``truthfulqa_mc1`` of lm-evaluation-harness has them.
    """

    limit: int | None = None
    revision: str = "741b8276f2d1982aa3d5b832d3ee81ed3b896490"

    def __post_init__(self) -> None:
        check_limit(self.limit)

    def __call__(self) -> list[Question]:
        name = "truthfulqa/truthful_qa:multiple_choice:validation"
        rows = numbered(load_rows(name, self.revision), self.limit)
        return [true_answer(row, f"{name}, row {i}") for i, row in rows]


def true_answer(row: Row, where: str) -> Question:
    """A question among whose answers exactly one has the label 1."""
    try:
        targets = row["mc1_targets"]
        choices, labels = targets["choices"], list(targets["labels"])
    except (KeyError, TypeError):
        raise ValueError(f"{where}: wanted mc1_targets with lists of choices and labels") from None
    if not isinstance(choices, list) or len(labels) != len(choices) or labels.count(1) != 1:
        raise ValueError(f"{where}: exactly one of a list of answers must have the label 1")
    choices = [text_in(c, f"{where}: choice {k}") for k, c in enumerate(choices, start=1)]
    question = text_in(row.get("question"), f"{where}: question")
    return Question(f"Q: {question}\nA:", tuple(f" {c}" for c in choices), labels.index(1))
