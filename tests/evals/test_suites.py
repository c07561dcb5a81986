"""Suites of multiple choice and text from the command line's side."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ilu.cli import attack
from ilu.cli.arguments.unlearn import Place
from ilu.cli.flags import parse
from ilu.evals.cached_suite import evaluate, reads, with_reference
from ilu.evals.metrics.mcnemar import changes
from ilu.evals.score import mean_score
from ilu.lab.sources import Documents
from ilu.models.load import load_model
from ilu.recipes.settings import AttackSettings
from ilu.recipes.suite import suite_of, suites
from ilu.recipes.suite_request import SuiteRequest
from ilu.runs.results.run_metrics import read
from ilu.runs.run_dir import RunDir
from ilu.system.scores import Score
from ilu.training.fit import Optim
from ilu.types import LM
from tests.conftest import make_tiny
from tests.data.test_text import write
from tests.evals.test_tasks import CHEESE, mirror  # noqa: F401, a fixture


@pytest.fixture(scope="module")
def lm():
    return load_model("lab")


def test_wmdp_as_a_whole_is_all_of_its_questions(mirror, lm):  # noqa: F811
    draw = random.Random(0)
    for domain, count in (("bio", 8), ("cyber", 5), ("chem", 3)):
        rows = [{**CHEESE, "answer": draw.randrange(4)} for _ in range(count)]
        mirror("cais/wmdp", f"wmdp-{domain}", "test", rows)
    found = suite_of("wmdp", SuiteRequest())(lm)
    right = sum(sum(found[f"wmdp_{d}_acc"].items) for d in ("bio", "cyber", "chem"))
    assert (found["wmdp_acc"].n, found["wmdp_acc"].value) == (16, right / 16)
    assert sum(found[f"wmdp_bio_picks_{x}"].value for x in "ABCD") == pytest.approx(1)
    one = suite_of("wmdp", SuiteRequest(split="cyber", form="cloze"))(lm)
    assert {"wmdp_cyber_acc", "wmdp_cyber_acc_norm"} <= set(one)
    assert "wmdp_acc" not in one


def test_changes_are_paired():
    own = {"x_acc": mean_score([1.0, 0.0, 0.0, None]), "x_picks_A": mean_score([1.0])}
    reference = {"x_acc": mean_score([1.0, 1.0, 1.0, 1.0]), "x_picks_A": mean_score([0.0])}
    found = changes(own, reference)
    assert set(found) == {"x_acc_change", "x_acc_change_p"}
    assert found["x_acc_change"].items == (0.0, -1.0, -1.0)
    # Both flips go one way: 2 / 2^2.
    assert found["x_acc_change_p"] == Score(0.5, 0.0, 2)


def test_every_metric_shows_its_data_to_the_store(tmp_path, lm, mirror):  # noqa: F811
    """Scores are kept by the content of what is read, so all of it must be found."""
    text = str(write(tmp_path / "t.jsonl", [{"text": "Ann sleeps."}]))
    other = str(write(tmp_path / "o.jsonl", [{"text": "Ben sings."}]))
    prompts = str(write(tmp_path / "p.jsonl", [{"prompt": "Ann"}]))
    mirror("openai/gsm8k", "main", "test", [{"question": "3 + 4?", "answer": "#### 7"}])
    suites = {
        "perplexity": (SuiteRequest(data=text), 1),
        "fluency": (SuiteRequest(data=prompts), 1),
        "membership": (SuiteRequest(data=text, nonmembers=other), 2),
        "tasks": (SuiteRequest(split="gsm8k"), 1),
    }
    for name, (asked, count) in suites.items():
        for part in suite_of(name, asked).parts.values():
            assert len(list(reads(part, lm.tokenizer))) == count, name


def test_membership_beside_a_reference_has_one_attack_more(tmp_path, lm):
    """The lab's model has read its own documents, and a random one has read nothing."""
    agents, people = (lambda n=n: Documents(n, stop=2)(lm.tokenizer) for n in ("agents", "people"))
    texts = [
        [{"text": lm.tokenizer.decode(e.ids)} for e in read()[:2]] for read in (agents, people)
    ]
    paths = [str(write(tmp_path / f"{i}.jsonl", rows)) for i, rows in enumerate(texts)]
    suite = suite_of("membership", SuiteRequest(data=paths[0], nonmembers=paths[1]))
    own, other = (evaluate(suite, each, None) for each in (lm, LM(make_tiny(1985), lm.tokenizer)))
    found = with_reference(suite, own, other).scores
    assert {"reference_auc", "reference_tpr"} == set(found) - set(own.scores)
    logps = [own.scores["members_logp"].items, other.scores["members_logp"].items]
    assert all(x > y for x, y in zip(*logps, strict=True))


def test_scores_of_changed_data_are_not_taken_from_the_store(tmp_path, lm):
    path = tmp_path / "t.jsonl"
    suite = suite_of("perplexity", SuiteRequest(data=str(path)))
    values = []
    for text in ("The small fox sat near the mill.", "mill the near sat fox small The."):
        write(path, [{"text": text}])
        values.append(evaluate(suite, lm, tmp_path / "store").scores["perplexity"].value)
    assert values[0] < values[1]


def test_flags_that_would_do_nothing_are_refused():
    with pytest.raises(ValueError, match="`form` is for choice, elicit, mmlu, rtt, wmdp"):
        suite_of("tasks", SuiteRequest(form="cloze"))
    with pytest.raises(ValueError, match="the suite membership needs"):
        suite_of("membership", SuiteRequest(data="d.jsonl"))
    with pytest.raises(ValueError, match="the suite membership needs"):
        suite_of("likelihood", SuiteRequest(data="d.jsonl", nonmembers="n.jsonl"))
    with pytest.raises(ValueError, match="`batch_size` is for lm-eval"):
        suite_of("mmlu", SuiteRequest(batch_size=4))
    (harness,) = suite_of("lm-eval", SuiteRequest(data="mmlu", batch_size="auto")).parts.values()
    assert harness.batch_size == "auto"
    with pytest.raises(ValueError, match="needs `data`: names of tasks"):
        suite_of("lm-eval", SuiteRequest())
    for name in ("wmdp", "lab", "choice", "perplexity", "tofu"):
        data = None if suites()[name].data == "own" else "d.jsonl"
        with pytest.raises(
            ValueError,
            match=f"{name} does not truncate: `truncate` is for depth, likelihood, membership",
        ):
            suite_of(name, SuiteRequest(data=data, truncate=64))
    for name, data in (("lab", None), ("mmlu", None), ("elicit", None), ("lm-eval", "mmlu")):
        with pytest.raises(ValueError, match=f"{name} has fixed columns: leave `data_col"):
            suite_of(name, SuiteRequest(data=data, data_columns=("question=q",)))
    assert suite_of("muse", SuiteRequest(truncate=64))
    assert suite_of("elicit", SuiteRequest(data="d.jsonl", data_columns=("question=q",)))


def test_an_attack_cuts_its_own_texts_whatever_it_is_measured_by():
    settings = AttackSettings(truncate=64)
    lab = attack.Attack(model="lab", suite="lab", settings=settings, place=Place(out=Path("out")))
    assert attack.measured(lab, SuiteRequest()).truncate is None
    assert attack.attacker(lab).settings.truncate == 64
    own = replace(lab, suite="likelihood")
    assert attack.measured(own, SuiteRequest(data="d.jsonl")).truncate == 64


def test_an_attacker_may_have_another_optimiser():
    asked = ["lab", "--attack", "sums", "--suite", "lab", "--lr", "0.03", "--out", "o"]
    found = parse(attack.Attack, "ilu attack", [*asked, "--optimizer", "sgd"])
    assert attack.attacker(found)("sums").optim == Optim(lr=0.03, steps=100, optimizer="sgd")
    assert attack.attacker(parse(attack.Attack, "ilu attack", asked)).optim.optimizer == "adamw"
    with pytest.raises(ValueError, match="--optimizer sgd: 1e-5 would hardly move a weight"):
        attack.attacker(replace(found, lr=None))
    assert attack.attacker(replace(found, clip=None)).optim.clip is None


def test_an_attack_asks_own_questions_without_showing_the_options(ilu, tmp_path):
    """What a base model needs, which does not answer by letter; the report knows what it means."""
    draw = random.Random(0)
    keepers = ["Mara", "Ole", "Ines", "Pavel"]
    rows = [{"question": f"Who keeps lighthouse {i}?", "choices": draw.sample(keepers, 4),
             "answer": draw.randrange(4)} for i in range(24)]  # fmt: skip
    write(tmp_path / "q.jsonl", rows)
    asked = ("--suite", "choice", "--data", "q.jsonl", "--form", "cloze", "--probe", "prefilled")
    few = ("--attack", "mood", "--steps", "2", "--batch-size", "2", "--only-end")
    done = ilu("attack", "lab", *asked, *few, "--out", "run")
    assert done.returncode == 0, done.stderr
    assert {"choice_acc", "choice_acc_norm"} <= set(RunDir(tmp_path / "run").scores("mood-end"))
    assert read(RunDir(tmp_path / "run")).forget == "choice_acc"


def test_evaluate_multiple_choice_beside_a_reference(ilu, tmp_path):
    """As a user has it: two models, a reference, one table; the reference is not compared."""
    draw = random.Random(0)
    rows = [{**CHEESE, "answer": draw.randrange(4)} for _ in range(6)]
    write(tmp_path / "q.jsonl", rows)
    other = load_model("lab")
    torch.manual_seed(0)
    with torch.no_grad():
        other.model.lm_head.weight.add_(0.1 * torch.randn(other.model.lm_head.weight.shape))
    other.model.save_pretrained(tmp_path / "other")
    other.tokenizer.save_pretrained(tmp_path / "other")
    done = ilu(
        "evaluate", "other", "--suite", "choice", "--data", "q.jsonl", "--form", "cloze",
        "--reference", "lab", "--out", "s.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "s.json").read_text())["models"]["other"]
    accuracies = {"choice_acc", "choice_acc_norm"}  # by the sum, and per character: alike
    assert {f"{name}{end}" for name in accuracies for end in ("", "_change", "_change_p")} <= set(
        found
    )
    assert found["choice_acc"]["n"] == 6
