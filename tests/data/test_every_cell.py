"""Every value that is no text, in every column of every source of rows: refused with its row."""

import math

import pytest

from ilu.data import downstream, exams, hub, muse, tofu
from ilu.data.downstream import LabelledQuestions, LabelledText, Problems
from ilu.data.exams import MMLU, WMDP, TruthfulQA
from ilu.data.multiple_choice import ChoiceRows, Paraphrases
from ilu.data.muse import FewShot
from ilu.data.text import Dataset
from ilu.data.tofu import Perturbed
from tests.chats import byte_level

BAD = (None, math.nan, math.inf, True, b"zz", "zz\ud800", {"zz": 1}, [], [{"zz": 1}], [None])
ABSENT = object()
CHOICE = {"question": "a", "choices": ["b", "c"], "answer": 1}
SAFETY = {"is_response_0_safe": False, "is_response_1_safe": False}
TRAINED = {
    "ag_news": {"text": "a b"},
    "sst2": {"sentence": "a b"},
    "mnli": {"premise": "a", "hypothesis": "b"},
    "qqp": {"question1": "a", "question2": "b"},
    "winogrande": {"sentence": "a _ b", "option1": "c", "option2": "d"},
}
SOURCES = {
    **{task: (downstream, LabelledText(task), row) for task, row in TRAINED.items()},
    **{f"{t} test": (downstream, LabelledQuestions(t), row) for t, row in TRAINED.items()},
    "truthfulqa": (exams, TruthfulQA(), {"question": "a"}),
    "mmlu": (exams, MMLU(), {**CHOICE, "subject": "s"}),
    "wmdp": (exams, WMDP("bio"), CHOICE),
    "problems": (downstream, Problems(), {"question": "a", "answer": "#### 3"}),
    "tofu": (tofu, Perturbed("x"),
             {"question": "a", "answer": "b", "perturbed_answer": ["d", "e"]}),
    "muse": (muse, FewShot("x", "y"), {"question": "a", "answer": "b"}),
    "choice": (hub, ChoiceRows("d.jsonl"), CHOICE),
    "cloze": (hub, ChoiceRows("d.jsonl", form="cloze"), CHOICE),
    "paraphrases": (hub, Paraphrases(ChoiceRows("d.jsonl"), 0), {**CHOICE, "paraphrases": ["q"]}),
    "completions": (hub, Dataset("d.jsonl"), {"prompt": "a", "completion": "b"}),
    "questions": (hub, Dataset("d.jsonl"), {"question": "a", "answer": "b"}),
    "pku": (hub, Dataset("d.jsonl"),
            {"prompt": "a", "response_0": "b", "response_1": "c", **SAFETY}),
    "verbmem": (hub, Dataset("d.jsonl"), {"prompt": "a", "gt": "b"}),
    "rwku": (hub, Dataset("d.jsonl"), {"query": "a", "answer": "b", "subject": "c", "level": "1"}),
    "lume": (hub, Dataset("d.jsonl"), {"id": "1", "input": "a", "output": "b", "task": "t"}),
    "knowundo": (hub, Dataset("d.jsonl"), {"train": [{"text": "a", "labels": "b"}], "val": []}),
}  # fmt: skip
"""Name -> module that reads the rows, source, and the columns of text of a good row."""
MARKED = {"winogrande": {"answer": "1"}, "truthfulqa": {
    "mc1_targets": {"choices": ["a", "b"], "labels": [1, 0]}}}  # fmt: skip
"""The columns that are no text; usually ``label``."""
UNREAD = {("rwku", "subject"), ("rwku", "level"), ("lume", "id"), ("lume", "task"),
          ("knowundo", "val"), ("paraphrases", "question")}  # fmt: skip
EMPTY = {("completions", "prompt"), ("verbmem", "prompt"), ("lume", "input")}
"""Columns that may be null: an empty prompt."""
UNSCORED = {"mmlu", "wmdp", "choice", "cloze", "paraphrases"}
"""A question whose answer is null is not scored."""


def cases(name):
    for column, value in SOURCES[name][2].items():
        yield from ((column, bad) for bad in (*BAD, ABSENT) if not allowed(name, column, bad))
        if isinstance(value, list) and value and isinstance(value[0], str):
            yield from ((column, [bad, *value[1:]]) for bad in BAD)


def allowed(name, column, bad):
    """Whether a value means something, or is not read."""
    place = name, column
    gone = bad is None or (bad is ABSENT and name == "completions")
    return (
        place in UNREAD
        or (gone and place in EMPTY)
        or (bad is None and column == "answer" and name in UNSCORED)
        or (bad is True and column in SAFETY)
        or (bad == [] and place == ("knowundo", "train"))
    )


@pytest.fixture(scope="module")
def plain():
    return byte_level("<e>", eos="<e>")


def read(name, rows, tokenizer, monkeypatch):
    module, source, _ = SOURCES[name]
    if module is hub:
        monkeypatch.setattr(hub, "iter_rows", lambda path: iter(rows))
    else:
        monkeypatch.setattr(module, "load_rows", lambda *_: rows)
    return source(tokenizer) if "tokenizer" in source.__call__.__annotations__ else source()


def good(name):
    kind = name.removesuffix(" test")
    marks = MARKED.get(kind) or ({"label": 1} if kind in TRAINED else {})
    return {**SOURCES[name][2], **marks}


@pytest.mark.parametrize("name", SOURCES)
def test_a_good_row_is_read(name, plain, monkeypatch):
    assert len(read(name, [good(name)] * 3, plain, monkeypatch)) >= 3


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_no_text_is_refused_with_its_row(name, plain, monkeypatch):
    for column, bad in cases(name):
        row = {**good(name), column: bad}
        if bad is ABSENT:
            del row[column]
        try:
            with pytest.raises(ValueError, match=r"row 2\b") as error:
                read(name, [good(name), row], plain, monkeypatch)
        except BaseException as unexpected:
            raise AssertionError(f"{name}: {column} = {bad!r}") from unexpected
        assert len(str(error.value).splitlines()) == 1


CHOICES = [None, math.nan, True, ["a"], {"a": 1}, b"a", "a\ud800"]


@pytest.mark.parametrize("bad", CHOICES)
def test_choices_of_benchmarks_are_text(bad, plain, monkeypatch):
    row = {"question": "a", "mc1_targets": {"choices": [bad, "b"], "labels": [1, 0]}}
    with pytest.raises(ValueError, match=r"row 2: choice 1 (is|has)"):
        read("truthfulqa", [good("truthfulqa"), row], plain, monkeypatch)
    with pytest.raises(ValueError, match=r"row 2: choice 1 (is|has)"):
        read("choice", [CHOICE, {**CHOICE, "choices": [bad, "b"]}], plain, monkeypatch)


@pytest.mark.parametrize("bad", [[0, 3], "one", 0, "3", True, None, math.nan])
def test_labels_are_refused_with_their_row(bad, plain, monkeypatch):
    rows = [good("winogrande"), {**good("winogrande"), "answer": bad}]
    with pytest.raises(ValueError, match=r"row 2"):
        read("winogrande", rows, plain, monkeypatch)
    rows = [good("sst2"), {**good("sst2"), "label": bad if bad != 0 else 7}]
    with pytest.raises(ValueError, match=r"row 2"):
        read("sst2", rows, plain, monkeypatch)


def test_whether_a_text_is_safe_is_read_from_csv_as_well(plain, monkeypatch):
    """``"False"`` was true, so that no text was to be forgotten."""
    marked = [{**good("pku"), "is_response_0_safe": x} for x in ("True", "False", True, False)]
    assert len(read("pku", marked, plain, monkeypatch)) == 1 + 2 + 1 + 2


def test_the_row_is_that_of_the_data_also_under_a_limit(plain, monkeypatch):
    rows = [CHOICE] * 3 + [{**CHOICE, "question": None}] * 3
    source = ChoiceRows("d.jsonl", limit=2)
    monkeypatch.setattr(hub, "iter_rows", lambda path: iter(rows))
    with pytest.raises(ValueError, match=r"row [456]: question is null"):
        source()
