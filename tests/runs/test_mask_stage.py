"""Masks in whole runs and on the command line, on a two-layer random Llama."""

import json

import pytest
import torch
from safetensors.torch import load_file

from ilu.cli.mask import main as mask_command
from ilu.methods.forget.idk import Refusal
from ilu.methods.masks.storage import MaskFile, load_mask, save_mask
from ilu.methods.retain.likelihood import NLL
from ilu.models.load import load_model, weights_hash
from ilu.recipes.registry import methods
from ilu.runs.run import Options, run
from ilu.system.errors import Stopped
from ilu.system.record import restore
from tests.runs.test_run import recipe, start


def arguments(folder, name, *more):
    data = [f"--{k}={folder / f'{k}.jsonl'}" for k in ("forget", "retain")]
    given = {word.partition("=")[0] for word in more}
    own = [f"--model={folder / 'model'}", *data]
    return [name, *(word for word in own if word.partition("=")[0] not in given), *more]


@pytest.fixture
def made(folder, tmp_path):
    """A mask made by the command."""
    path = tmp_path / "m.safetensors"
    mask_command(arguments(folder, "wagle", "--fraction=0.2", f"--out={path}"))
    return path


def test_a_run_makes_the_mask_that_the_command_makes(folder, tmp_path, made):
    out = run(recipe(folder, "npo", mask="wagle:0.2"), tmp_path / "run")
    ours, theirs = (dict(MaskFile(p)) for p in (out.path / "mask.safetensors", made))
    assert all(torch.equal(theirs[n], m) for n, m in ours.items())
    again = run(recipe(folder, "npo", mask=str(made)), tmp_path / "again")
    a, b = (load_file(o.path / "model" / "model.safetensors") for o in (out, again))
    assert all(torch.equal(x, b[n]) for n, x in a.items())
    mask = load_mask(made, load_model(str(folder / "model")).model)
    moved = 0
    for name, x in a.items():
        before = start(folder)[name]
        assert torch.equal(x[~mask[name]], before[~mask[name]])
        moved += int((x != before).sum())
    assert moved > 0.5 * sum(int(m.sum()) for m in mask.values())
    shown = json.loads((out.path / "mask.json").read_text())
    assert shown["score"] == "Wagle"
    assert shown["fraction"] == pytest.approx(0.2, abs=1e-4)
    assert set(shown["density"]["mlp.down_proj"]) == {"0", "1"}
    assert restore(out.read("recipe")) == recipe(folder, "npo", mask="wagle:0.2")


def test_an_interrupted_masked_run_ends_in_the_same_bytes(folder, tmp_path):
    def bytes_of(path):
        return (path / "model" / "model.safetensors").read_bytes()

    wanted = recipe(folder, "npo-ilu", mask="snip:0.3", weight_decay=0.1)
    run(wanted, tmp_path / "whole")
    steps: list[int] = []
    with pytest.raises(Stopped):
        run(wanted, tmp_path / "cut", Options(stop=lambda: steps.append(1) or len(steps) > 1))
    before = (tmp_path / "cut" / "mask.safetensors").read_bytes()
    run(wanted, tmp_path / "cut", Options(resume=True))
    assert (tmp_path / "cut" / "mask.safetensors").read_bytes() == before
    assert bytes_of(tmp_path / "whole") == bytes_of(tmp_path / "cut")


def test_learning_to_refuse_is_attributed_by_its_refusals(folder):
    po, npo = (recipe(folder, name, mask="wagle:0.5").mask for name in ("po", "npo"))
    assert isinstance(po.scoring.forget_loss, Refusal)
    assert isinstance(npo.scoring.forget_loss, NLL)


def test_a_mask_brings_the_data_that_it_needs(folder):
    assert set(recipe(folder, "ascent").data) == {"forget"}
    assert set(recipe(folder, "ascent", mask="snip:0.5").data) == {"forget"}
    assert set(recipe(folder, "ascent", mask="wagle:0.5").data) == {"forget", "retain"}


def test_published_runs_have_the_settings_of_the_configurations():
    masked = {n: m for n, m in methods().items() if "mask" in m.settings}
    settings = {n: (m.lr, m.steps, m.settings["mask"]) for n, m in masked.items()}
    assert settings == {
        "tofu-graddiff-wagle": (7e-6, 500, "wagle:0.95"),
        "tofu-npo-wagle": (1e-5, 400, "wagle:0.95"),
        "tofu-po-wagle": (2e-5, 500, "wagle:0.8"),
        "wmdp-graddiff-wagle": (5e-6, 500, "wagle:0.4"),
        "wmdp-npo-wagle": (1e-5, 500, "wagle:0.6"),
    }


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("wagel:0.5", r"unknown mask 'wagel'; did you mean 'wagle'\?"),
        ("wagle:2", "mask fraction '2': it must be a number above 0 and at most 1"),
        ("wagle:much", "mask fraction 'much'"),
        ("rmu:0.5", "make this one with ilu mask rmu --layer"),
    ],
)
def test_masks_that_cannot_be_are_refused(folder, mask, message):
    with pytest.raises(ValueError, match=message):
        recipe(folder, "npo", mask=mask)


SCORES = ("fisher-wagle", "gradient", "snip", "magnitude", "random", "wanda", "sure", "circuit")


@pytest.mark.parametrize("score", SCORES)
def test_every_score_makes_a_mask_of_the_wanted_share(folder, tmp_path, score):
    path = tmp_path / "m.safetensors"
    mask_command(arguments(folder, score, "--fraction=0.5", f"--out={path}"))
    found = dict(MaskFile(path))
    share = sum(int(m.sum()) for m in found.values()) / sum(m.numel() for m in found.values())
    whole = score not in ("sure", "circuit")
    assert share == 0.5 if whole else 0 < share <= 0.5
    assert MaskFile(path).record["scoring"]["score"]["type"].isidentifier()


def test_several_fractions_and_scores_on_disk(folder, tmp_path, capsys):
    flags = ["--fraction=0.1", "--fraction=0.4", f"--out={tmp_path / 'm.safetensors'}"]
    mask_command(arguments(folder, "snip", *flags, f"--scores={tmp_path / 's'}"))
    small, large = (dict(MaskFile(tmp_path / f"m-{f}.safetensors")) for f in ("0.1", "0.4"))
    assert not any((m & ~large[n]).any() for n, m in small.items())
    assert (tmp_path / "s" / "scores-00000.safetensors").is_file()
    mask_command(["compare", *(str(tmp_path / f"m-{f}.safetensors") for f in ("0.1", "0.4"))])
    out = capsys.readouterr().out
    assert "by block" in out
    assert "by chance" in out
    assert "0.250" in out  # a tenth inside four tenths


def test_a_later_call_selects_from_scores_on_disk(folder, tmp_path, monkeypatch):
    def mask(name, *flags):
        mask_command(arguments(folder, *flags, f"--out={tmp_path / name}"))
        return MaskFile(tmp_path / name)

    scores = f"--scores={tmp_path / 's'}"
    mask("a.st", "wagle", "--fraction=0.1", scores)
    fresh = mask("b.st", "wagle", "--fraction=0.3", "--per=tensor")

    def never(*args):
        pytest.fail("scored again")

    monkeypatch.setattr("ilu.runs.mask_stage.score_weights", never)
    again = mask("c.st", "wagle", "--fraction=0.3", "--per=tensor", scores)
    assert all(torch.equal(m, dict(again)[n]) for n, m in fresh)
    assert {**again.record, "seconds": 0} == {**fresh.record, "seconds": 0}
    other = tmp_path / "other.jsonl"
    other.write_text('{"text": "Something else"}\n', encoding="utf-8")
    for flags, changed in (
        (["snip", "--fraction=0.3"], "made.scoring"),
        (["wagle", "--fraction=0.3", "--mu=2"], "made.scoring"),
        (["wagle", "--fraction=0.3", f"--forget={other}"], "made.data.forget"),
        (["wagle", "--fraction=0.3", "--model=lab"], "made.model"),
    ):
        with pytest.raises(ValueError, match=f"have another source \\({changed}"):
            mask("d.st", *flags, scores)
    with pytest.raises(ValueError, match="has no scores"):
        mask("d.st", "wagle", "--fraction=0.3", f"--scores={folder}")
    assert not (tmp_path / "d.st").exists()


def test_rmu_layers_heads_and_refusals(folder, tmp_path, capsys):
    mask_command(arguments(folder, "rmu", "--layer=1", f"--out={tmp_path / 'r.safetensors'}"))
    chosen = {n for n, m in MaskFile(tmp_path / "r.safetensors") if m.any()}
    assert chosen == {f"model.layers.{i}.mlp.down_proj.weight" for i in (0, 1)}
    flags = ["--per=heads", "--fraction=0.1", "--refusal", f"--out={tmp_path / 'h.safetensors'}"]
    mask_command(arguments(folder, "gradient", *flags))
    record = MaskFile(tmp_path / "h.safetensors").record
    assert record["choice"]["unit"] == "heads"
    assert record["scoring"]["forget_loss"]["type"] == "Refusal"
    mask_command(["show", str(tmp_path / "h.safetensors")])
    assert "self_attn.q_proj" in capsys.readouterr().out


def test_an_old_mask_is_converted(folder, tmp_path, capsys):
    model = load_model(str(folder / "model")).model
    old = {n: torch.rand_like(p) < 0.5 for n, p in model.named_parameters()}
    torch.save(old, tmp_path / "tofu_0.5.pt")
    path = tmp_path / "new.safetensors"
    command = ["convert", str(tmp_path / "tofu_0.5.pt"), f"--model={folder / 'model'}"]
    mask_command([*command, f"--out={path}"])
    found = load_mask(path, model, weights_hash(model))
    assert all(torch.equal(found[n], m) for n, m in old.items())
    assert "converted from tofu_0.5.pt" in capsys.readouterr().out
    with pytest.raises(ValueError, match="exists already"):
        mask_command([*command, f"--out={path}"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["wagle"], "--fraction is missing"),
        (["wagle", "--fraction=0"], "above 0 and at most 1"),
        (["wagle", "--fraction=0.5", "--limit=0"], "must be at least 1"),
        (["wagle", "--fraction=0.5", "--parameters=nowhere"], "no weight name matches"),
        (["nosuch"], "unknown mask 'nosuch'"),
    ],
)
def test_bad_input_leaves_nothing_behind(folder, tmp_path, flags, message):
    out = f"--out={tmp_path / 'm.safetensors'}"
    with pytest.raises(ValueError, match=message):
        mask_command([*arguments(folder, flags[0], *flags[1:]), out])
    assert list(tmp_path.iterdir()) == []


def test_impossible_outputs_are_refused_before_the_model_is_loaded(folder, tmp_path):
    out, scores = f"--out={tmp_path / 'm.st'}", f"--scores={tmp_path / 's'}"
    for flags, message in (
        (["--fraction=0", scores], "above 0 and at most 1"),
        (["--fraction=0.1", "--fraction=0.1"], "written twice"),
        (["--fraction=0.1", f"--scores={tmp_path / 'm.st'}"], "written twice"),
    ):
        with pytest.raises(ValueError, match=message):
            mask_command(["wagle", "--model=nowhere", *flags, out])
    with pytest.raises(ValueError, match="whole layers"):
        mask_command(["rmu", "--model=nowhere", "--fraction=0.5", out])
    assert list(tmp_path.iterdir()) == []


def test_a_made_mask_that_lets_nothing_move_leaves_no_run(folder, tmp_path):
    with pytest.raises(ValueError, match="has none of the trained weights"):
        run(recipe(folder, "npo", mask="random:0.0000001"), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_fraction_is_of_the_weights_that_the_method_trains(folder, tmp_path):
    out = run(recipe(folder, "rmu", mask="random:0.5", seed=7), tmp_path / "run")
    masks = dict(MaskFile(out.path / "mask.safetensors"))
    assert all("down_proj" in name for name in masks)
    assert sum(int(m.sum()) for m in masks.values()) == sum(m.numel() for m in masks.values()) / 2
    assert recipe(folder, "rmu", mask="random:0.5", seed=7).mask.scoring.score.mask_seed == 7
    assert isinstance(recipe(folder, "po-lat", mask="wagle:0.5").mask.scoring.forget_loss, Refusal)


def test_a_mask_of_the_model_in_half_precision_fits_it(folder, tmp_path):
    path = tmp_path / "m.safetensors"
    flags = ["--fraction=0.2", "--precision=bfloat16", f"--out={path}"]
    mask_command(arguments(folder, "snip", *flags))
    run(recipe(folder, "npo", mask=str(path)), tmp_path / "run")
    assert MaskFile(path).record["precision"] == "bfloat16"


def test_a_mask_of_another_model_is_refused_before_anything_is_written(folder, tmp_path):
    model = load_model(str(folder / "model")).model
    masks = ((n, torch.ones_like(p, dtype=torch.bool)) for n, p in model.named_parameters())
    save_mask(tmp_path / "m.safetensors", masks, {"model": "another"})
    with pytest.raises(ValueError, match="made for a model with other weights"):
        run(recipe(folder, "npo", mask=str(tmp_path / "m.safetensors")), tmp_path / "run")
    assert not (tmp_path / "run").exists()
