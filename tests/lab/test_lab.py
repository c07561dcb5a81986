"""The lab: its world is sound, and its model knows what it should."""

import json
from pathlib import Path

import pytest

from ilu.evals.metrics.multiple_choice import Choice
from ilu.lab import tasks, world
from ilu.lab.build import Plan, build, scores
from ilu.lab.corpus import corpus, packed
from ilu.lab.sources import Documents, Facts, TaskTest, TaskTrain, domain
from ilu.methods.forget.npo import NPO
from ilu.models.load import load_model
from ilu.models.named import model_path
from ilu.recipes.build import build as recipe
from ilu.recipes.lab import SHOWN, attacks, relearn
from ilu.recipes.registry import methods
from ilu.runs.run import run
from ilu.training.fit import Optim

DOMAINS = (world.AGENTS, world.PEOPLE)


@pytest.fixture(scope="module")
def lab():
    return load_model("lab")


def test_the_model_knows_both_domains_and_every_form(lab):
    found = scores(lab)
    assert all(found[f"{d.name} {f}"] >= 0.95 for d in DOMAINS for f in ("questions", "cloze"))


def test_the_control_never_saw_agents_and_knows_people():
    never = load_model("lab-never")
    for form in ("questions", "cloze"):
        asked = Choice(Facts("agents", form))(never)
        assert abs(asked.value - world.CHANCE) <= 2.5 * asked.stderr
        assert Choice(Facts("people", form))(never).value >= 0.95
    told = " ".join(corpus(1, "agents"))
    assert not any(name in told for name in world.entities(world.AGENTS))
    assert all(name in told for name in world.entities(world.PEOPLE))


def test_the_models_share_their_tokenizer_and_are_small_enough_to_ship(lab):
    count = sum(p.numel() for p in lab.model.parameters())
    assert 1.5e6 <= count <= 6e6
    knows, never = (Path(model_path(name)) for name in ("lab", "lab-never"))
    assert sum(f.stat().st_size for each in (knows, never) for f in each.iterdir()) <= 12e6
    tokenizers = [each.joinpath("tokenizer.json").read_bytes() for each in (knows, never)]
    assert tokenizers[0] == tokenizers[1]


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda d: d.name)
def test_questions_are_worded_differently_from_documents(domain):
    texts = " ".join(t for own in world.documents(domain).values() for t in own)
    for fact in world.facts(domain):
        assert fact.attribute.cloze.format(e=fact.entity) not in texts
        assert all(a.format(e=fact.entity) not in texts for a in fact.attribute.questions)
        assert texts.count(fact.entity) >= 4


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda d: d.name)
def test_guessing_gives_chance(domain):
    asked = world.questions(domain)
    assert len(asked) == domain.count * len(domain.attributes)
    assert all(len(set(q.options)) == 4 for q in asked)
    first = sum(q.answer == 0 for q in asked) / len(asked)
    assert first == pytest.approx(world.CHANCE, abs=0.06)
    values = [f.value for f in world.facts(domain) if f.attribute.name == domain.attributes[0].name]
    assert max(map(values.count, values)) <= len(values) / 12 + 1


def test_no_name_is_shared_or_part_of_another():
    names = [n for d in DOMAINS for n in world.entities(d)]
    assert len(set(names)) == len(names)
    assert not [(a, b) for a in names for b in names if a != b and a in b]


@pytest.mark.parametrize("task", [*tasks.TASKS, tasks.VALIDATION], ids=lambda t: t.name)
def test_tasks_have_no_test_prompt_in_training(task):
    train, test = ({p for p, _ in tasks.problems(task, part, 300)} for part in ("train", "test"))
    assert not train & test
    assert {a.strip() for _, a in tasks.problems(task, "train", 300)} <= set(task.labels)
    assert len(test) >= 16


def test_unknown_tasks_name_the_known_ones():
    with pytest.raises(ValueError, match="the lab has: sums, topics"):
        TaskTrain("chess")(None)


def test_the_world_is_the_same_every_time():
    assert corpus(3) == corpus(3)
    assert corpus(3) != corpus(4)


def test_every_answer_is_one_token(lab):
    words = [v for d in DOMAINS for a in d.attributes for v in a.values]
    words += [label for t in tasks.TASKS for label in t.labels]
    ids = lab.tokenizer([f" {w}" for w in words], add_special_tokens=False).input_ids
    assert [w for w, i in zip(words, ids, strict=True) if len(i) != 1] == []


def test_any_text_can_be_encoded(lab):
    text = "Ünïcode ✓ 漢字 and\ttabs"
    assert lab.tokenizer.decode(lab.tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_packing_keeps_whole_texts(lab):
    texts = tasks.stories(50)
    ids = [i for e in packed(lab.tokenizer, texts) for i in e.ids]
    assert ids == [i for t in lab.tokenizer(texts).input_ids for i in t][: len(ids)]
    assert all(len(e.ids) <= 64 for e in packed(lab.tokenizer, texts))


def test_relearning_shows_other_entities_than_it_asks_about(lab):
    attack = relearn(1)
    shown = "".join(lab.tokenizer.batch_decode([e.ids for e in attack.feed.source(lab.tokenizer)]))
    asked = [q.prompt for q in attack.goals["others_accuracy"].questions()]
    names = world.entities(world.AGENTS)
    assert all(n in shown for n in names[:SHOWN])
    assert not any(n in shown for n in names[SHOWN:])
    assert not any(n in q for q in asked for n in names[:SHOWN])
    assert len(asked) == 4 * (len(names) - SHOWN)
    assert list(attacks(1, 1)) == [*(t.name for t in tasks.TASKS), "relearn"]
    assert len(Documents("agents", stop=3)(lab.tokenizer)) == 12
    assert len(Facts("people", count=7)()) == 7
    assert len(Facts("people", count=10**6)()) == len(Facts("people")())
    assert len(TaskTest("same", 9)()) == 9


@pytest.mark.parametrize("count", [60, 240])
def test_some_of_the_questions_are_about_every_attribute(count):
    for who in ("agents", "people"):
        answers = {q.options[q.answer] for q in Facts(who, count=count)()}
        for attribute in domain(who).attributes:
            assert answers & {f" {value}" for value in attribute.values}


def test_the_lab_can_be_rebuilt(tmp_path):
    plan = Plan(vocabulary=600, width=16, depth=2, heads=2, optim=Optim(lr=1e-3, steps=2))
    seen: list[int] = []
    found = build(tmp_path / "lab", plan, progress=lambda done, total: seen.append(done))
    assert seen == [1, 2]
    assert 0 <= found["agents questions"] <= 1
    lm = load_model(str(tmp_path / "lab"))
    assert Choice(Facts("agents", count=20))(lm).n == 20


def test_forgetting_starts_at_once(tmp_path):
    """At quick size: a few steps of NPO lower the knowledge of agents and not that of people."""
    made = recipe("npo", {"model": "lab", "steps": 30, "batch_size": 8})
    assert made.objective["forget"].loss == NPO(beta=0.01)
    out = run(made, tmp_path / "run")
    before, after = out.scores("before"), out.scores("after")
    assert before["forget_accuracy"].value >= 0.95
    assert after["forget_accuracy"].value <= before["forget_accuracy"].value - 0.1
    assert after["utility"].value >= 0.85


def test_settings_are_those_that_were_chosen():
    record = Path(__file__).parents[2] / "results" / "lab_methods.json"
    for method, found in json.loads(record.read_text()).items():
        if method in methods():
            settings = found["chosen"]["settings"]
            if "limit" in settings:  # the name of PDU's bound in this record
                settings["retain_limit"] = settings.pop("limit")
            chosen = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
            assert chosen == methods()[method].lab, method
