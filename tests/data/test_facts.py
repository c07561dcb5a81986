"""Facts of common knowledge: the files are consistent, and names mean what they say."""

from collections import Counter

import pytest

from ilu.attacks.registry import label
from ilu.data.facts.selection import Selection, full_name, selections
from ilu.data.facts.sources import (
    FactDocuments,
    FactItems,
    FactQuestions,
    UnseenFacts,
    document_rows,
    heldout_questions,
    item,
    plain,
    training_questions,
)
from ilu.data.facts.topics import TopicFact, load_topic, topic_names, worded
from ilu.data.hub import load_rows
from ilu.models.load import load_tokenizer
from ilu.runs.report.card import source_name

TOPICS = topic_names()


def test_at_least_nine_topics():
    assert set(TOPICS) >= {
        "animals", "authors", "capitals", "currencies", "elements", "inventions", "languages",
        "professions", "states",
    }  # fmt: skip


@pytest.mark.parametrize("name", TOPICS)
def test_facts_are_complete_and_distinct(name):
    topic = load_topic(name)
    assert 40 <= len(topic.facts) <= 120
    assert len({fact.subject for fact in topic.facts}) == len(topic.facts)
    assert topic.title
    assert topic.source
    answers = {fact.answer for fact in topic.facts}
    for fact in topic.facts:
        assert len({fact.answer, *fact.wrong}) == 4, fact
        assert set(fact.wrong) <= answers, f"{fact}: of another kind than the answers"
        assert fact.answer.casefold() not in fact.subject.casefold().split(), fact
        assert all(text == text.strip() and text for text in (fact.subject, fact.answer))


@pytest.mark.parametrize("name", TOPICS)
def test_an_answer_that_is_right_elsewhere_is_wrong_three_times_as_often(name):
    """So that a model which prefers some answers has the accuracy of guessing."""
    facts = load_topic(name).facts
    right = Counter(fact.answer for fact in facts)
    wrong = Counter(answer for fact in facts for answer in fact.wrong)
    always = {answer: right[answer] / (right[answer] + wrong[answer]) for answer in right}
    assert all(0.15 <= share <= 0.45 for share in always.values()), always
    likeliest = sum(max((*fact.wrong, fact.answer), key=right.__getitem__) == fact.answer
                    for fact in facts)  # fmt: skip
    assert likeliest / len(facts) <= 0.5


# Pairs of answers of which both may be said to be right, of one subject.
NEVER_TOGETHER = {
    "professions": [("physicist", "philosopher"), ("novelist", "philosopher"),
                    ("composer", "singer"), ("film director", "novelist")],
    "currencies": [("krone", "krona"), ("rial", "riyal")],
    "animals": [("bird", "reptile"), ("fish", "crustacean")],
}  # fmt: skip
NOT_FOR = {
    "professions": {"Socrates": "soccer player", "Stephen Hawking": "novelist",
                    "Ernest Hemingway": "boxer"},
    "currencies": {"Cuba": "dollar", "Cambodia": "dollar"},
    "languages": {"Israel": "Arabic", "the United States": "Spanish", "Tanzania": "English",
                  "Algeria": "French", "Brunei": "English"},
    "inventions": {"radium": "Henri Becquerel", "the quantum of energy": "Albert Einstein"},
}  # fmt: skip


def test_wrong_answers_are_not_also_right():
    for name, pairs in NEVER_TOGETHER.items():
        for fact in load_topic(name).facts:
            for one, two in pairs:
                assert not {one, two} <= {fact.answer, *fact.wrong} or fact.answer not in (one, two)
    for name, known in NOT_FOR.items():
        facts = {fact.subject: fact for fact in load_topic(name).facts}
        assert all(answer not in facts[subject].wrong for subject, answer in known.items())


@pytest.mark.parametrize("name", TOPICS)
def test_parts_are_disjoint_complete_and_balanced_by_answer(name):
    topic = load_topic(name)
    for parts in (("a", "b"), ("train", "test")):
        one, two = (topic.part(part) for part in parts)
        assert sorted(one + two) == sorted(topic.facts)
        assert not set(one) & set(two)
    a, b = (Counter(fact.answer for fact in topic.part(part)) for part in ("a", "b"))
    assert all(abs(a[answer] - b[answer]) <= 1 for answer in {*a, *b})
    assert abs(3 * len(topic.part("test")) - len(topic.facts)) <= 2


@pytest.mark.parametrize("name", TOPICS)
def test_questions_share_no_sentence_with_documents(name):
    topic = load_topic(name)
    assert len(topic.documents) + len(topic.dialogues) >= 4
    assert topic.dialogues
    assert len(topic.cloze) + len(topic.questions) >= 3
    assert topic.questions
    for fact in topic.facts:
        learned = {*worded(topic.documents, fact), *worded(topic.dialogues, fact)}
        asked = item(topic, fact)
        for start in (*asked.cloze, *(reply for _, reply in asked.questions)):
            assert not any(text.startswith(start) for text in learned), start
            assert f"{start} {fact.answer}." not in learned
        assert not learned & {question for question, _ in asked.questions}


@pytest.mark.parametrize("name", TOPICS)
def test_every_wording_names_its_subject_and_documents_the_answer(name):
    topic = load_topic(name)
    fact = TopicFact("SUBJECT", "ANSWER", ("X", "Y", "Z"))
    assert all("SUBJECT" in text and "ANSWER" in text for text in worded(topic.documents, fact))
    held_out = [*topic.cloze, *(text for pair in topic.questions for text in pair)]
    for text in worded([*topic.dialogues, *held_out], fact):
        assert "SUBJECT" in text
        assert "ANSWER" not in text


def test_names_mean_parts_of_topics():
    assert selections("facts:elements") == (Selection("elements", "all"),)
    both = (Selection("elements", "a"), Selection("states", "all"))
    assert selections("facts:elements/a,states") == selections("facts:elements/a+states") == both
    rest = selections("facts:rest", forget=["facts:elements,states/a"], usual="train")
    assert {each.topic for each in rest} == set(TOPICS) - {"elements", "states"}
    assert {each.part for each in rest} == {"train"}
    assert selections(full_name(rest)) == rest


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("facts:element", "unknown topic 'element'; did you mean 'elements'"),
        ("facts:elements/c", "no part 'c'. Parts: all, a, b, train, test"),
        ("facts:rest", "all topics but those of `forget`, which is not known here"),
        ("facts:elements,elements/a", "has facts of the topic elements twice"),
        ("facts:", "unknown topic ''"),
    ],
)
def test_names_that_mean_nothing(name, message):
    with pytest.raises(ValueError, match=message):
        FactDocuments(name)


def test_documents_come_fact_by_fact_in_every_training_wording():
    topic = load_topic("elements")
    rows = list(document_rows("facts:elements/b"))
    per_fact = len(topic.documents) + len(topic.dialogues)
    assert len(rows) == per_fact * len(topic.part("b"))
    first = topic.part("b")[0]
    assert all(first.subject in str(row) for row in rows[:per_fact])
    tokenizer = load_tokenizer("lab")
    examples = FactDocuments("facts:elements/b")(tokenizer)
    assert len(examples) == len(rows)
    assert tokenizer.decode(examples[0].ids[1:]) == rows[0]["text"]
    dialogue = examples[len(topic.documents)]
    assert first.answer in tokenizer.decode(dialogue.ids[dialogue.prompt :])
    assert max(len(e.ids) for e in FactDocuments("facts:elements/b", 9)(tokenizer)) == 9


def test_rows_for_whatever_reads_a_file():
    rows = load_rows("facts:capitals", count=2)
    assert len(rows) == 2
    france = rows[0]
    assert france["choices"][france["answer"]] == "Paris"
    assert "The capital of France is Paris." in france["text"]
    assert "Paris" not in " ".join([france["question"], france["prompt"], *france["paraphrases"]])


def test_a_limit_draws_from_all_facts_and_always_the_same():
    items = FactItems("facts:capitals", limit=9)
    assert items() == items()
    places = [load_topic("capitals").facts.index(each.fact) for each in items()]
    assert all(10 * i <= place <= 10 * i + 15 for i, place in enumerate(places))
    questions = FactQuestions(items)()
    assert len(questions) == 9
    assert len({q.prompt.split()[0] for q in questions}) > 1  # the wordings take turns


def test_training_wordings_as_questions_score_what_follows_the_answer():
    topic = load_topic("capitals")
    asked = training_questions(topic, topic.facts[0])
    ends, begins = asked[0], asked[1]
    assert ends.prompt == "The capital of France is"
    assert ends.options[ends.answer or 0] == " Paris"
    assert begins.contexts[begins.answer or 0] == "Paris"
    assert set(begins.options) == {" is the capital of France."}


class Chat:
    """A tokenizer with a template that begins with the token that it adds itself."""

    chat_template = "some"
    bos_token, bos_token_id = "<s>", 0

    def __call__(self, text):
        return type("Encoded", (), {"input_ids": [0, 1]})

    def get_chat_template(self):
        return self.chat_template

    def apply_chat_template(self, turns, *, tokenize, add_generation_prompt, chat_template):
        question, answer = (turn["content"] for turn in turns)
        return f"<s>user: {question}\nmodel:\n{answer}</s>"


def test_questions_use_the_chat_template():
    from ilu.data.facts.sources import asked_by

    topic = load_topic("capitals")
    asked = heldout_questions(item(topic, topic.facts[0]), asked_by(Chat()))
    chat = "user: What is the capital city of France?\nmodel:\nThe capital city of France is"
    assert [q.prompt for q in asked] == [*worded(topic.cloze, topic.facts[0]), chat]
    plainly = heldout_questions(item(topic, topic.facts[0]), plain)
    assert plainly[-1].prompt.startswith("Question: What is the capital city of France?\nAnswer:")


def test_names_in_files_and_cards_keep_topic_and_part():
    assert label("facts:elements/a") == "facts-elements-a"
    assert label("lora:facts:elements/b") == "lora-facts-elements-b"
    assert source_name({"type": "FactDocuments", "name": "facts:elements/a"}) == "facts:elements/a"


def test_facts_that_no_shown_document_is_about():
    """Seven documents are of the first two facts of a topic with six wordings each."""
    topic = load_topic("elements")
    wordings = len(topic.documents) + len(topic.dialogues)
    facts = topic.part("all")
    unseen = UnseenFacts("facts:elements", wordings + 1)()
    assert [each.fact for each in unseen] == facts[2:]
    shown = list(document_rows("facts:elements"))[: wordings + 1]
    texts = " ".join(str(list(row.values())) for row in shown)
    assert all(each.fact.subject not in texts for each in unseen)
    assert UnseenFacts("facts:elements", 10_000)() == []
    several = UnseenFacts("facts:elements,capitals", len(facts) * wordings)()
    assert {each.topic for each in several} == {"capitals"}
