"""Likelihood metrics make no logits of every position; their values are those of whole logits."""

import pytest
import torch

from ilu.data.stream import collate
from ilu.evals.metrics.likelihood import AnswerNLL
from ilu.evals.metrics.membership import gradient_norms
from ilu.evals.metrics.perplexity import count
from ilu.lab.sources import Documents
from ilu.models.forward import ModelForward
from ilu.models.load import load_model
from ilu.models.token_math import mean_nll, sequence_nll
from ilu.types import Outputs


@pytest.fixture(scope="module")
def lm():
    return load_model("lab")


@pytest.fixture
def examples(lm):
    return Documents("people")(lm.tokenizer)[:6]


@pytest.fixture
def no_logits(monkeypatch):
    """Whole logits are an error."""
    monkeypatch.setattr(Outputs, "logits", property(lambda self: pytest.fail("whole logits")))


def test_values_are_those_of_whole_logits(lm, examples):
    with torch.no_grad():
        out = ModelForward(lm.model)(collate(examples))
        means = mean_nll(out.logits, out.targets)
        sums = sequence_nll(out.logits, out.targets)
    found = AnswerNLL(lambda tokenizer: examples)(lm)
    assert found.items == pytest.approx(means.tolist(), rel=1e-5)
    assert [c.nll for c in count(lm, examples, 3)] == pytest.approx(sums.tolist(), rel=1e-5)


def test_a_limit_draws_examples_spread_over_all(lm):
    source = Documents("people")
    every = AnswerNLL(source)(lm).items
    drawn = AnswerNLL(source, limit=6)(lm).items
    places = [min(range(len(every)), key=lambda i, v=v: abs(every[i] - v)) for v in drawn]
    assert [place * 6 // len(every) for place in places] == [0, 1, 2, 3, 4, 5]


def test_no_logits_of_every_position_are_made(lm, examples, no_logits):
    assert AnswerNLL(Documents("people"), limit=6)(lm).n == 6
    assert len(count(lm, examples, 3)) == 6
    assert all(norm < 0 for norm in gradient_norms(lm, examples[:1]))
