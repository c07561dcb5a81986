"""Attacks on a tiny model: what each changes, what it leaves, and that none spoils another."""

import json
import shutil
import threading
from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from ilu.attacks.convergence import Convergence, answer_accuracy, converged, hold_out
from ilu.attacks.finetune import FineTune
from ilu.attacks.interpolate import Interpolate
from ilu.attacks.kind import number
from ilu.attacks.layers import HEAD
from ilu.attacks.noise import Noise
from ilu.attacks.prune import Prune
from ilu.attacks.quantise import Quantise, rounded
from ilu.attacks.registry import attack_kinds, label
from ilu.attacks.sequence import InTurn, distinct
from ilu.attacks.weight_edit import WeightEdit
from ilu.data.splits import HeldOut, Part, held_out
from ilu.data.stream import Feed
from ilu.data.text import Dataset
from ilu.evals import suite
from ilu.evals.metrics.likelihood import AnswerNLL
from ilu.evals.metrics.multiple_choice import Choice
from ilu.evals.score import mean_score
from ilu.lab.sources import Documents, Facts, Stories, TaskTest, TaskTrain
from ilu.models.load import load_model, weights_hash
from ilu.models.lora import Lora, linear_layers
from ilu.recipes.attacks import Attacker, attacked, with_attacks
from ilu.recipes.settings import AttackSettings
from ilu.runs.attack_stage import Attacking, attack_all, check_failures
from ilu.runs.recipe import Recipe
from ilu.runs.report.gather import gather
from ilu.runs.results.run_metrics import worst_case
from ilu.runs.run import Options, run
from ilu.runs.run_dir import RunDir
from ilu.runs.sweep.worker import finished
from ilu.system.errors import Stopped
from ilu.system.record import describe, differences, restore
from ilu.training.fit import Optim
from ilu.types import LM, Example
from tests.close import assert_same_to_rounding
from tests.conftest import make_tiny

TRAIN = Feed(TaskTrain("mood", 40), 4)
METRICS = {"forget_accuracy": Choice(Facts("agents", count=8))}


@pytest.fixture(scope="module")
def tokenizer():
    return load_model("lab").tokenizer


@pytest.fixture
def lm(tokenizer):
    return LM(make_tiny(len(tokenizer)), tokenizer)


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    place = tmp_path_factory.mktemp("tiny")
    make_tiny(len(tokenizer)).save_pretrained(place / "model")
    tokenizer.save_pretrained(place / "model")
    return place / "model"


def tune(steps=3, lr=1e-2, **more):
    parameters = more.pop("parameters", "")
    return FineTune(TRAIN, Optim(lr=lr, steps=steps, parameters=parameters), **more)


def carry_out(attack, lm):
    """What it reached, in order, and the names of the weights that changed."""
    before = {n: p.detach().clone() for n, p in lm.model.named_parameters()}
    reached: list[str] = []
    attack(lm, reached=reached.append, progress=lambda done, total: None)
    after = dict(lm.model.named_parameters())
    assert list(after) == list(before)
    return reached, {n for n in before if not torch.equal(before[n], after[n])}


# Fine-tuning


def test_a_head_only_attack_moves_the_head_and_blocks_their_blocks(lm):
    assert carry_out(tune(parameters=HEAD), lm)[1] == {"lm_head.weight"}
    moved = carry_out(Attacker(optim=Optim(lr=1e-2, steps=2))("blocks:1:mood"), lm)[1]
    assert moved
    assert all(".layers.1." in name for name in moved)
    assert len(carry_out(tune(), lm)[1]) > len(moved)


def test_adapters_are_merged_into_linear_layers_and_thrown_away_on_failure(lm):
    attack = tune(lora=Lora(2, 4.0))
    _, moved = carry_out(attack, lm)
    assert moved == {f"{n}.weight" for n in linear_layers(lm.model)}
    before = weights_hash(lm.model)

    def fail(done, total):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        attack(lm, reached=lambda stage: None, progress=fail)
    assert weights_hash(lm.model) == before
    assert all(p.requires_grad for p in lm.model.parameters())


def test_a_curve_has_more_points_and_the_stages_stay(lm):
    reached, _ = carry_out(tune(8, every=3), lm)
    assert reached == ["quarter", "step 3", "half", "step 6", "end"]
    assert carry_out(tune(1), lm)[0] == ["quarter", "half", "end"]


# The paper's end: three changes below 1 %, whatever their sign.
@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ((0.5, 0.9, 0.905, 0.9, 0.902), True),
        ((0.5, 0.9, 0.905, 0.9), False),
        ((0.9, 0.9, 0.9), False),
        ((0.9, 0.91, 0.915, 0.918), False),
        ((0.93, 0.925, 0.93, 0.95), False),
    ],
)
def test_convergence_is_three_small_changes(accuracies, expected):
    assert converged(accuracies, Convergence()) == expected


def test_an_attack_can_be_measured_at_its_end_only(lm):
    attack = FineTune(Feed(TaskTrain("mood", 8), 4), Optim(lr=1e-3, steps=4), only_end=True)
    reached: list[str] = []
    attack(lm, reached=reached.append, progress=lambda done, total: None)
    assert reached == ["end"]
    with pytest.raises(ValueError, match="or only at the end, not both"):
        replace(attack, every=2)


def test_convergence_ends_an_attack_early_and_a_moving_accuracy_does_not(lm, monkeypatch):
    attack = tune(40, every=2, until=Convergence(held_out=3))
    monkeypatch.setattr("ilu.attacks.finetune.answer_accuracy", lambda *_: 0.5)
    assert carry_out(attack, lm)[0] == ["step 2", "step 4", "step 6", "end"]
    rising = iter(range(100))
    monkeypatch.setattr("ilu.attacks.finetune.answer_accuracy", lambda *_: next(rising) / 10)
    assert len(carry_out(attack, lm)[0]) == 20


def test_what_judges_convergence_is_not_trained_on():
    examples = [Example([i % 7, i % 3], 1) for i in range(42)]
    trained, held = hold_out(examples, 5, seed=0)
    assert len(held) == 5
    assert not {tuple(e.ids) for e in trained} & {tuple(e.ids) for e in held}
    assert len(trained) == 42 - 2 * 5  # each of the 21 different ones is there twice
    with pytest.raises(ValueError, match="21 different examples cannot give 21"):
        hold_out(examples, 21, seed=0)


def test_the_accuracy_is_of_answer_tokens(lm):
    with torch.no_grad():
        for p in lm.model.parameters():
            p.zero_()
        lm.model.lm_head.weight[5] = 1  # equal logits of 0, and the first of equals is token 0
    examples = [Example([9, 0, 3], 1), Example([0, 0], 1)]
    assert answer_accuracy(lm, examples, 2) == pytest.approx(2 / 3)


def test_relearning_parts_are_disjoint(tokenizer):
    whole = Documents("agents", stop=3)
    shown, rest = Part(whole, stop=5)(tokenizer), Part(whole, start=5)(tokenizer)
    assert shown + rest == whole(tokenizer)
    assert len(shown) == 5
    with pytest.raises(ValueError, match="there are not that many"):
        Part(whole, stop=13)(tokenizer)
    assert len(Stories(8)(tokenizer)) == 8


def test_a_users_task_is_judged_by_what_it_is_not_trained_on(lm, tmp_path):
    """By hand: a tenth of 120 is held out, and the one row that equals one of it; of 99 nothing."""
    first = held_out(120)[0]
    twin = next(i for i in range(120) if i not in held_out(120))

    def attack(count):
        rows = [{"text": f"The fox {first if i == twin else i} naps."} for i in range(count)]
        file = tmp_path / f"{count}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return Attacker(optim=Optim(lr=1e-3, steps=1), settings=AttackSettings(batch_size=2))(
            str(file)
        )

    large, small = attack(120), attack(99)
    trained = {tuple(e.ids) for e in large.data(lm)}
    assert len(large.data(lm)) == 107
    found = suite.measure(large.goals, lm)
    assert {name: score.n for name, score in found.items()} == {"task_nll": 12}
    held = HeldOut(Dataset(str(tmp_path / "120.jsonl")))
    assert found["task_nll"] == AnswerNLL(held)(lm)
    assert not trained & {tuple(e.ids) for e in held(lm.tokenizer)}
    assert len(small.data(lm)) == 99
    found = suite.measure(InTurn({"a": large, "b": small}).goals, lm)
    assert {name: score.n for name, score in found.items()} == {
        "a_task_nll": 12, "b_task_train_nll": 99
    }  # fmt: skip


def test_attacks_in_turn_go_on_from_each_other(lm, tokenizer):
    first, second = tune(2), tune(3, seed=1)
    whole = InTurn({"a": first, "b": second})
    assert whole.steps == 5
    assert len(whole.data(lm)) == len(first.data(lm)) + len(second.data(lm))
    reached, _ = carry_out(whole, lm)
    assert reached == ["step 2", "end"]
    other = LM(make_tiny(len(tokenizer)), tokenizer)
    carry_out(first, other)
    carry_out(second, other)
    assert weights_hash(lm.model) == weights_hash(other.model)


# Changes of the weights


def test_eight_bits_are_within_half_a_step_of_each_row_and_four_bits_have_sixteen_values():
    w = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    eight = rounded(w, 8, 50)
    step = w.abs().amax(1, keepdim=True) / 127
    assert ((eight - w).abs() <= 0.5001 * step).all()
    four = rounded(w, 4, 16)  # 50 is no multiple of 16
    assert all(len(group.unique()) <= 16 for row in four for group in row.split(16))
    assert (four - w).abs().max() > (eight - w).abs().max()
    assert_same_to_rounding(rounded(four, 4, 16), four)


def test_quantising_leaves_embeddings_norms_and_head(lm):
    pytest.importorskip("torchao")
    reached, moved = carry_out(WeightEdit(Quantise(4, 32)), lm)
    assert reached == ["end"]
    assert moved == {f"{n}.weight" for n in linear_layers(lm.model)}


def test_pruning_takes_the_smallest_exactly(lm):
    before = lm.model.model.layers[0].mlp.up_proj.weight.detach().clone()
    carry_out(WeightEdit(Prune(0.3)), lm)
    after = lm.model.model.layers[0].mlp.up_proj.weight
    zeros = after == 0
    assert zeros.sum() == round(0.3 * after.numel())
    assert before[zeros].abs().max() <= before[~zeros].abs().min()
    assert torch.equal(after[~zeros], before[~zeros])


def test_noise_is_seeded_and_as_large_as_said(tokenizer):
    def changed(scale, seed):
        model = make_tiny(len(tokenizer))
        before = model.lm_head.weight.detach().clone()
        Noise(scale, seed)(model)
        return before, model.lm_head.weight.detach()

    before, once = changed(0.1, 1)
    assert torch.equal(once, changed(0.1, 1)[1])
    assert not torch.equal(once, changed(0.1, 2)[1])
    ratio = (once - before).square().mean().sqrt() / before.square().mean().sqrt()
    assert ratio == pytest.approx(0.1, rel=0.05)
    assert torch.equal(*changed(0.0, 1))


def test_interpolation_at_its_ends_gives_both_models(lm, folder):
    carry_out(tune(), lm)
    tuned = weights_hash(lm.model)
    carry_out(WeightEdit(Interpolate(str(folder), 0.0)), lm)
    assert weights_hash(lm.model) == tuned
    before = lm.model.lm_head.weight.detach().clone()
    carry_out(WeightEdit(Interpolate(str(folder), 0.25)), lm)
    original = load_model(str(folder)).model
    expected = 0.75 * before + 0.25 * original.lm_head.weight
    assert_same_to_rounding(lm.model.lm_head.weight, expected)
    carry_out(WeightEdit(Interpolate(str(folder), 1.0)), lm)
    assert weights_hash(lm.model) == weights_hash(original)
    with pytest.raises(ValueError, match="not of the same architecture"):
        Interpolate("lab")(lm.model)


# Many attacks on one model


@dataclass(frozen=True)
class Failing:
    """An attack that leaves the model in ruins."""

    goals: dict
    steps: int = 1

    def data(self, lm):
        return ()

    def __call__(self, lm, *, reached, progress):
        lm.model.train()
        for p in lm.model.parameters():
            p.data = p.data.bfloat16() * float("nan")
        raise RuntimeError("no\nmemory")


@dataclass(frozen=True)
class Asked:
    """A probe with two ways of asking."""

    def __call__(self, lm):
        known = Choice(Facts("agents", count=8))(lm)
        return {"few-shot": known, "prefix": mean_score([1.0] * 8)}


def whole(folder, attacks, **more):
    optim = Optim(lr=1e-3, steps=0)
    return Recipe(
        name="x", model=str(folder), data={}, objective={}, optim=optim, metrics=METRICS,
        attacks=attacks, **more,
    )  # fmt: skip


ATTACKS = {
    "mood": tune(goals={"task_accuracy": Choice(TaskTest("mood", 8))}),
    "adapters": tune(lora=Lora(2, 4.0), every=1),
    "noise": WeightEdit(Noise(0.5)),
    "pruned": WeightEdit(Prune(0.5)),
}


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    return run(whole(folder, ATTACKS), tmp_path_factory.mktemp("done") / "run")


def same_scores(a, b, names):
    for name in names:
        file = f"scores/{name}-end.json"
        assert (a.path / file).read_bytes() == (b.path / file).read_bytes(), name
        metric = f"examples/{name}-end/forget_accuracy.jsonl"
        assert (a.path / metric).read_bytes() == (b.path / metric).read_bytes(), name


def test_the_order_of_attacks_changes_nothing(done, folder, tmp_path):
    turned = run(whole(folder, dict(reversed(ATTACKS.items()))), tmp_path / "turned")
    same_scores(done, turned, ATTACKS)
    assert done.read("curves/adapters") == turned.read("curves/adapters")
    assert [row["step"] for row in done.read("curves/adapters")] == [1, 2, 3]
    assert not done.has("curves/mood")
    assert [s for s in done.stages() if s.startswith("noise")] == ["noise-end"]


def test_dropout_is_off_in_every_order_of_attacks(tokenizer, tmp_path):
    torch.manual_seed(0)
    size = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    config = GPT2Config(vocab_size=len(tokenizer), initializer_range=0.4, **size)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    loss = {"nll": AnswerNLL(TaskTrain("sums", 8))}
    attacks = {**ATTACKS, "unchanged": WeightEdit(Noise(0.0))}
    found = [
        run(replace(whole(tmp_path / "model", dict(order)), metrics=loss), tmp_path / f"run{i}")
        for i, order in enumerate((attacks.items(), reversed(attacks.items())))
    ]
    for name in attacks:
        assert found[0].scores(f"{name}-end")["nll"] == found[1].scores(f"{name}-end")["nll"]
    assert found[0].scores("unchanged-end") == found[0].scores("after")


def test_a_failing_attack_loses_no_other_and_is_named(done, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("ilu.runs.run.describe", lambda recipe: described)
    attacks = {"broken": Failing({}), **ATTACKS}
    described = {**describe(whole(folder, ATTACKS)), "attacks": {name: {} for name in attacks}}
    out = run(whole(folder, attacks), tmp_path / "run")
    same_scores(done, out, ATTACKS)
    assert out.failures() == {"broken": "RuntimeError: no memory"}
    with pytest.raises(ValueError, match=r"1 of the attacks failed \(broken: RuntimeError: no me"):
        check_failures(out)
    ((broken,), (m,)) = (gather([out.path])[i] for i in (1, 0))
    assert broken.state == "attack 'broken' failed: RuntimeError: no memory"
    assert m.attacks == list(ATTACKS)
    mended = {**attacks, "broken": WeightEdit(Noise(0.5))}
    again = run(whole(folder, mended), out.path, Options(resume=True))
    assert again.failures() == {}
    assert again.scores("broken-end") == again.scores("noise-end")


def test_results_are_found_again_by_content_alone(done, folder, tmp_path, monkeypatch):
    options = Options(shared=tmp_path / "kept")
    first = run(whole(folder, ATTACKS), tmp_path / "a", options)
    same_scores(done, first, ATTACKS)
    monkeypatch.setattr("ilu.runs.attack_stage.attacked", None)  # nothing may be done again
    renamed = {f"{name}2": attack for name, attack in ATTACKS.items()}
    again = run(whole(folder, renamed), tmp_path / "b", options)
    for name in ATTACKS:
        assert again.scores(f"{name}2-end") == first.scores(f"{name}-end")
    assert again.read("curves/adapters2") == first.read("curves/adapters")
    other = run(whole(folder, {"noise": WeightEdit(Noise(0.4))}), tmp_path / "c", options)
    assert "NoneType" in other.failures()["noise"]  # other settings are not found


def test_another_model_that_an_attack_reads_is_part_of_its_content(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    made = whole(folder, {"back": InTurn({"a": WeightEdit(Interpolate(str(copy))), "b": tune(1)})})
    options = Options(shared=tmp_path / "kept")
    first = run(made, tmp_path / "a", options)
    assert list(first.read("data")["attack back"]["models"]) == [str(copy)]
    weights = load_model(str(copy))
    Noise(0.1)(weights.model)
    weights.model.save_pretrained(copy)
    run(made, tmp_path / "b", options)
    assert len(list((options.shared / "attacks").iterdir())) == 2
    with pytest.raises(ValueError, match=r"attack back\.models"):
        run(made, first.path, Options(resume=True))


def test_an_interruption_while_the_end_is_measured_leaves_the_same_curve(folder, tmp_path):
    made = whole(folder, {"mood": tune(4, every=1)})
    undisturbed = run(made, tmp_path / "whole")
    asked = []

    def counted(name, done, total):
        asked.append(done)

    cut = tmp_path / "cut"
    with pytest.MonkeyPatch.context() as patch:
        measure = suite.measure

        def at_the_end(metrics, lm):
            if asked[-1:] == [4]:
                raise KeyboardInterrupt
            return measure(metrics, lm)

        patch.setattr("ilu.runs.attack_stage.suite.measure", at_the_end)
        with pytest.raises(KeyboardInterrupt):
            run(made, cut, Options(save_every=2, progress=counted))
    again = run(made, cut, Options(save_every=2, resume=True))
    assert again.read("curves/mood") == undisturbed.read("curves/mood")


def test_a_probe_that_failed_is_asked_again(folder, tmp_path, monkeypatch):
    made = whole(folder, {}, probes={"asking": Asked()})
    monkeypatch.setattr(Asked, "__call__", lambda self, lm: 1 / 0)
    out = run(made, tmp_path / "run")
    assert list(out.failures()) == ["asking"]
    monkeypatch.undo()
    again = run(made, out.path, Options(resume=True))
    assert again.failures() == {}
    assert set(again.scores("probes")) == {"few-shot", "prefix"}


def test_attacks_stop_between_two_that_have_no_steps(folder, tmp_path):
    attacks = {"noise": WeightEdit(Noise(0.5)), "pruned": WeightEdit(Prune(0.5))}
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        run(whole(folder, attacks), out,
            Options(stop=lambda: (out / "scores" / "noise-end.json").exists()))  # fmt: skip
    assert not (out / "scores" / "pruned-end.json").exists()


def test_a_record_without_a_newer_setting_is_the_same_recipe(folder, tmp_path):
    made = whole(folder, {})
    out = run(made, tmp_path / "run")
    old = out.read("recipe")
    del old["optim"]["recompute"], old["optim"]["perturbed"]
    out.write("recipe", old)
    assert finished(out.path, describe(made))
    run(made, out.path, Options(resume=True))
    assert not finished(out.path, describe(replace(made, seed=1)))


def test_a_sweep_does_not_teach_the_labs_data_to_another_model(folder):
    made = whole(folder, {})
    with pytest.raises(ValueError, match=r"relearn:20.*needs data.*`forget`"):
        with_attacks(made, ["relearn:20"], Optim(lr=1e-3, steps=1))
    with pytest.raises(ValueError, match="have the same name in files"):
        with_attacks(made, ["a/data.jsonl", "b/data.jsonl"], Optim(lr=1e-3, steps=1))


def test_a_number_must_be_one():
    for wrong in ("inf", "nan", "much"):
        with pytest.raises(ValueError, match="no number"):
            number(wrong)


def test_quarter_and_half_are_the_measured_points_next_to_them(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("ilu.attacks.finetune.answer_accuracy", lambda *_: 0.5)
    until = {"mood": tune(90, every=10, until=Convergence(held_out=3), lr=0.05)}
    out = run(whole(folder, until), tmp_path / "run")
    curve = {row["step"]: row["forget_accuracy"]["value"] for row in out.read("curves/mood")}
    assert list(curve) == [10, 20, 30]  # a quarter is 7.5, a half 15: the earlier of two as near
    shown = [out.scores(f"mood-{s}")["forget_accuracy"].value for s in ("quarter", "half", "end")]
    assert shown == [curve[10], curve[10], curve[30]]


def test_probes_are_asked_once_and_count_as_attacks(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("ilu.runs.run.describe", lambda recipe: described)
    made = whole(folder, {"noise": ATTACKS["noise"]}, probes={"asked": Asked()})
    plain = describe(whole(folder, {"noise": ATTACKS["noise"]}))
    described = {**plain, "objective": {"forget": {}}, "probes": {"asked": {}}}
    out = run(made, tmp_path / "run")
    assert out.stages() == ["before", "after", "probes", "noise-end"]
    assert list(out.scores("probes")) == ["few-shot", "prefix"]
    (m,), broken = gather([out.path])
    assert broken == []
    name, worst = worst_case(m)
    assert (name, worst.value) == ("prefix", 0.0)
    assert m.recipe["probes"] == {"asked": {}}


def test_records_from_before_probes_can_be_read_and_resumed(folder):
    made = whole(folder, ATTACKS)
    record = json.loads(json.dumps(describe(made)))
    old = {k: v for k, v in record.items() if k != "probes"}
    assert restore(old) == made
    assert differences(old, record) == []
    assert differences(old, {**record, "probes": {"a": 1}}) != []
    with pytest.raises(ValueError, match="'noise' is an attack and a probe"):
        replace(made, probes={"noise": Asked()})


# Names


def test_every_kind_has_a_name_and_an_error_of_its_own():
    settings = AttackSettings(original="lab")
    by = Attacker(optim=Optim(lr=1e-3, steps=5), settings=settings)
    names = [
        "sums", "lora:sums", "head:sums", "blocks:0,1:sums", "relearn:5@3e-3", "retained:5",
        "unrelated:5", "quantise:4", "prune:0.3", "noise:0.05", "interpolate:0.5",
        "in-turn:sums+mood", "ablate:1", "merge:ties@0.3:sums",
        "rtt:a@3e-3",
    ]  # fmt: skip
    assert {n.partition(":")[0] for n in names} == {"sums", *attack_kinds()}
    made = attacked("lab", names, by, {}, {}, keep=False)
    assert restore(describe(made)) == made
    assert list(made.attacks)[3:6] == ["blocks-0-1-sums", "relearn-5-3e-3", "retained-5"]
    relearned = made.attacks["relearn-5-3e-3"]
    assert isinstance(relearned, FineTune)
    assert (relearned.optim.lr, relearned.feed.source) == (3e-3, Documents("agents", stop=5))
    watched = replace(by, settings=replace(settings, eval_every=2), until=Convergence())
    assert (watched("lora:sums").until, watched("relearn:5").until) == (Convergence(), None)
    assert by("relearn").feed.source == Documents("agents", stop=20)  # as a task, as ever
    assert label("relearn") == "relearn"
    assert label("lora:./some/own file.jsonl") == "lora-own-file"
    assert label("openai/gsm8k:main:train") == "gsm8k-main-train"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("summs", "unknown task 'summs'; did you mean 'sums'?"),
        ("lora:summs", "attack 'lora:summs': unknown task 'summs'"),
        ("blocks:sums", "name the blocks and a task"),
        ("relearn:0", "give a number of documents"),
        ("relearn:21", "the lab has from 1 to 20"),
        ("relearn:5@fast", "'fast' is no number"),
        ("quantise", "'' is no number"),
        ("quantise:9", "bits must be from 2 to 8"),
        ("quantise:4.7", "4.7 bits: write a whole number"),
        ("prune:1.5", "it must be from 0 to 1"),
        ("ablate:last", "give the number of a block"),
        ("merge:tie", "unknown rule of merging 'tie'; did you mean 'ties'?"),
        ("merge:ties", "set `original`"),
        ("rtt:c", "rtt:a or rtt:b"),
        ("rtt:a@fast", "'fast' is no number"),
        ("noise:-1", "it must be at least 0"),
        ("interpolate:0.5", "set `original`"),
        ("in-turn:sums", "it needs at least two"),
    ],
)
def test_bad_names_are_refused_in_a_line(name, message):
    by = Attacker(optim=Optim(lr=1e-3, steps=5))
    with pytest.raises(ValueError, match=r"attack|unknown task") as error:
        by(name)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_task_that_comes_again_in_turn_has_a_number():
    by = Attacker(optim=Optim(lr=1e-3, steps=5))
    found = by("in-turn:sums+mood+sums+sums")
    assert isinstance(found, InTurn)
    assert list(found.attacks) == ["sums", "mood", "sums-2", "sums-3"]
    assert found.steps == 20
    assert "sums-3_task_accuracy" in found.goals
    assert distinct("a", ["a", "a-2"]) == "a-3"


@dataclass(frozen=True)
class Slow:
    """An attack that others try to carry out meanwhile."""

    goals: dict = field(default_factory=dict)
    steps: int = 0
    begun: ClassVar[list[int]] = []
    first: ClassVar[threading.Event] = threading.Event()
    second: ClassVar[threading.Event] = threading.Event()

    def data(self, lm):
        return ()

    def __call__(self, lm, *, reached, progress):
        self.begun.append(1)
        (self.second if self.first.is_set() else self.first).set()
        self.second.wait(1)
        reached("end")


def test_runs_that_share_an_attack_wait_for_the_first(tmp_path):
    def attack(name):
        lm = load_model("lab")
        recipe = whole("lab", {"slow": Slow()})
        (tmp_path / name).mkdir()
        attack_all(
            Attacking(
                recipe=replace(recipe, metrics={"m": Choice(Facts("agents", count=2))}),
                lm=lm, out=RunDir(tmp_path / name), progress=lambda *a: None,
                stop=lambda: False, track=lambda *a: None, on_eval=lambda *a: None,
                kept=tmp_path / "kept",
            )
        )  # fmt: skip

    runs = [threading.Thread(target=attack, args=(name,)) for name in "ab"]
    runs[0].start()
    assert Slow.first.wait(120)
    runs[1].start()
    for each in runs:
        each.join()
    assert len(Slow.begun) == 1
    scores = [RunDir(tmp_path / name).scores("slow-end") for name in "ab"]
    assert scores[0] == scores[1]
    (kept,) = (tmp_path / "kept").iterdir()
    assert kept.suffix == ".json"


def test_impossible_settings_are_refused(folder):
    for bad in ({"every": 0}, {"until": Convergence()}):
        with pytest.raises(ValueError, match=r"set `eval_every`|at least 1"):
            tune(**bad)
    with pytest.raises(ValueError, match="at least 1"):
        Convergence(held_out=0)
    with pytest.raises(ValueError, match="no folder and no hub id"):
        WeightEdit(Interpolate("nowhere")).data(load_model(str(folder)))
    with pytest.raises(ValueError, match="no weight name matches"):
        tune(parameters="nothing").data(load_model(str(folder)))
    assert RunDir(folder).failures() == {}
