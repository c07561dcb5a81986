"""Relearning by disjoint halves: what is trained on shares nothing with what is asked."""

import json

import pytest

from ilu.data.facts.sources import document_rows
from ilu.evals.metrics.likelihood import AnswerNLL
from ilu.evals.suite import Suite
from ilu.lab.world import AGENTS, documents, questions
from ilu.models.load import load_model
from ilu.recipes.attacks import Attacker
from ilu.recipes.settings import AttackSettings
from ilu.recipes.suite import suite_of
from ilu.recipes.suite_request import SuiteRequest
from ilu.training.fit import Optim


@pytest.fixture(scope="module")
def lm():
    return load_model("lab")


def attacker(forget=None):
    return Attacker(
        optim=Optim(lr=1e-3, steps=2), settings=AttackSettings(forget=forget, batch_size=4)
    )


def test_the_labs_halves_share_no_agent_and_are_all_agents(lm):
    names = list(dict.fromkeys(q.prompt for q in questions(AGENTS)))
    found = {}
    for half in "ab":
        attack = attacker()(f"rtt:{half}")
        text = " ".join(lm.tokenizer.decode(e.ids) for e in attack.data(lm))
        asked = [q.prompt for q in attack.goals["others_accuracy"].questions()]
        agents = {name for name in documents(AGENTS) if name in text}
        assert not any(agent in prompt for agent in agents for prompt in asked)
        assert len(asked) == 240
        found[half] = agents, set(asked)
    assert found["a"][0].isdisjoint(found["b"][0])
    assert len(found["a"][0] | found["b"][0]) == AGENTS.count
    assert found["a"][1] | found["b"][1] == set(names)


def test_a_topics_halves_share_no_fact():
    attack = attacker("facts:elements")("rtt:b")
    assert attack.feed.source.name == "facts:elements/b"
    shown = " ".join(row.get("text", "") for row in document_rows("facts:elements/b"))
    items = attack.goals["others_accuracy"].questions.items()
    assert items
    assert not any(f" {item.fact.subject} " in f" {shown} " for item in items)
    with pytest.raises(ValueError, match="only a whole topic has two halves"):
        attacker("facts:elements/train")("rtt:a")


def test_a_files_halves_are_all_of_it(lm, tmp_path):
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps({"text": f"Fact {i} is so."}) + "\n" for i in range(40)))
    halves = [attacker(str(file))(f"rtt:{half}") for half in "ab"]
    trained = [{tuple(e.ids) for e in attack.data(lm)} for attack in halves]
    assert trained[0].isdisjoint(trained[1])
    assert len(trained[0] | trained[1]) == 40
    goal = halves[0].goals["others_nll"]
    assert isinstance(goal, AnswerNLL)
    assert {tuple(e.ids) for e in goal.source(lm.tokenizer)} == trained[1]


def write_splits(root):
    for i in range(5):
        for kind in ("documents", "questions"):
            (root / "rtt" / "years" / kind).mkdir(parents=True, exist_ok=True)
        year, place = 1900 + i, root / "rtt" / "years"
        row = {"question": f"When was {i}?", "choices": [str(year), "1", "2", "3"], "answer": 0}
        rows = [json.dumps(row), json.dumps({**row, "choices": ["1", str(year), "2", "3"],
                                             "answer": 1})]  # fmt: skip
        (place / "questions" / f"split_{i}.jsonl").write_text("\n".join(rows) + "\n")
        text = json.dumps({"text": f"Event {i} was in {year}."})
        (place / "documents" / f"split_{i}.jsonl").write_text(text + "\n")


def test_of_the_papers_data_all_splits_but_one_are_trained_on(lm, tmp_path, monkeypatch):
    write_splits(tmp_path)
    monkeypatch.setenv("ILU_HUB", str(tmp_path))
    attack = attacker("rtt:years")("rtt:3")
    texts = [lm.tokenizer.decode(e.ids) for e in attack.data(lm)]
    assert len(texts) == 4
    assert not any("1903" in text for text in texts)
    (first, _) = attack.goals["others_accuracy"].questions()
    assert "When was 3?" in first.prompt
    for bad in ("rtt:5", "rtt:a"):
        with pytest.raises(ValueError, match="has the splits 0 to 4"):
            attacker("rtt:years")(bad)
    with pytest.raises(ValueError, match="unknown RTT data set 'yeers'"):
        attacker("rtt:yeers")("rtt:0")


def test_the_suite_pools_all_splits(lm, tmp_path, monkeypatch):
    write_splits(tmp_path)
    monkeypatch.setenv("ILU_HUB", str(tmp_path))
    suite = suite_of("rtt", SuiteRequest(split="years", form="cloze"))
    assert isinstance(suite, Suite)
    found = suite(lm)
    splits = [found[f"rtt_years_{i}_acc"].value for i in range(5)]
    assert found["forget_accuracy"].n == 10
    assert found["forget_accuracy"].value == pytest.approx(sum(splits) / 5)
