"""UNDO after an unlearning: what it reads, what it leaves, and resumed runs."""

import json
from dataclasses import replace

import pytest
import torch

from ilu.cli.main import run as command
from ilu.data.stream import Stream
from ilu.lab.corpus import corpus
from ilu.lab.sources import Corpus
from ilu.lab.world import AGENTS, entities
from ilu.models.load import load_model, read_weights
from ilu.models.lora import Lora
from ilu.recipes.build import build, defaults
from ilu.runs.prepare import check_ranks
from ilu.runs.report.card import card_file, write_card
from ilu.runs.report.formats import write_report
from ilu.runs.run import Options, run
from ilu.runs.run_dir import RunDir
from ilu.system.distributed import Ranks
from ilu.system.errors import Stopped
from ilu.system.record import restore

STEPS, DISTILLED = 3, 5


def recipe(folder, name="npo-undo", **settings):
    """A method on a model of two blocks, then a distillation on other data."""
    given = {
        "model": str(folder / "model"), "forget": str(folder / "forget.jsonl"),
        "retain": str(folder / "retain.jsonl"), "distil": str(folder / "environment.jsonl"),
        "published": True, "lr": 1e-2, "batch_size": 2, "limit": 4, "steps": STEPS,
        "distil_steps": DISTILLED, "distil_batch_size": 2, "distil_lr": 1e-2,
    }  # fmt: skip
    return build(name, {**given, **settings})


def same_bytes(one, other):
    for file in ("train.jsonl", "undo.jsonl", "model/model.safetensors"):
        assert (one.path / file).read_bytes() == (other.path / file).read_bytes(), file


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    return run(recipe(folder), tmp_path_factory.mktemp("undo") / "run")


def test_the_unlearning_is_the_same_and_the_copy_comes_closer(finished, folder, tmp_path):
    plain = build("npo", {
        "model": str(folder / "model"), "forget": str(folder / "forget.jsonl"),
        "retain": str(folder / "retain.jsonl"), "published": True, "lr": 1e-2, "batch_size": 2,
        "limit": 4, "steps": STEPS,
    })  # fmt: skip
    teacher = run(plain, tmp_path / "teacher")
    assert finished.rows("train") == teacher.rows("train")
    rows = finished.rows("undo")
    assert [row["step"] for row in rows] == list(range(DISTILLED))
    assert set(rows[0]) == {"step", "lr", "grad_norm", "distil"}
    assert rows[0]["distil"] > 0
    assert rows[-1]["distil"] < rows[0]["distil"]
    assert restore(finished.read("recipe")) == recipe(folder)
    assert not (finished.path / "checkpoints").exists()
    changed = read_weights(finished.path / "model")
    assert all(not torch.equal(w, changed[n])
               for n, w in read_weights(teacher.path / "model").items())  # fmt: skip


def test_no_noise_is_the_teacher(folder, tmp_path):
    """Its divergence from itself is 0 and has no gradient, so that AdamW does not move."""
    out = run(recipe(folder, noise_share=0.0, distil_lr=1e-6), tmp_path / "run")
    assert all(abs(row["distil"]) < 1e-6 for row in out.rows("undo"))


def test_the_forget_data_are_never_read_after_the_unlearning(folder, tmp_path, monkeypatch):
    read: list[tuple[str, str]] = []
    stage = ["unlearn"]
    drawn = Stream.__call__

    def spy(self, k):
        batch = drawn(self, k)
        read.extend((stage[0], str(row.tolist())) for row in batch.input_ids)
        return batch

    def progress(name, done, total):
        stage[0] = "distil" if done == STEPS or name.endswith("distil") else "unlearn"

    made = recipe(folder)
    tokenizer = load_model(made.model).tokenizer
    forget = {tuple(e.ids) for e in made.data["forget"].source(tokenizer)}
    monkeypatch.setattr(Stream, "__call__", spy)
    run(made, tmp_path / "run", Options(progress=progress))

    def about_forget(name):
        found = [json.loads(ids) for when, ids in read if when == name]
        return sum(any(tuple(row[: len(f)]) == f for f in forget) for row in found), len(found)

    assert about_forget("unlearn")[0] > 0
    assert about_forget("distil") == (0, 2 * DISTILLED)


class Killed(Exception):
    """Stands for a kill, which saves nothing."""


@pytest.mark.parametrize("every", [None, 2])
@pytest.mark.parametrize("steps", [2, STEPS, STEPS + 1, STEPS + 3])
def test_a_run_stopped_in_either_stage_resumes_to_the_same_bytes(
    every, steps, finished, folder, tmp_path
):
    seen: list[int] = []
    options = Options(
        save_every=every, progress=lambda n, d, t: seen.append(d), stop=lambda: len(seen) >= steps
    )
    with pytest.raises(Stopped):
        run(recipe(folder), tmp_path / "half", options)
    assert not (tmp_path / "half" / "model").exists()
    half = run(recipe(folder), tmp_path / "half", Options(resume=True))
    same_bytes(finished, half)
    assert not (half.path / "checkpoints").exists()


@pytest.mark.parametrize("steps", [STEPS + 1, STEPS + 4])
def test_a_run_killed_while_it_distils_resumes_to_the_same_bytes(steps, finished, folder, tmp_path):
    seen: list[int] = []

    def progress(name, done, total):
        seen.append(done)
        if len(seen) == steps:
            raise Killed

    with pytest.raises(Killed):
        run(recipe(folder), tmp_path / "half", Options(save_every=2, progress=progress))
    again: list[str] = []
    options = Options(resume=True, progress=lambda name, done, total: again.append(name))
    same_bytes(finished, run(recipe(folder), tmp_path / "half", options))
    assert {name.partition(": ")[2] for name in again} == {"distil"}  # the unlearning was over


def test_close_enough_ends_early_and_says_so(folder, tmp_path):
    notes: list[str] = []
    made = recipe(folder, noise_share=0.01, distil_steps=60, close_enough=1.0)
    out = run(made, tmp_path / "run", Options(on_note=notes.append))
    assert len(out.rows("undo")) == 20
    assert notes[-1].startswith("distilled for 20 of 60 steps: divergence from the unlearned")


def test_adapters_and_weight_arithmetic_may_come_before(folder, tmp_path):
    task_vector = run(recipe(folder, "task-vector-undo"), tmp_path / "edit")
    assert len(task_vector.rows("undo")) == DISTILLED
    pytest.importorskip("peft")
    out = run(recipe(folder, lora_rank=2), tmp_path / "lora")
    assert len(out.rows("undo")) == DISTILLED


def test_a_mask_restricts_the_unlearning_alone(folder, tmp_path):
    made = recipe(folder, mask="magnitude:0.1")
    assert made.distillation().mask is None
    out = run(made, tmp_path / "run")
    before, after = read_weights(folder / "model"), read_weights(out.path / "model")
    assert all(torch.all(before[n] != w) for n, w in after.items() if w.ndim == 2)


def test_what_cannot_be_combined_is_refused(folder):
    with pytest.raises(ValueError, match="undo cannot follow adamw-bf16"):
        recipe(folder, optimizer="adamw-bf16")
    with pytest.raises(ValueError, match="undo does not support sharded weights"):
        check_ranks(recipe(folder), Ranks(0, 2, sharded=True))
    with pytest.raises(ValueError, match="`distil` is missing"):
        recipe(folder, "ascent-undo", distil=None, retain=None)
    with pytest.raises(ValueError, match="`distil` is the data to forget"):
        recipe(folder, distil=str(folder / "forget.jsonl"))


def test_a_copy_of_the_forget_data_is_refused_and_a_part_warned_of(folder, tmp_path):
    rows = (folder / "forget.jsonl").read_text().splitlines()
    copy = tmp_path / "copy.jsonl"
    copy.write_text("\n".join([*rows, '{"question": "Who?", "answer": "Tom"}']) + "\n")
    with pytest.raises(ValueError, match="`distil` contains the data to forget"):
        run(recipe(folder, distil=str(copy)), tmp_path / "run")
    copy.write_text("\n".join([rows[0], '{"question": "Who?", "answer": "Tom"}']) + "\n")
    with pytest.warns(UserWarning, match="1 forget examples are in the data to distil on"):
        run(recipe(folder, distil=str(copy)), tmp_path / "run")


def test_the_data_are_by_default_those_to_keep_and_on_the_lab_its_corpus_without_agents(folder):
    mine = recipe(folder, distil=None)
    assert mine.data["distil"].source == mine.data["retain"].source
    lab = build("rmu-ilu-undo", {"model": "lab"})
    assert lab.data["distil"].source == Corpus("agents")
    assert lab.data["distil"].batch_size == 32
    assert lab.undo.distil_steps == defaults("rmu-undo", "lab")["distil_steps"] == 530
    text = " ".join(corpus(0, "agents"))
    assert not any(name in text for name in entities(AGENTS))
    assert any(name in " ".join(corpus(0)) for name in entities(AGENTS))


def test_on_the_lab_a_few_steps_bring_the_copy_closer(tmp_path):
    made = build("rmu-undo", {"model": "lab", "steps": 2, "distil_steps": 12, "batch_size": 4,
                              "distil_batch_size": 8})  # fmt: skip
    made = replace(made, metrics={}, data={
        **made.data, "distil": replace(made.data["distil"], source=Corpus("agents", epochs=1)),
    })  # fmt: skip
    found = [row["distil"] for row in run(made, tmp_path / "run").rows("undo")]
    assert found[0] > 1
    assert sum(found[-3:]) < 0.85 * sum(found[:3])


def test_report_and_card_show_the_distillation(finished, tmp_path):
    write_report([finished.path], tmp_path / "report.html")
    assert "npo-undo, distillation" in (tmp_path / "report.html").read_text()
    write_card(finished.path)
    text = card_file(finished.path).read_text()
    assert "noise share 0.3, scale 0.1, at most 5 steps" in text
    assert "| distil |" in text


def test_the_report_says_how_far_an_interrupted_distillation_is(folder, tmp_path):
    seen: list[int] = []
    options = Options(progress=lambda n, d, t: seen.append(d), stop=lambda: len(seen) == STEPS + 2)
    with pytest.raises(Stopped):
        run(recipe(folder), tmp_path / "half", options)
    run(recipe(folder), tmp_path / "done")
    write_report([tmp_path / "half", tmp_path / "done"], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "unfinished: 3 of 3 steps of unlearning, 2 of 5 of distillation" in text
    assert len(RunDir(tmp_path / "half").rows("undo")) == 2


def planned(capsys, *words):
    assert command(["plan", *words, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    return {
        row["settings"]: sum(v for k, v in row.items() if k not in ("settings", "fits"))
        for row in rows
    }


def test_the_plan_is_the_larger_of_both_trainings(capsys):
    """RMU trains three matrices; the distillation all weights, with a copy of them."""
    alone = planned(capsys, "rmu", "--model", "lab")
    both = planned(capsys, "rmu-undo", "--model", "lab")
    distils = planned(capsys, "rmu-undo", "--model", "lab", "--distil-batch-size", "1",
                      "--batch-size", "64")  # fmt: skip
    assert both["as given"] > 2 * alone["as given"]
    assert distils["as given"] < both["as given"]
    assert not any("adamw-bf16" in name for name in both)


def test_adapters_do_not_make_the_distillation_smaller(folder):
    made = recipe(folder, lora_rank=2).distillation()
    assert made.lora is None
    assert isinstance(recipe(folder, lora_rank=2).lora, Lora)


def test_help_config_and_the_page_of_methods_have_its_flags(capsys, tmp_path):
    with pytest.raises(SystemExit):
        command(["unlearn", "rmu-undo", "--model", "lab", "--help"])
    shown = capsys.readouterr().out
    method = shown.index("Method")
    for flag in ("--noise-share", "--noise-scale", "--distil-steps", "--close-enough", "--distil "):
        assert shown.index(flag) > method
    with pytest.raises(SystemExit):
        command(["unlearn", "rmu-undo", "--model", "lab", "--out", "x", "--print-config"])
    assert "distil_steps: 530" in capsys.readouterr().out
    assert command(["unlearn", "rmu", "--model", "lab", "--distil-steps", "3", "--out", "x"]) == 2
    assert command(["methods", "--out", str(tmp_path / "methods.md")]) == 0
    page = (tmp_path / "methods.md").read_text()
    assert "### -undo" in page
    assert "| `--noise-share` | 0.3 |" in page
    assert "| `--distil` |" in page


def test_it_can_be_tried_in_miniature(tmp_path):
    words = ["--model", "org/model", "--forget", "org/forget", "--retain", "org/retain", "--tiny"]
    assert command(["unlearn", "npo-undo", *words, "--out", str(tmp_path / "run")]) == 0
    assert len(RunDir(tmp_path / "run").rows("undo")) == 3
