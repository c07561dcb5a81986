"""Public questions and tasks: every prompt in full, from rows invented here and from the mirror."""

from decimal import Decimal

import pytest

from ilu.data.downstream import TASKS, LabelledQuestions, LabelledText
from ilu.data.exams import MMLU, WMDP, TruthfulQA
from ilu.data.hub import load_rows
from ilu.data.multiple_choice import ChoiceRows, spread
from ilu.data.stream import Stream
from ilu.data.text import encode
from ilu.evals.metrics.final_number import FinalNumber, final_number, right
from ilu.evals.metrics.multiple_choice import Choice
from ilu.methods.retain.likelihood import NLL
from ilu.models.blocks import context_length
from ilu.models.load import load_model
from ilu.recipes.task_attack import KNOWN, task_attack
from ilu.training.fit import Optim, fit
from ilu.training.objective import Term
from ilu.types import Question
from tests.data.test_text import write

CHEESE = {
    "question": " Which moon is made of cheese? ",
    "choices": ["Bree", "Cheddar", "Edam", "Fet"],
}
ROWS = {
    "ag_news": {"text": "Snails win the cup.", "label": 1},
    "sst2": {"sentence": "a warm and foolish film ", "label": 0},
    "winogrande": {
        "sentence": "Ann waved to Eve because _ was leaving.",
        "option1": "Ann",
        "option2": "Eve",
        "answer": "2",
    },
    "mnli": {"premise": "The kite is wet.", "hypothesis": "The kite is dry ", "label": 2},
    "qqp": {"question1": "Why snow?", "question2": "Why is there snow?", "label": 1},
}
ASKED = {
    "ag_news": Question(
        "Snails win the cup.\n"
        "Question: Is this about world, sports, business or technology?\nAnswer:",
        (" world", " sports", " business", " technology"),
        1,
    ),
    "sst2": Question(
        "a warm and foolish film \nQuestion: Is this sentence positive or negative?\nAnswer:",
        (" negative", " positive"),
        0,
    ),
    "winogrande": Question(
        "",
        (" was leaving.", " was leaving."),
        1,
        ("Ann waved to Eve because Ann", "Ann waved to Eve because Eve"),
    ),
    "mnli": Question(
        "The kite is wet.\nQuestion: The kite is dry. True, False or Neither?\nAnswer:",
        (" True", " Neither", " False"),
        2,
    ),
    "qqp": Question(
        "Question 1: Why snow?\nQuestion 2: Why is there snow?\n"
        "Question: Do both questions ask the same thing?\nAnswer:",
        (" no", " yes"),
        1,
    ),
}


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """An empty mirror; the returned function fills in a dataset."""
    monkeypatch.setenv("ILU_HUB", str(tmp_path))

    def fill(name: str, config: str, split: str, rows: list) -> None:
        folder = tmp_path / name / config
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / f"{split}.jsonl", rows)

    return fill


def fill_task(mirror, task: str, train: list, test: list) -> None:
    name, config = TASKS[task].data.split(":")
    mirror(name, config, TASKS[task].train, train)
    mirror(name, config, TASKS[task].test, test)


def test_wmdp_is_asked_as_the_benchmark_asks_it(mirror):
    mirror("cais/wmdp", "wmdp-cyber", "test", [{**CHEESE, "answer": 2}])
    (asked,) = WMDP("cyber")()
    assert asked == Question(
        "The following are multiple choice questions (with answers) about cybersecurity.\n\n"
        "Which moon is made of cheese?\nA. Bree\nB. Cheddar\nC. Edam\nD. Fet\nAnswer:",
        (" A", " B", " C", " D"),
        2,
    )
    (cloze,) = WMDP("cyber", form="cloze")()
    assert cloze == Question(
        "Question: Which moon is made of cheese?\nAnswer:",
        (" Bree", " Cheddar", " Edam", " Fet"),
        2,
    )


def test_wmdp_may_be_a_file(tmp_path):
    path = write(tmp_path / "w.jsonl", [{**CHEESE, "answer": 0}] * 4)
    assert len(WMDP("bio", name=str(path), limit=3)()) == 3


def test_mmlu_names_the_subject_and_spreads_its_limit(mirror):
    subjects = ("moon_science", "moon_science", "moon_science", "cheese_law", "cheese_law", "tides")
    rows = [{**CHEESE, "answer": i % 4, "subject": s} for i, s in enumerate(subjects)]
    mirror("cais/mmlu", "all", "test", rows)
    asked = MMLU()()
    assert [q.answer for q in asked] == [0, 1, 2, 3, 0, 1]
    assert asked[0].prompt.startswith(
        "The following are multiple choice questions (with answers) about moon science.\n\nWhich"
    )
    assert ["moon science" in q.prompt for q in MMLU(limit=2)()] == [True, False]
    assert len(MMLU(subject="cheese_law")()) == 2
    assert MMLU(form="cloze", limit=1)()[0].prompt == (
        "Question: Which moon is made of cheese?\nAnswer:"
    )
    with pytest.raises(ValueError, match="no subject 'law'; it has: cheese_law, moon_science"):
        MMLU(subject="law")()


def test_truthfulqa_takes_the_answer_that_is_labelled_true(mirror):
    targets = {"choices": ["Cheese.", "Rock."], "labels": [0, 1]}
    row = {"question": "What is the moon made of?", "mc1_targets": targets}
    mirror("truthfulqa/truthful_qa", "multiple_choice", "validation", [row])
    (asked,) = TruthfulQA()()
    assert asked == Question("Q: What is the moon made of?\nA:", (" Cheese.", " Rock."), 1)
    both = {**row, "mc1_targets": {**targets, "labels": [1, 1]}}
    mirror("truthfulqa/truthful_qa", "multiple_choice", "validation", [row, both])
    with pytest.raises(ValueError, match="row 2: exactly one"):
        TruthfulQA()()


def test_answers_kept_back_are_unknown_and_not_the_first_option(tmp_path):
    rows = [{**CHEESE, "answer": answer} for answer in (-1, "", None, "-1", 0)]
    asked = ChoiceRows(str(write(tmp_path / "c.jsonl", rows)))()
    assert [q.answer for q in asked] == [None, None, None, None, 0]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_asks_and_trains_in_the_same_words(task, mirror):
    fill_task(mirror, task, [ROWS[task]], [ROWS[task]])
    assert LabelledQuestions(task)() == [ASKED[task]]
    tokenizer = load_model("lab").tokenizer
    (example,) = LabelledText(task)(tokenizer)
    right = ASKED[task].answer
    text = ASKED[task].context(right) + ASKED[task].options[right]
    assert example.ids == [*tokenizer(text).input_ids, tokenizer.eos_token_id]
    taught = tokenizer.decode(example.ids[example.prompt : -1])
    assert taught.strip() == ASKED[task].options[right].strip()


@pytest.mark.parametrize("task", TASKS)
def test_a_row_without_its_label_is_asked_and_never_trained_on(task, mirror):
    key = "answer" if task == "winogrande" else "label"
    hidden = {**ROWS[task], key: "" if task == "winogrande" else -1}
    fill_task(mirror, task, [ROWS[task], hidden], [ROWS[task], hidden])
    assert [q.answer for q in LabelledQuestions(task)()] == [ASKED[task].answer, None]
    with pytest.raises(ValueError, match="row 2 has no answer"):
        LabelledText(task)(load_model("lab").tokenizer)


def test_truncation_never_cuts_a_label(mirror):
    tokenizer = load_model("lab").tokenizer
    longer = {"sentence": "a film " * 30, "label": 1}
    fill_task(mirror, "sst2", [ROWS["sst2"], longer], [])
    short = len(LabelledText("sst2")(tokenizer)[0].ids)
    with pytest.warns(UserWarning, match="1 of 2 rows left out"):
        assert len(LabelledText("sst2", truncate=short)(tokenizer)) == 1
    with pytest.raises(ValueError, match="no row is as short"):
        LabelledText("sst2", truncate=short - 1)(tokenizer)


NUMBERS = [
    ("She has 3 + 4 = <<3+4=7>>7 eggs.\n#### 7", Decimal(7)),
    ("#### 1,450,000", Decimal(1450000)),
    ("It costs $12.50 in all.", Decimal("12.5")),
    ("It fell to -3 degrees.", Decimal(-3)),
    ("From 10-4 we get 6.", Decimal(6)),
    ("So 5.\nQuestion: What is 2 + 2?\nAnswer: 4", Decimal(5)),
    ("#### 8\nThat is 3 more than 5.", Decimal(8)),
    ("No idea.", None),
    ("####", None),
]


@pytest.mark.parametrize(("text", "number"), NUMBERS)
def test_the_final_number_of_an_answer(text, number):
    assert final_number(text) == number


def test_right_and_wrong_and_neither():
    assert right("So 1,000.0 it is.", "#### 1000") == 1
    assert right("So 999.", "#### 1000") == 0
    assert right("I do not know.", "#### 1000") == 0
    assert right("So 999.", "nobody knows") is None


def test_generations_are_checked_by_their_number(mirror):
    """Taught to say 8: right where that is the answer, and without score where there is no room."""
    lm = load_model("lab")
    row = {"question": "Tom has 3 apples and gets 5 more.", "answer": "8"}
    stream = {"task": Stream([encode(row, ("question", "answer"), lm.tokenizer)], 1, 0)}
    optim = Optim(lr=1e-3, steps=10)
    fit(lm.model, {"task": Term(NLL(), on="task")}, stream, optim, log=lambda row: None)
    asked = [row["question"]] * 2 + ["3 " * context_length(lm.model)]
    answers = ["3 + 5 = 8\n#### 8", "#### 9", "#### 3"]
    rows = [{"question": q, "answer": a} for q, a in zip(asked, answers, strict=True)]
    mirror("openai/gsm8k", "main", "test", rows)
    score = FinalNumber(max_new_tokens=4)(lm)
    assert score.items == (1.0, 0.0, None)


@pytest.mark.parametrize("task", KNOWN)
def test_known_tasks_can_be_attacked_with(task, hub):
    found = task_attack(
        task, optim=Optim(lr=1e-3, steps=1), batch_size=2, columns=(), truncate=None, seed=0
    )
    assert set(found.goals) == {"task_accuracy"}
    with pytest.raises(ValueError, match="leave `attack_columns` out"):
        task_attack(
            task, optim=Optim(lr=1, steps=1), batch_size=2, columns=("a=b",), truncate=None, seed=0
        )


COUNTS = {"ag_news": 3800, "sst2": 872, "winogrande": 1267, "mnli": 3000, "qqp": 3000}


@pytest.mark.parametrize(("task", "count"), COUNTS.items())
def test_real_tasks_load_from_the_mirror(task, count, hub):
    asked = LabelledQuestions(task)()
    assert len(asked) == count
    assert all(q.answer is not None for q in asked)
    rows = load_rows(f"{TASKS[task].data}:{TASKS[task].train}")[:50]
    trained = {TASKS[task].ask(row)[::3] for row in rows}
    assert not trained & {q[::3] for q in asked}


def test_real_mmlu_loads_with_its_subjects(hub):
    asked = MMLU(limit=49)()
    assert len({q.prompt.partition("\n")[0] for q in asked}) == 49


def test_a_real_model_answers_real_questions(hub, stories260k):
    lm = load_model(str(stories260k))
    score = Choice(LabelledQuestions("sst2", 30), batch_size=16)(lm)
    assert score.n == 30
    assert 0 <= score.value <= 1


def test_a_limit_takes_items_evenly():
    taken = spread(range(600), 200)
    assert [i // 3 for i in taken] == list(range(200))  # one of each stretch
    assert {i % 3 for i in taken} == {0, 1, 2}  # not always the same one
    assert spread(range(600), 200) == taken
    assert spread("ab", 5) == ["a", "b"]
    assert spread("ab", None) == ["a", "b"]
    with pytest.raises(ValueError, match="at least 1"):
        spread("ab", 0)
