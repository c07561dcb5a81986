"""The same questions asked in another way: solved ones in front, an answer begun, other words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ilu.data.multiple_choice import ChoiceRows, Paraphrases, paraphrases
from ilu.data.splits import Left, Taken
from ilu.data.tokenize import encode_pairs
from ilu.evals.metrics.multiple_choice import Choice, accuracy, option_logps, picked
from ilu.system.scores import Score
from ilu.types import LM, Example, Group, Question, Questions

ACCURACY = "_accuracy"
"""How scores end that say how many questions an attack gets right."""


@dataclass(frozen=True)
class Shown:
    """Questions after ``count`` solved ones of another source (few-shot, arXiv 2005.14165)."""

    questions: Questions
    solved: Questions
    count: int = 4
    between: str = "\n\n"

    def __call__(self) -> list[Question]:
        solved, asked = apart(self.solved(), self.questions())
        shown = [q for q in solved if q.answer is not None]
        if not 1 <= self.count <= len(shown):
            raise ValueError(f"{self.count} solved questions wanted: there are {len(shown)}")
        few = [shown[i * len(shown) // self.count] for i in range(self.count)]
        head = "".join(f"{right(q)}{self.between}" for q in few)
        return [begun(q, head, "") for q in asked]


@dataclass(frozen=True)
class Prefilled:
    """Questions whose answer has begun already with ``text`` (arXiv 2404.02151)."""

    questions: Questions
    text: str

    def __call__(self) -> list[Question]:
        return [begun(q, "", self.text) for q in self.questions()]


@dataclass(frozen=True)
class Wordings:
    """Accuracy with the one of several wordings that does best on training questions.

    ``asked`` and ``train`` have a source for each wording; ``NAME_choice`` is the number of the one
    taken. A single wording needs no training questions.
    """

    name: str
    asked: tuple[Questions, ...]
    train: tuple[Questions, ...] = ()
    batch_size: int = 128

    def __post_init__(self) -> None:
        alone = len(self.asked) == 1 and not self.train
        if not alone and (not self.asked or len(self.train) != len(self.asked)):
            raise ValueError("give a source of training questions for each of several wordings")

    def __call__(self, lm: LM) -> dict[str, Score]:
        for train, asked in zip(self.train, self.asked, strict=False):
            apart(train(), asked())
        found = [Choice(source, self.batch_size)(lm).value for source in self.train] or [0.0]
        best = found.index(max(found))
        score = Choice(self.asked[best], self.batch_size)(lm)
        taken = {f"{self.name}_choice": chosen(best)} if self.train else {}
        return {f"{self.name}_accuracy": score, **taken}


@dataclass(frozen=True)
class Reworded:
    """The best of the paraphrases that a user's questions have; nothing if they have none."""

    source: ChoiceRows
    most: int = 40

    def content(self, tokenizer: Any) -> Any:
        """The questions in their own words and in all others."""
        return [self.source(), [paraphrases(row) for row in self.source.rows()]]

    def __call__(self, lm: LM) -> dict[str, Score]:
        count = len(paraphrases(self.source.rows()[0]))
        forms = [Paraphrases(self.source, i) for i in range(count)]
        asked, train = (
            tuple(part(form) for form in forms)
            for part in (Taken, lambda form: Left(form, None, self.most))
        )
        return Wordings("reworded", asked, train)(lm) if forms else {}


@dataclass(frozen=True)
class Recovered:
    """The accuracies of a group alone, by the way of asking: what a run's worst case is over.

    Controls and what training questions have chosen are left out.
    """

    group: Group

    def __call__(self, lm: LM) -> dict[str, Score]:
        found = self.group(lm).items()
        return {k.removesuffix(ACCURACY): s for k, s in found if k.endswith(ACCURACY)}


def chosen(value: float) -> Score:
    """What training questions have decided: a setting, so without an error."""
    return Score(float(value), 0.0, 1)


def apart(
    train: Sequence[Question], asked: Sequence[Question]
) -> tuple[list[Question], list[Question]]:
    """Refuse to measure on questions that an attack has seen the answers of."""
    known = {q.prompt for q in train}
    shared = sum(q.prompt in known for q in asked)
    if shared:
        raise ValueError(
            f"{shared} of {len(asked)} questions are among those that the attack learns from: "
            "an answer that was shown is not recovered"
        )
    return list(train), list(asked)


def correct(lm: LM, asked: Sequence[Question], batch_size: int) -> Score:
    """Accuracy of the most likely option on questions that are at hand."""
    return accuracy(picked(option_logps(lm, asked, batch_size=batch_size)), asked)


def begun(q: Question, head: str, tail: str) -> Question:
    """A question between two texts."""
    contexts = tuple(f"{head}{c}{tail}" for c in q.contexts)
    return q._replace(prompt=f"{head}{q.prompt}{tail}", contexts=contexts)


def right(q: Question) -> str:
    """A question with its answer."""
    assert q.answer is not None
    return q.context(q.answer) + q.options[q.answer]


def answered(tokenizer: Any, asked: Sequence[Question]) -> list[Example]:
    """Each question with its right option, on whose tokens alone a loss is taken."""
    known = [(q.context(q.answer), q.options[q.answer]) for q in asked if q.answer is not None]
    if not known:
        raise ValueError("an attack learns from questions with known answers: there are none")
    pairs = encode_pairs(tokenizer, *map(list, zip(*known, strict=True)))
    return [Example([*head, *tail], len(head)) for head, tail in pairs]
