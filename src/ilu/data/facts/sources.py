"""Facts as training documents and as questions."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from ilu.data.chat import question_text
from ilu.data.facts.rows import shuffled
from ilu.data.facts.selection import selections
from ilu.data.facts.topics import Topic, TopicFact, load_topic, worded
from ilu.data.multiple_choice import spread
from ilu.data.readers import Row
from ilu.data.text import encode
from ilu.system.checks import check_limit
from ilu.types import Example, Question


@dataclass(frozen=True)
class FactDocuments:
    """Every fact in every training wording, the wordings of a fact one after the other.

    Statements take a loss on all tokens; of questions with answers, which use the chat template
    where there is one, the answer takes it. ``truncate`` cuts statements to that many tokens.
    """

    name: str
    truncate: int | None = None

    def __post_init__(self) -> None:
        selections(self.name)
        if self.truncate is not None and self.truncate < 1:
            raise ValueError(f"`truncate` {self.truncate}: it must leave at least 1 token")

    def __call__(self, tokenizer: Any) -> Sequence[Example]:
        whole = encoded(self.name, tokenizer)
        cut = [e.cut(self.truncate) for e in whole]
        kept = [e for e in cut if len(e.ids) > max(e.prompt, 1)]
        if not kept:
            raise ValueError(
                f"{self.name}: no token left to predict, `truncate` {self.truncate} cuts all"
            )
        return kept


_ENCODED: WeakKeyDictionary[Any, dict[tuple[str, str], list[Example]]] = WeakKeyDictionary()


def encoded(name: str, tokenizer: Any) -> list[Example]:
    """The documents of a name in tokens: training, the loss before and after, and attacks read the
    same ones, and a tokenizer encodes them once.
    """
    known = _ENCODED.setdefault(tokenizer, {})
    key = (name, str(tokenizer.chat_template))
    if key not in known:
        known[key] = [encode(row, tuple(row), tokenizer) for row in document_rows(name)]
    return known[key]


def document_rows(name: str) -> Iterator[Row]:
    """The training documents of facts, before they are tokens."""
    for each in selections(name):
        topic = load_topic(each.topic)
        for fact in each.facts():
            yield from ({"text": text} for text in worded(topic.documents, fact))
            for question in worded(topic.dialogues, fact):
                yield {"question": question, "answer": fact.answer}


class FactItem(NamedTuple):
    """A fact with its held-out wordings: beginnings, and questions with beginnings of replies."""

    topic: str
    fact: TopicFact
    cloze: tuple[str, ...]
    questions: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class FactItems:
    """The facts of a name, in their order; ``limit`` draws that many, spread over all."""

    name: str
    limit: int | None = None

    def __post_init__(self) -> None:
        selections(self.name)
        check_limit(self.limit)

    def __call__(self) -> list[FactItem]:
        every = [
            (load_topic(each.topic), f) for each in selections(self.name) for f in each.facts()
        ]
        return [item(topic, fact) for topic, fact in spread(every, self.limit)]


@dataclass(frozen=True)
class UnseenFacts:
    """The facts of a name that none of its first ``documents`` training documents is about."""

    name: str
    documents: int

    def __call__(self) -> list[FactItem]:
        left, found = self.documents, list[FactItem]()
        for each in selections(self.name):
            topic = load_topic(each.topic)
            wordings = len(topic.documents) + len(topic.dialogues)
            facts = each.facts()
            seen = min(len(facts), math.ceil(max(0, left) / wordings))
            found += [item(topic, fact) for fact in facts[seen:]]
            left -= len(facts) * wordings
        return found


def item(topic: Topic, fact: TopicFact) -> FactItem:
    """A fact with the wordings of its topic."""
    pairs = (worded(wordings, fact) for wordings in topic.questions)
    questions = tuple((question, reply) for question, reply in pairs)
    return FactItem(topic.name, fact, tuple(worded(topic.cloze, fact)), questions)


@dataclass(frozen=True)
class FactQuestions:
    """One multiple-choice question for each fact: the held-out wordings take turns."""

    items: FactItems | UnseenFacts

    def __call__(self) -> list[Question]:
        of_facts = [heldout_questions(each, plain_start) for each in self.items()]
        return [wordings[i % len(wordings)] for i, wordings in enumerate(of_facts)]


@dataclass(frozen=True)
class FactTrainingQuestions:
    """One multiple-choice question for each fact, in a training wording: they take turns."""

    items: FactItems

    def __call__(self) -> list[Question]:
        of_facts = [training_questions(load_topic(each.topic), each.fact) for each in self.items()]
        return [wordings[i % len(wordings)] for i, wordings in enumerate(of_facts)]


def heldout_questions(item: FactItem, ask: Callable[[str], str]) -> list[Question]:
    """The questions of a fact; ``ask`` returns the text of a question up to its reply."""
    replies = [ask(question) + reply for question, reply in item.questions]
    return [with_options(prompt, item.fact) for prompt in (*item.cloze, *replies)]


def plain(question: str) -> str:
    """A question without a chat template, as ``encode`` writes it."""
    return f"Question: {question}\nAnswer:"


def plain_start(question: str) -> str:
    """The same up to the reply."""
    return f"{plain(question)} "


def asked_by(tokenizer: Any) -> Callable[[str], str]:
    """The form of the prompts: in the chat template where the tokenizer has one."""
    return chat_prompt(tokenizer) if tokenizer.chat_template else plain_start


def chat_prompt(tokenizer: Any) -> Callable[[str], str]:
    """Returns the function that puts a question into the chat template.

    A beginning-of-text token that the tokenizer adds itself is not in the text.
    """
    begin = tokenizer.bos_token or ""
    adds = bool(begin) and list(tokenizer("a").input_ids)[:1] == [tokenizer.bos_token_id]

    def prompt(question: str) -> str:
        text = question_text(question, tokenizer)
        return text.removeprefix(begin) if adds else text

    return prompt


def training_questions(topic: Topic, fact: TopicFact) -> list[Question]:
    """The training wordings as questions: what follows the answer is scored after each option."""
    return [
        *(statement(wording, fact) for wording in topic.documents),
        *(with_options(plain(q), fact) for q in worded(topic.dialogues, fact)),
    ]


def statement(wording: str, fact: TopicFact) -> Question:
    """A statement as a question, whether the answer is in its middle or at its beginning.

    The options are scored at the end of the sentence where it is there, else by what follows them.
    """
    head, tail = wording.format(s=fact.subject, a="\0").split("\0")
    if not tail.strip(" ."):
        return with_options(head.rstrip(), fact)
    options = shuffled(fact)
    contexts = tuple(head + option for option in options)
    return Question(contexts[0], (tail,) * len(options), options.index(fact.answer), contexts)


def with_options(prompt: str, fact: TopicFact) -> Question:
    """A prompt with the answers of a fact as options."""
    options = shuffled(fact)
    return Question(prompt, tuple(f" {o}" for o in options), options.index(fact.answer))
