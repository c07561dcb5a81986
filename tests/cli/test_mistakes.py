"""What a user can get wrong is found before a model is loaded."""

import errno
import os
import tempfile
import warnings

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig

from ilu.cli import sweep_flags
from ilu.cli.sweep import check_runs
from ilu.cli.sweep_flags import replaced
from ilu.data.text import Dataset
from ilu.methods.masks.storage import save_mask
from ilu.recipes.build import warn_of_environment
from ilu.recipes.registry import endings

FILES = {
    "good.jsonl": '{"text": "a"}\n',
    "body.jsonl": '{"body": "x"}\n',
    "broken.jsonl": "{text\n",
    "list.jsonl": "[1]\n",
    "blank.jsonl": '{"text": ""}\n{"text": "a"}\n',
    "empty.jsonl": "",
    "number.jsonl": '{"text": 5}\n',
    "choice.jsonl": '{"question": "q", "choices": ["a"], "answer": 0}\n',
}
UNLEARN = "unlearn npo --model lab --out run"
ATTACK = "attack lab --out run"


@pytest.fixture
def no_model(monkeypatch):
    def load(*args, **named):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", load)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (f"{UNLEARN} --forget no.jsonl", "no.jsonl does not exist"),
        (f"{UNLEARN} --retain no.csv", "no.csv does not exist"),
        ("unlearn npo-ilu --model lab --out run --environment no.parquet", "does not exist"),
        ("unlearn dpo --model lab --out run --forget no.jsonl", "no.jsonl does not exist"),
        (f"{UNLEARN} --forget body.jsonl", "columns body; wanted"),
        (f"{UNLEARN} --forget good.jsonl --forget-columns text=story", "no column 'story'"),
        (f"{UNLEARN} --forget broken.jsonl", "broken.jsonl, line 1 is not JSON"),
        (f"{UNLEARN} --forget list.jsonl", "line 1 is a list"),
        (f"{UNLEARN} --forget blank.jsonl", "1 rows have no text, the first is row 1"),
        (f"{UNLEARN} --forget empty.jsonl", "is empty"),
        (f"{UNLEARN} --forget number.jsonl", "row 1: text is a number (5), and must be text"),
        (f"{ATTACK} --attack number.jsonl", "row 1: text is a number (5), and must be text"),
        ("evaluate lab --data number.jsonl", "row 1: text is a number (5), and must be text"),
        (f"{UNLEARN} --device cuda", "this machine has: cpu"),
        (f"{UNLEARN} --parameters [", "--parameters '[' is no regular expression"),
        (f"{UNLEARN} --perturbed (", "--perturbed '(' is no regular expression"),
        ("unlearn rmu --model lab --out run --layer 6", "layer 6 is out of range"),
        ("unlearn npo-lat --model lab --out run --attack-layer 9", "layer 9 is out of range"),
        ("unlearn circuit-breakers --model lab --out run --layers 1 --layers 7", "layer 7 is out"),
        (f"{UNLEARN} --forget good.jsonl", "--forget: 1 example cannot fill a batch of 16: set"),
        ("unlearn npo-ilu --model lab --out run --environment-batch-size 100000",
         "a batch of 100000: set --environment-batch-size to at most 600"),
        (f"{UNLEARN} --batch-size 0", "--batch-size 0: it must be at least 1"),
        (f"{UNLEARN} --environment-batch-size 0", "--environment-batch-size 0: it must be"),
        (f"{UNLEARN} --truncate 0", "--truncate 0: it must be at least 1"),
        (f"{UNLEARN} --steps -1", "--steps must be at least 0"),
        (f"{UNLEARN} --steps 1 --steps 2", "--steps is given twice"),
        (f"{UNLEARN} --lr=1 --lr 2", "--lr is given twice"),
        ("unlearn npo --model lab --out good.jsonl", "good.jsonl exists already"),
        ("unlearn npo --model lab --out good.jsonl/run", "good.jsonl is a file"),
        ("unlearn npo --model nowhere --out run --forget good.jsonl --retain good.jsonl",
         "'nowhere' is no folder"),
        (f"{ATTACK} --attack no.jsonl", "no.jsonl does not exist"),
        (f"{ATTACK} --attack lora:no.jsonl", "no.jsonl does not exist"),
        (f"{ATTACK} --attack in-turn:mood+no.jsonl", "no.jsonl does not exist"),
        (f"{ATTACK} --attack relearn:1 --forget no.jsonl", "no.jsonl does not exist"),
        (f"{ATTACK} --attack body.jsonl", "columns body; wanted"),
        (f"{ATTACK} --attack mood --suite likelihood --data no.jsonl", "no.jsonl does not exist"),
        (f"{ATTACK} --attack quantize:4", "unknown task 'quantize:4'; did you mean 'quantise:4'?"),
        (f"{ATTACK} --attack quantize", "did you mean 'quantise:4'?"),
        (f"{ATTACK} --attack lorra:mood", "did you mean 'lora:mood'?"),
        (f"{ATTACK} --attack lora:modo", "did you mean 'mood'?"),
        (f"{ATTACK} --attack x", "attacks by name: ablate, "),
        (f"{ATTACK} --attack mood --device gpu", "there is no device 'gpu'; this machine has: cpu"),
        (f"{UNLEARN} --device cpu:x", "there is no device 'cpu:x'; this machine has: cpu"),
        (f"{ATTACK} --attack mood --batch-size 0", "--batch-size 0: it must be at least 1"),
        (f"{ATTACK} --attack mood --device cuda", "this machine has: cpu"),
        (f"{ATTACK} --attack mood --steps -1", "--steps must be at least 0"),
        ("evaluate lab --data no.jsonl", "no.jsonl does not exist"),
        ("evaluate lab --data body.jsonl", "columns body; wanted"),
        ("evaluate lab --suite verbatim --data blank.jsonl", "rows have no text"),
        ("evaluate lab --suite perplexity --data body.jsonl", "columns body; wanted: text"),
        ("evaluate lab --suite fluency --data good.jsonl", "wanted: prompt"),
        ("evaluate lab --suite choice --data good.jsonl", "wanted: question"),
        ("evaluate lab --suite choice --data choice.jsonl", "row 1: choices must be a list"),
        ("evaluate lab --suite elicit --data no.jsonl", "no.jsonl does not exist"),
        ("evaluate lab --suite membership --data good.jsonl --nonmembers no.jsonl", "no.jsonl"),
        ("evaluate lab --suite lab --device cuda", "this machine has: cpu"),
        ("evaluate lab --suite lab --limit 1 --limit 2", "--limit is given twice"),
        ("sweep npo --model lab --out s --grid foo=1", "'foo' is no setting of npo"),
        ("sweep npo --model lab --out s --grid seed=0:2 stesp=1", "'stesp' is no setting of npo;"),
        ("sweep npo --model lab --out s --grid recipe=npo,nop", "did you mean 'npo'?"),
        ("sweep npo --model lab --out s --search foo=0:1", "'foo' is no setting of npo"),
        ("sweep npo --model lab --out s --grid seed=0:3 --forget no.jsonl", "no.jsonl does not"),
        ("sweep npo --model lab --out s --grid seed=0:3 --device cuda", "this machine has: cpu"),
        (f"{UNLEARN} --mask no.safetensors", "no.safetensors does not exist"),
        (f"{UNLEARN} --mask good.jsonl", "good.jsonl is not a safetensors file"),
        (f"{UNLEARN} --forget None", "--forget has no value"),
        (f"{UNLEARN} --held-out 2", "error: --held-out 2: it must be at least 0"),
        (f"{UNLEARN} --micro-batch 0", "--micro-batch 0: it must be at least 1, or left out"),
        (f"{UNLEARN} --betas 1 2", "error: --betas 1.0 2.0: both must be"),
        (f"{UNLEARN} --betas 1", "--betas needs a number and a number or None"),
        (f"{UNLEARN} --steps abc", "error: --steps abc: give a whole number"),
        (f"{UNLEARN} --steps", "error: --steps needs a whole number"),
        (f"{UNLEARN} --keep first", "error: --keep first: give last, best or a number"),
        (f"{UNLEARN} --micro-batch x", "--micro-batch x: give a whole number or None"),
        (f"{UNLEARN} --precision half", "--precision half: give float32 or bfloat16"),
        (f"{UNLEARN} --pack=yes", "--pack has no value: give --pack or --no-pack"),
        (f"{UNLEARN} --pack yes", "does not take the word 'yes': --pack has no value"),
        (f"{UNLEARN} --forget good.jsonl body.jsonl", "for several values repeat --forget"),
        ("unlearn npo-sam --model lab --out run --rho -1", "error: --rho -1.0: the radius"),
        ("unlearn npo --model lab", "error: ilu unlearn npo needs --out PATH: folder of the run"),
        ("unlearn npo", "error: ilu unlearn npo needs --model TEXT and --out PATH; see ilu"),
        ("sweep npo --model lab", "error: ilu sweep npo needs --out PATH: folder of the sweep"),
        ("plan npo", "error: ilu plan npo needs --model TEXT: folder, hub id"),
        ("evaluate lab --limit 0", "error: --limit 0: it must be at least 1"),
        ("evaluate lab --form words", "error: --form words: give letters or cloze"),
        ("vectors", "error: ilu vectors needs ORIGINAL and UNLEARNED; see ilu vectors --help"),
        ("vectors lab", "ilu vectors needs UNLEARNED: folder of the unlearned model; see"),
        ("vectors a b c d", "error: ilu vectors does not take the word 'd'; see ilu vectors"),
        ("bench", "error: ilu bench needs methods and --out PATH; see ilu bench --help"),
        ("bench speed --out run", "error: ilu bench speed: give ilu bench methods"),
        ("import-config", "error: ilu import-config needs FILE: the configuration; see"),
        ("sweep status", "error: ilu sweep status needs FOLDER: where the sweep is; see"),
        (f"{UNLEARN} --lora-rank=None", "--lora-rank has no value"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_message_and_no_model_is_loaded(words, says, ilu, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    done = ilu(*words.split())
    said = " ".join(done.stderr.split())
    assert done.returncode == 2, done.stdout + done.stderr
    assert says in said
    assert "Traceback" not in said
    *warned, last = done.stderr.splitlines()
    assert last.startswith("error: ")
    assert all(line.startswith("warning: ") for line in warned)
    assert "did you mean" not in said or said.count("'") <= 12  # at most three suggestions
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({"other.weight": torch.ones(2, dtype=torch.bool)}, "weights that the model lacks"),
        ({"model.norm.weight": torch.ones(3, dtype=torch.bool)}, "model.norm.weight is (3,)"),
    ],
)
def test_a_mask_of_another_model_is_refused_by_its_shapes(weights, says, ilu, tmp_path):
    save_file(weights, tmp_path / "plain.safetensors")
    save_mask(tmp_path / "made.safetensors", weights.items(), {})
    for name in ("plain", "made"):
        done = ilu(*UNLEARN.split(), "--mask", f"{name}.safetensors")
        assert done.returncode == 2, done.stderr
        assert says in done.stderr


@pytest.mark.usefixtures("no_model")
def test_layers_of_a_cached_model_are_checked_without_the_hub(ilu, tmp_path, monkeypatch):
    """The cache is laid out as the hub's library does it; the hub is never called."""
    cache = tmp_path.parent / f"{tmp_path.name}-cache"
    snapshot = cache / "models--org--small" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (cache / "models--org--small" / "refs").mkdir()
    (cache / "models--org--small" / "refs" / "main").write_text("abc")
    config = LlamaConfig(num_hidden_layers=2, hidden_size=16, num_attention_heads=2)
    config.save_pretrained(snapshot)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    (tmp_path / "f.jsonl").write_text('{"text": "a"}\n')
    data = ("--forget", "f.jsonl", "--retain", "f.jsonl", "--out", "run")
    done = ilu("unlearn", "rmu", "--model", "org/small", *data, "--layer", "5")
    assert done.returncode == 2
    assert "the model has 2 blocks" in done.stderr


def test_a_sweep_checks_once_what_its_runs_share(tmp_path, monkeypatch):
    (tmp_path / "f.jsonl").write_text('{"text": "a"}\n')
    checked, data = [], str(tmp_path / "f.jsonl")
    monkeypatch.setattr(Dataset, "check", lambda self: checked.append(self.name))
    flags = ["--model", "lab", "--forget", data, "--retain", data, "--out", str(tmp_path / "s")]
    check_runs(sweep_flags.read("npo", [*flags, "--grid", "seed=0:3", "lr=1e-3,1e-4"]))
    assert checked == [data]


@pytest.mark.usefixtures("no_model")
def test_a_folder_that_cannot_be_written_is_said_first(ilu, tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / "locked")
    done = ilu("unlearn", "npo", "--model", "lab", "--out", "locked/run")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr


@pytest.mark.usefixtures("no_model")
def test_a_file_system_that_takes_no_folder_is_said_first(ilu, tmp_path, monkeypatch):
    def refuse(dir):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(dir))

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    for words in ("unlearn npo --model lab", "attack lab --attack mood"):
        done = ilu(*words.split(), "--out", "proc/run")
        assert done.returncode == 2
        assert "error: proc/run cannot be made: no folder can be made in " in done.stderr
        assert "Choose another --out" in done.stderr


def test_an_environment_that_does_nothing_is_warned_of():
    with pytest.warns(UserWarning, match="use npo-ilu or npo-control"):
        warn_of_environment("npo")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train = [f"npo-{name}" for name, ending in endings().items() if ending.environment]
        for name in ("npo-ilu", "npo-control", *train):
            warn_of_environment(name)


@pytest.mark.usefixtures("no_model")
def test_that_warning_is_shown_to_who_gives_one(ilu):
    done = ilu(*UNLEARN.split(), "--environment", "no.jsonl", "--forget", "no.jsonl")
    assert "warning: --environment is only measured in 'npo'" in done.stderr


def test_a_cell_of_a_grid_replaces_the_flag():
    words = ["--steps", "1", "--model=lab", "--lr", "2"]
    assert replaced(words, ["--steps", "5", "--model", "x"]) == [
        "--lr", "2", "--steps", "5", "--model", "x",
    ]  # fmt: skip


def test_the_plan_names_the_memory_that_it_assumes(ilu):
    assert "assumed: a device of 80GiB" in ilu("plan", "npo", "--model", "lab").stdout
    given = ilu("plan", "npo", "--model", "lab", "--device-memory", "8GiB")
    assert "assumed" not in given.stdout
