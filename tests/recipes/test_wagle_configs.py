"""Configurations in the schema of the original code become commands that parse."""

import json
import re
from pathlib import Path

import pytest

from ilu.cli.import_config import main, multiline
from ilu.cli.unlearn import read
from ilu.recipes.build import build, defaults
from ilu.recipes.wagle_configs import METHODS, NOTHING, translate

MIGRATION = Path(__file__).parents[2] / "docs" / "migration.md"


def config(method="NPO+FT", **unlearn):
    return {
        "overall": {
            "model_name": "locuslab/tofu_ft_llama2-7b",
            "logger": "json",
            "cache_dir": "./.cache",
            "seed": 1,
        },
        "unlearn": {
            "unlearn_method": method,
            "num_epochs": 5,
            "lr": 1e-5,
            "weight_decay": 0.1,
            "gradient_accumulation_steps": 4,
            "mask_path": "./mask/tofu_0.95.pt",
            "task_name": "tofu",
            "sophia": False,
            "p": 0.95,
            "q": 0.95,
            "resume_path": None,
            "max_steps": 400,
            "use_lora": False,
            "mu": 1e-6,
            method: {"gamma": 1.0},
            **unlearn,
        },
        "dataset": {
            "forget_dataset_name": "Tofu_forget10",
            "retain_dataset_name": "Tofu_retain90",
            "dataset_seed": 1000,
            "forget_ratio": 400,
            "self_retain": False,
            "batch_size": 1,
        },
        "logger": {"json": {"root": "files/results/unlearn_tofu/NPO+WAGLE"}},
    }


def recipe(found):
    return read(found.command[2], found.command[3:])[0]


@pytest.mark.parametrize(
    ("method", "lr", "fraction", "steps", "name"),
    [
        ("GA+FT", 7e-6, "0.95", -1, "tofu-graddiff-wagle"),
        ("NPO+FT", 1e-5, "0.95", 400, "tofu-npo-wagle"),
        ("CL+FT", 2e-5, "0.8", -1, "tofu-po-wagle"),
    ],
)
def test_the_originals_runs_on_tofu_are_the_published_recipes(method, lr, fraction, steps, name):
    given = config(method, lr=lr, mask_path=f"./mask/tofu_{fraction}.pt", max_steps=steps)
    found = translate(given)
    made, published = recipe(found), build(name, defaults(name, ""))
    assert found.unknown == []
    assert made.objective == published.objective
    assert made.mask == published.mask
    assert made.model == published.model
    changed = {k for k, v in vars(made.optim).items() if v != getattr(published.optim, k)}
    assert changed == {"micro_batch"}
    assert {n: f.batch_size for n, f in made.data.items()} == {"forget": 4, "retain": 4}


@pytest.mark.parametrize(("folder", "told"), [("FFN", True), ("wanda", False)])
def test_a_mask_whose_score_is_unknown_is_told_of(folder, told):
    found = translate(config("GA+FT", mask_path=f"./mask/{folder}/with_0.9.pt"))
    assert any(f"folder '{folder}' names no score" in note for note in found.notes) == told
    assert f"{'wagle' if told else 'wanda'}:0.9" in found.command


def test_wmdp_has_two_topics():
    given = config("GA+FT", mask_path="./mask/wmdp_0.4.pt", max_steps=500, weight_decay=0)
    given["dataset"] |= {"forget_dataset_name": "WMDPALL", "retain_dataset_name": "WMDPALL"}
    given["dataset"]["forget_ratio"] = 1.0
    found = translate(given)
    made = recipe(found)
    assert list(made.data) == ["forget", "forget2", "retain"]
    assert made.data["forget"].source.truncate == 1024
    assert any("two sets" in note for note in found.notes)
    assert (made.optim.steps, made.optim.warmup, made.optim.schedule) == (500, 50, "linear")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_becomes_a_command_that_parses(method):
    assert recipe(translate(config(method, mask_path=None))).name == METHODS[method]


def test_weights_of_mixed_terms():
    assert "retain" not in recipe(translate(config("GA+KL", mask_path=None))).objective
    quarter = config("GA+KL", mask_path=None, **{"GA+KL": {"gamma": 0.25}})
    assert recipe(translate(quarter)).objective["retain"].weight == 3.0
    half = config("KL", mask_path=None, KL={"gamma": 0.5})
    assert recipe(translate(half)).objective["retain"].weight == 2.0
    none = config("GA+FT", mask_path=None, **{"GA+FT": {}})
    assert "retain" not in recipe(translate(none)).objective


def test_optimiser_adapters_and_epochs():
    given = config(sophia=True, mask_path=None, max_steps=-1)
    assert recipe(translate(given)).optim.optimizer == "sophia"
    assert recipe(translate(given)).optim.steps == 5 * 400 // 4
    made = recipe(translate(config(use_lora=True, mask_path=None)))
    assert (made.lora.rank, made.lora.alpha, made.optim.parameters) == (8, 32.0, "(q|v)_proj")
    masked = translate(config(use_lora=True))  # which has a mask, and adapters can have none
    assert recipe(masked).mask is None
    assert any("mask_path: left out" in note for note in masked.notes)


def test_everything_that_is_not_translated_is_said():
    given = config("XYZ")
    given["overall"]["colour"] = "blue"
    given["dataset"] |= {"retain_dataset_name": "TruthfulQA", "self_retain": True}
    given["dataset"]["forget_ratio"] = 0.5
    found = translate(given)
    assert found.command[2] == "RECIPE"
    assert found.unknown == ["overall.colour"]
    said = " ".join(found.notes)
    for word in ("'XYZ'", "'TruthfulQA'", "self_retain", "forget_ratio", "dataset_seed", "mu"):
        assert word in said
    assert translate({}).command[:5] == ["ilu", "unlearn", "RECIPE", "--model", "MODEL"]


def test_the_command_prints_a_command_and_refuses_only_what_it_cannot_read(tmp_path, capsys):
    file = tmp_path / "c.json"
    file.write_text(json.dumps(config() | {"extra": 1}))
    main([str(file)])
    out, err = capsys.readouterr()
    assert out.startswith("ilu unlearn token-npo \\\n    --model locuslab/tofu_ft_llama2-7b \\\n")
    assert "unknown: extra" in err
    assert "note: unlearn.mask_path" in err
    for text, message in (("{", "is not JSON"), ("[]", "contains a list")):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            main([str(file)])
    assert multiline(["ilu", "x", "--a", "b c"]) == "ilu x \\\n    --a 'b c'"


def test_the_migration_page_has_every_option():
    page = MIGRATION.read_text(encoding="utf-8")
    options = [*NOTHING, *(f"unlearn.{m}.gamma" for m in METHODS if "+" in m), "unlearn.sophia"]
    options += re.findall(r'"((?:overall|unlearn|dataset|logger)\.[a-z_.]+)"', Path(
        translate.__code__.co_filename).read_text())  # fmt: skip
    assert [o for o in options if f"`{o}`" not in page] == []
