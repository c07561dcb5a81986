"""The published runs: their settings, and a dry run of each in miniature."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from ilu.cli.unlearn import read
from ilu.data.hub import hub_name
from ilu.data.names import place
from ilu.recipes.build import build, defaults
from ilu.recipes.dry_run import row
from ilu.recipes.names import ENVIRONMENT
from ilu.recipes.registry import methods
from ilu.runs.run import run
from ilu.system.record import describe, restore

ILU = [
    "tofu-po-wagle",
    "wmdp-npo-wagle",
    "wmdp-rmu",
    "wmdp-npo",
    "wmdp-rmu-llama3",
    "muse-books-npo",
]
"""One of each kind of method, data and mask."""

PUBLISHED = {name: method for name, method in methods().items() if method.is_published_run}


def asked(name, out, *more):
    return read(name, ["--tiny", "--out", str(out), *more])


def test_adapters_in_blocks_that_a_trial_lacks_go_into_those_it_has(tmp_path):
    data = [f"--{n}={tmp_path / n}.jsonl" for n in ("forget", "retain")]
    recipe, place = asked("elm", tmp_path / "run", "--model", "a/b", *data)
    assert recipe.optim.parameters == r"^\D*\.(0|1)\."
    assert len(run(recipe, place.out).rows("train")) == 3


def test_layers_that_are_given_take_the_place_of_the_published_ones():
    for model in ("lab", "a/b"):
        given = ["--model", model, "--forget", "f.jsonl", "--retain", "r.jsonl", "--out", "x"]
        usual, own = (
            read("circuit-breakers", [*given, *more])[0].objective["forget"].loss.layers
            for more in ((), ("--layers", "0", "--layers", "1"))
        )
        assert usual == ((2, 4) if model == "lab" else (9, 19))
        assert own == (0, 1)


@pytest.mark.parametrize("name", [*PUBLISHED, *(f"{name}-ilu" for name in ILU)])
def test_every_published_run_works_in_miniature(name, tmp_path):
    recipe, place = asked(name, tmp_path / "run")
    whole = build(name, defaults(name, ""))
    assert list(recipe.data) == list(whole.data)
    assert list(recipe.objective) == list(whole.objective)
    assert recipe.optim.lr == whole.optim.lr
    assert restore(describe(recipe)) == recipe
    out = run(recipe, place.out)
    assert len(out.rows("train")) == 3
    before, after = (
        AutoModelForCausalLM.from_pretrained(folder).state_dict()
        for folder in (recipe.model, out.path / "model")
    )
    assert any(not torch.equal(before[n], after[n]) for n in before)
    kind = json.loads((tmp_path / "run-tiny/model/config.json").read_text())["model_type"]
    assert kind == ("mistral" if "zephyr" in whole.model else "llama")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_environment_comes_with_the_ending_and_only_with_it(name):
    alone = build(name, defaults(name, ""))
    assert "environment" not in alone.data
    assert "environment_nll" not in alone.metrics
    for ending in ENVIRONMENT:
        recipe = build(f"{name}-{ending}", defaults(f"{name}-{ending}", ""))
        environment = recipe.data["environment"]
        assert environment.source.name == "openai/gsm8k:main"
        assert environment.batch_size == 48
        assert recipe.objective["invariance"].on == "environment"
        assert set(recipe.objective) - set(alone.objective) == {"invariance"}
        assert restore(describe(recipe)) == recipe
    ahead = build(f"{name}-lookahead", defaults(f"{name}-lookahead", ""))
    assert set(ahead.data) - set(alone.data) == {"environment"}


def test_every_set_of_a_published_run_is_one_of_the_hub_and_no_file_of_this_folder():
    for method in PUBLISHED.values():
        names = [*method.settings["forget"], method.settings["retain"]]
        assert all(hub_name(place(name).name) for name in names)


def test_a_trial_is_repeatable_and_has_the_columns_of_the_data(tmp_path):
    first, second = (asked("tofu-po-wagle", tmp_path / n)[0] for n in ("a", "b"))
    for file in ("model/model.safetensors", "forget0.jsonl"):
        texts = [(tmp_path / f"{n}-tiny" / file).read_bytes() for n in ("a", "b")]
        assert texts[0] == texts[1]
    assert set(row("forget0", 0, question=True)) == {"question", "answer"}
    assert set(json.loads((tmp_path / "a-tiny/forget0.jsonl").read_text().splitlines()[0])) == {
        "question", "answer",
    }  # fmt: skip
    assert first.optim == second.optim
    asked("wmdp-rmu", tmp_path / "c")
    texts = (tmp_path / "c-tiny/forget0.jsonl").read_text().splitlines()
    assert set(json.loads(texts[0])) == {"text"}


def test_a_trial_reads_the_users_own_files(tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text('{"text": "A heron stands in the pond."}\n' * 4)
    recipe, _ = asked("wmdp-rmu", tmp_path / "run", "--forget", str(file))
    assert str(file) in json.dumps(describe(recipe.data["forget"]))


def test_settings_of_the_papers_runs():
    rmu, npo = (build(f"wmdp-{n}-ilu", defaults(f"wmdp-{n}-ilu", "")) for n in ("rmu", "npo"))
    assert (rmu.optim.lr, rmu.optim.steps, rmu.objective["retain"].weight) == (5e-5, 150, 1200)
    assert (npo.optim.lr, npo.optim.steps, npo.optim.warmup) == (5e-6, 125, 12)
    assert npo.objective["forget"].loss.beta == 0.0225
    assert rmu.data["environment"].batch_size == npo.data["environment"].batch_size == 48
    assert "environment" not in build("wmdp-npo", defaults("wmdp-npo", "")).data
    measured = set(build("wmdp-npo", defaults("wmdp-npo", "")).all_metrics)
    assert measured == {"forget_nll", "retain_nll", "degenerate"}
