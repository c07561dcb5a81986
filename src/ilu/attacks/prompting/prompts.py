"""The same questions in other prompts: few-shot, with a prefilled answer, or paraphrased."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ilu.attacks.prompting.kind import ProbeInputs, ProbeKind
from ilu.data.multiple_choice import ChoiceRows, Paraphrases, paraphrases
from ilu.data.splits import OtherQuestions, SampledQuestions
from ilu.data.tokenize import encode_pairs
from ilu.evals.metrics.multiple_choice import Choice, accuracy, option_logps, picked
from ilu.system.scores import Score
from ilu.types import LM, Example, Group, Question, Questions

ACCURACY = "_accuracy"
"""Ending of the names of scores that are an attack's accuracy."""


@dataclass(frozen=True)
class FewShotChoice:
    """Questions after ``count`` solved questions of another source (few-shot, arXiv 2005.14165)."""

    questions: Questions
    solved: Questions
    count: int = 4
    between: str = "\n\n"

    def __call__(self) -> list[Question]:
        solved, questions = disjoint(self.solved(), self.questions())
        known = [q for q in solved if q.answer is not None]
        if not 1 <= self.count <= len(known):
            raise ValueError(f"{self.count} solved questions required: there are {len(known)}")
        few = [known[i * len(known) // self.count] for i in range(self.count)]
        head = "".join(f"{with_answer(q)}{self.between}" for q in few)
        return [wrapped(q, head, "") for q in questions]


@dataclass(frozen=True)
class Prefilled:
    """Questions followed by ``text``, the prefilled beginning of an answer (arXiv 2404.02151)."""

    questions: Questions
    text: str

    def __call__(self) -> list[Question]:
        return [wrapped(q, "", self.text) for q in self.questions()]


@dataclass(frozen=True)
class Wordings:
    """Accuracy with the wording that scores best on training questions.

    ``questions`` and ``train`` have a source for each wording; ``NAME_choice`` is the index of the
    chosen one. A single wording needs no training questions.
    """

    name: str
    questions: tuple[Questions, ...]
    train: tuple[Questions, ...] = ()
    batch_size: int = 128

    def __post_init__(self) -> None:
        alone = len(self.questions) == 1 and not self.train
        if not alone and (not self.questions or len(self.train) != len(self.questions)):
            raise ValueError("give a source of training questions for each of several wordings")

    def __call__(self, lm: LM) -> dict[str, Score]:
        for train, questions in zip(self.train, self.questions, strict=False):
            disjoint(train(), questions())
        accuracies = [Choice(source, self.batch_size)(lm).value for source in self.train] or [0.0]
        best = accuracies.index(max(accuracies))
        score = Choice(self.questions[best], self.batch_size)(lm)
        choice = {f"{self.name}_choice": chosen(best)} if self.train else {}
        return {f"{self.name}_accuracy": score, **choice}


@dataclass(frozen=True)
class Reworded:
    """Accuracy with the best of the user's paraphrases; empty without paraphrases."""

    source: ChoiceRows
    most: int = 40

    def content(self, tokenizer: Any) -> Any:
        """The questions and all their paraphrases."""
        return [self.source(), [paraphrases(row) for row in self.source.rows()]]

    def __call__(self, lm: LM) -> dict[str, Score]:
        count = len(paraphrases(self.source.rows()[0]))
        forms = [Paraphrases(self.source, i) for i in range(count)]
        questions, train = (
            tuple(part(form) for form in forms)
            for part in (SampledQuestions, lambda form: OtherQuestions(form, None, self.most))
        )
        return Wordings("reworded", questions, train)(lm) if forms else {}


@dataclass(frozen=True)
class Recovered:
    """Only the accuracies of a group, by prompt. The worst case of a run is the maximum over them.

    Controls, and settings that were chosen on training questions, are omitted.
    """

    group: Group

    def __call__(self, lm: LM) -> dict[str, Score]:
        scores = self.group(lm).items()
        return {k.removesuffix(ACCURACY): s for k, s in scores if k.endswith(ACCURACY)}


def chosen(value: float) -> Score:
    """A setting that was chosen on training questions, as a score without an error."""
    return Score(float(value), 0.0, 1)


def disjoint(
    train: Sequence[Question], questions: Sequence[Question]
) -> tuple[list[Question], list[Question]]:
    """Both lists; ValueError if the attack learns from questions that it is measured on."""
    known = {q.prompt for q in train}
    shared = sum(q.prompt in known for q in questions)
    if shared:
        raise ValueError(
            f"{shared} of {len(questions)} questions are among those that the attack learns from: "
            "an answer from its training data would not be a recovered one"
        )
    return list(train), list(questions)


def correct(lm: LM, questions: Sequence[Question], batch_size: int) -> Score:
    """Accuracy of the most likely option."""
    return accuracy(picked(option_logps(lm, questions, batch_size=batch_size)), questions)


def wrapped(q: Question, head: str, tail: str) -> Question:
    """A question with a text before and after it."""
    contexts = tuple(f"{head}{c}{tail}" for c in q.contexts)
    return q._replace(prompt=f"{head}{q.prompt}{tail}", contexts=contexts)


def with_answer(q: Question) -> str:
    """A question with its answer."""
    assert q.answer is not None
    return q.context(q.answer) + q.options[q.answer]


def answered(tokenizer: Any, questions: Sequence[Question]) -> list[Example]:
    """Each question with its right option; only the tokens of the option have a loss."""
    known = [(q.context(q.answer), q.options[q.answer]) for q in questions if q.answer is not None]
    if not known:
        raise ValueError("an attack learns from questions with known answers: there are none")
    pairs = encode_pairs(tokenizer, *map(list, zip(*known, strict=True)))
    return [Example([*head, *tail], len(head)) for head, tail in pairs]


BEGINNINGS = (" The answer is", " I know this one:", " It is")
"""Prefilled beginnings of an answer."""


def few_shot(inputs: ProbeInputs, argument: str) -> Wordings:
    """Put solved questions before every question."""
    shown = FewShotChoice(inputs.questions, inputs.solved, between=inputs.between)
    return Wordings("fewshot", (shown,))


def prefilled(inputs: ProbeInputs, argument: str) -> Wordings:
    """Begin the answer with a few words."""
    questions, train = (
        tuple(Prefilled(each, text) for text in BEGINNINGS)
        for each in (inputs.questions, inputs.some)
    )
    return Wordings("prefilled", questions, train)


def reworded(inputs: ProbeInputs, argument: str) -> Group:
    """Ask in other wordings: those of the lab, or of a column paraphrases."""
    return Reworded(inputs.rows) if inputs.rows else Wordings("reworded", *inputs.wordings)


PROBES = {
    "fewshot": ProbeKind(few_shot),
    "prefilled": ProbeKind(prefilled),
    "reworded": ProbeKind(reworded),
}
