"""Facts as rows with columns, for whatever reads a file: one row for each fact."""

from collections.abc import Iterator

from ilu.data.facts.selection import selections
from ilu.data.facts.topics import Topic, TopicFact, drawn, load_topic, worded
from ilu.data.readers import Row


def fact_rows(name: str) -> Iterator[Row]:
    """Each fact as a text, as a prompt and as a multiple-choice question with paraphrases."""
    for each in selections(name):
        for fact in each.facts():
            yield fact_row(load_topic(each.topic), fact)


def fact_row(topic: Topic, fact: TopicFact) -> Row:
    """The row of a fact; its choices are in an order that says nothing."""
    choices = shuffled(fact)
    question, *others = [question for question, _ in topic.questions]
    blanks = [f"{beginning} ..." for beginning in topic.cloze]
    return {
        "text": " ".join(worded(topic.documents, fact)),
        "prompt": worded(topic.cloze, fact)[0],
        "question": worded([question], fact)[0],
        "choices": choices,
        "answer": choices.index(fact.answer),
        "paraphrases": worded([*others, *blanks], fact),
    }


def shuffled(fact: TopicFact) -> list[str]:
    """The right and the wrong answers of a fact, in an order drawn from their text."""
    return sorted((fact.answer, *fact.wrong), key=lambda option: drawn(fact.subject + option))
