"""Every metric of the package obeys the Metric contract. A new file is picked up by itself."""

import copy
import inspect
import json
import math
import random
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
import rich.style  # noqa: F401 - reads Python's random generator when it is imported
import torch

import ilu.evals.metrics
from ilu.cli.catalogue import arguments
from ilu.data.downstream import Problems
from ilu.data.facts.sources import FactItems
from ilu.data.text import Passages
from ilu.evals.metrics.facts import KnownItems
from ilu.evals.metrics.known_facts import KnownFacts
from ilu.evals.metrics.likelihood import HeldOutNLL
from ilu.evals.suite import named
from ilu.models.load import SecondModel, load_model
from ilu.system.discover import modules
from ilu.types import LM, Example, Question, Questions, Source
from tests.conftest import make_tiny

ELSEWHERE = {"Harness"}
"""It needs tasks of another package: tests/evals/test_lm_eval.py."""
PLACES, THINGS = ("town", "owner", "two"), ("road", "name", "sum")
TEXTS = [f"the {thing} of the {place} is" for thing in THINGS for place in PLACES]
MOST = len(TEXTS)
CLEAR = r"there are no (items|members)|is empty: it needs|leaves no fact"
"""What a metric says of data without rows."""


def metric_classes():
    for module in modules(ilu.evals.metrics):
        for _, cls in inspect.getmembers(module, inspect.isclass):
            if cls.__module__ == module.__name__ and arguments(cls) == ("lm",):
                yield cls


METRICS = [pytest.param(c, id=c.__name__) for c in metric_classes() if c.__name__ not in ELSEWHERE]


@dataclass(frozen=True)
class Texts:
    """Texts of several lengths, each with two counterparts."""

    count: int = MOST

    def __call__(self, tokenizer):
        ids = [tokenizer(text).input_ids for text in TEXTS]
        pairs = enumerate(zip(ids, ids[::-1], strict=True), start=2)
        alone = [Example([*head, *tail[:n]], len(head)) for n, (head, tail) in pairs]
        return [e._replace(others=(alone[0], alone[1])) for e in alone][: self.count]


@dataclass(frozen=True)
class Choices:
    """Questions with two options."""

    count: int = MOST

    def __call__(self):
        return [Question(text, (" town", " owner"), i % 2) for i, text in enumerate(TEXTS)][
            : self.count
        ]


def facts(count):
    """Facts of the package; without a count, facts of which the model knows none."""
    some = FactItems("facts:elements", limit=max(1, count))
    return some if count else KnownItems(some, KnownFacts((), "lab"))


@pytest.fixture(scope="module")
def tokenizer():
    return load_model("lab").tokenizer


@pytest.fixture
def lm(tokenizer):
    return LM(make_tiny(len(tokenizer), 256), copy.deepcopy(tokenizer))


@pytest.fixture(scope="module")
def original(tokenizer, tmp_path_factory):
    """A saved model of the same shape, with other weights."""
    folder, model = tmp_path_factory.mktemp("original"), make_tiny(len(tokenizer), 256)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return SecondModel(str(folder))


@pytest.fixture
def make(tmp_path, original):
    """Makes a metric on data of these tests, by the types of its settings."""

    def rows(name, count):
        path = tmp_path / f"{name}-{count}.jsonl"
        lines = [{"text": t, "question": t, "answer": f"so #### {i}"} for i, t in enumerate(TEXTS)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines[:count]))
        return str(path)

    def make(cls, count=MOST):
        by_type = {
            Source: Texts(count),
            Questions: Choices(count),
            Passages: Passages(rows("texts", count)),
            Problems: Problems(rows("problems", count), None),
            FactItems | KnownItems: facts(count // 3),
            SecondModel: original,
            str: "set",
        }
        given: dict[str, Any] = {f.name: by_type[f.type] for f in fields(cls) if f.type in by_type}
        if "max_new_tokens" in {f.name for f in fields(cls)}:
            given["max_new_tokens"] = 6
        return cls(**given)

    return make


def scores(metric, lm):
    return named("score", metric(lm))


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, score in expected.items():
        assert found[name].value == pytest.approx(score.value, rel=1e-3, abs=1e-4)
        assert [i is None for i in found[name].items] == [i is None for i in score.items]
        items = [[i for i in s.items if i is not None] for s in (found[name], score)]
        assert items[0] == pytest.approx(items[1], rel=1e-3, abs=1e-4)


def test_the_metrics_were_found():
    assert {p.id for p in METRICS} >= {"AnswerNLL", "Choice", "Fluency", "Answers", "Verbatim"}


@pytest.mark.parametrize("cls", METRICS)
def test_gives_finite_scores_of_items(cls, make, lm):
    for name, score in scores(make(cls), lm).items():
        assert math.isfinite(score.value), name
        assert score.n > 0
        assert score.unscored == sum(item is None for item in score.items)
        assert all(item is None or math.isfinite(item) for item in score.items)


@pytest.mark.parametrize("cls", METRICS)
def test_is_pure(cls, make, lm):
    """The same again, after other random numbers, with other batches and other padding."""
    metric = make(cls)
    first = scores(metric, lm)
    torch.manual_seed(7)
    assert scores(metric, lm) == first
    for size in (1, 4):
        assert_same(scores(replace(metric, batch_size=size), lm), first)
    for side in ("left", "right"):
        lm.tokenizer.padding_side = side
        assert_same(scores(metric, lm), first)
        assert lm.tokenizer.padding_side == side


@pytest.mark.parametrize("cls", METRICS)
def test_changes_neither_the_model_nor_a_random_state(cls, make, lm, monkeypatch):
    """The model may be in training mode. Python's generator is not even read."""
    lm.model.train()
    weights = {name: x.clone() for name, x in lm.model.state_dict().items()}
    metric, before = make(cls), random_states()
    # The checks of types in tests advance this state, so it cannot be compared.
    for name in random.__all__:
        if isinstance(getattr(getattr(random, name), "__self__", None), random.Random):
            monkeypatch.setattr(random, name, None)
    metric(lm)
    monkeypatch.undo()
    assert random_states() == before
    assert all(module.training for module in lm.model.modules())
    assert all(torch.equal(x, weights[name]) for name, x in lm.model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in lm.model.parameters())


def random_states():
    """The states of the global generators of torch and numpy."""
    kind, keys, *others = np.random.get_state()
    return torch.get_rng_state().tolist(), [kind, keys.tolist(), *others]


@pytest.mark.parametrize("cls", METRICS)
def test_without_any_row_there_is_one_clear_line(cls, make, lm):
    if cls is HeldOutNLL:  # a small source has no held-out part
        assert make(cls, 0)(lm) == {}
        return
    with pytest.raises(ValueError, match=CLEAR) as error:
        make(cls, 0)(lm)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("cls", METRICS)
def test_is_final_frozen_and_documented(cls):
    assert cls.__bases__ == (object,)
    assert cls.__dataclass_params__.frozen
    assert not cls.__doc__.startswith(f"{cls.__name__}(")  # what a dataclass writes by itself
