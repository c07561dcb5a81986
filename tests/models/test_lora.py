"""LoRA: which layers are adapted, the reference is the model itself, merging, resume."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from ilu.attacks.finetune import FineTune
from ilu.data.stream import Feed
from ilu.lab.sources import TaskTrain
from ilu.methods.forget.rmu import rmu_recipe
from ilu.models.blocks import blocks
from ilu.models.forward import Frozen, ModelForward
from ilu.models.load import read_weights
from ilu.models.lora import ADAPTERS, Lora, adapt, adapted_layers, adapting, base_layers, merge
from ilu.models.weight_names import named_trained
from ilu.runs.run import Options, run
from ilu.system import optional
from ilu.system.errors import Stopped
from ilu.system.record import describe, restore
from ilu.training.fit import Optim, fit
from ilu.training.trainable import training
from tests.build import batch
from tests.close import ROUNDING, assert_same_to_rounding
from tests.conftest import make_tiny
from tests.models.test_families import FAMILIES
from tests.runs.test_run import recipe
from tests.training.test_optimizers import KINDS, OBJECTIVE, same, streams

pytest.importorskip("peft")
LORA = Lora(rank=3, alpha=6.0)
ROUNDED = replace(LORA, base_bits=4)


def test_a_recipe_s_own_choice_of_weights_is_kept(tiny):
    found = adapted_layers(tiny, LORA, rmu_recipe(layer=1).parameters)
    assert found == ["model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"]
    every = adapted_layers(tiny, LORA, "")
    assert len(every) == 2 * 7
    assert "lm_head" not in every
    assert adapted_layers(tiny, Lora(2, 2.0, r"1\..*[qv]_proj"), "") == [
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.self_attn.v_proj",
    ]


def test_adapters_are_all_that_is_trained_and_only_of_the_chosen_layers(tiny):
    adapted = adapt(tiny, LORA, rmu_recipe(layer=1).parameters, seed=0)
    named = named_trained(adapted, ADAPTERS)
    assert sorted(tuple(p.shape) for p in named.values()) == [(3, 32)] * 2 + [(16, 3)] * 2
    assert all("mlp.down_proj" in n for n in named)


@pytest.mark.parametrize("bad", [("", "embed_tokens"), ("nowhere", ""), ("", "lm_head")])
def test_nothing_to_adapt_says_so(bad, tiny):
    with pytest.raises(ValueError, match=r"no layer to adapt: of the 14 linear layers.*q_proj"):
        adapted_layers(tiny, Lora(2, 2.0, bad[0] or "all-linear"), bad[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_reference_is_the_base_model_to_the_bit_in_every_family(family):
    torch.manual_seed(0)
    model = FAMILIES[family]().eval()
    b = batch()
    before, hidden = ModelForward(model)(b).logits, ModelForward(model).hidden(b, 1)
    depth = len(blocks(model))
    adapted = adapt(model, LORA, "", seed=0)
    assert len(blocks(adapted)) == depth == 3
    original = {n: p.detach().clone() for n, p in named_trained(adapted, ADAPTERS).items()}
    with torch.no_grad():
        for p in named_trained(adapted, ADAPTERS).values():
            p.add_(0.1)
    reference = Frozen(adapted, original)
    assert torch.equal(reference(b).logits, before)
    assert torch.equal(reference.hidden(b, 1), hidden)
    moved = ModelForward(adapted)(b).logits
    assert not torch.allclose(moved, before)
    merge(adapted)
    # Here so large an update magnifies rounding: 1.1e-4 of the largest logit between kernels.
    share = 5e-4 if family == "qwen2-tied" else ROUNDING
    assert_same_to_rounding(ModelForward(model)(b).logits, moved, share)


def test_merging_adds_alpha_over_rank_times_the_product(tiny):
    start = make_tiny()
    names = [n for n, _ in tiny.named_modules()]
    adapted = adapt(tiny, LORA, r"0\.mlp\.down_proj", seed=0)
    a, b = named_trained(adapted, ADAPTERS).values()
    torch.nn.init.normal_(b, generator=torch.Generator().manual_seed(1))
    merge(adapted)
    assert [n for n, _ in tiny.named_modules()] == names
    assert all(p.requires_grad for p in tiny.parameters())
    for (n, p), before in zip(tiny.named_parameters(), start.parameters(), strict=True):
        if n == "model.layers.0.mlp.down_proj.weight":
            assert_same_to_rounding(p, before + 6 / 3 * b @ a)
        else:
            assert torch.equal(p, before)


def test_adapters_begin_as_their_seed_says_whatever_was_drawn_before():
    found = []
    for seed in (1, 1, 2):
        torch.rand(len(found))
        adapted = adapt(make_tiny(), LORA, "0.mlp.down_proj", seed=seed)
        found.append(next(iter(named_trained(adapted, ADAPTERS).values())))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("kind", KINDS)
def test_every_optimiser_trains_adapters_and_nothing_else(kind):
    start, model, rows = make_tiny(), make_tiny(), []
    rate = 30.0 if kind == "sgd" else 1e-2  # new adapters have small gradients
    optim = Optim(lr=rate, steps=12, optimizer=kind)
    with adapting(model, LORA, r"\.mlp\.", seed=0) as (adapted, pattern):
        assert pattern == ADAPTERS
        fit(adapted, {"retain": OBJECTIVE["retain"]}, streams(), replace(optim, parameters=pattern),
            log=rows.append)  # fmt: skip
    assert rows[-1]["retain"] < rows[0]["retain"]
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    pairs = zip(model.named_parameters(), start.parameters(), strict=True)
    as_held = (lambda x: x.bfloat16().float()) if kind == "adamw-bf16" else (lambda x: x)
    changed = {n for (n, p), b in pairs if not torch.equal(p, as_held(b))}
    assert changed == {n for n, _ in start.named_parameters() if ".mlp." in n}


def test_dropout_stays_off_in_the_adapted_model_and_after_merging():
    # PEFT's wrapper is in training mode; its mode was once set on every module inside.
    config = GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=64)
    model = GPT2LMHeadModel(config).eval()
    assert model.transformer.drop.p == 0.1
    with adapting(model, LORA, "", seed=0) as (adapted, pattern):
        for _ in range(2):
            fit(adapted, {"retain": OBJECTIVE["retain"]}, streams(),
                Optim(lr=1e-2, steps=1, parameters=pattern))  # fmt: skip
            assert not any(module.training for module in adapted.modules())
        trained = logits_of(adapted)
    assert not any(module.training for module in model.modules())
    assert_same_to_rounding(logits_of(model), trained)


def test_without_lora_the_model_is_trained_itself(tiny):
    with adapting(tiny, None, "mlp", seed=0) as trained:
        assert trained == (tiny, "mlp")
    assert same(tiny, make_tiny())


# A base model in 4 bits.


def relative(a, b) -> float:
    return ((a - b).norm() / b.norm()).item()


def logits_of(model):
    return ModelForward(model)(batch()).logits.detach()


def test_a_rounded_base_is_close_and_only_adapters_have_a_gradient(tiny):
    before, layers = logits_of(tiny), base_layers(tiny)
    with adapting(tiny, ROUNDED, r"\.mlp\.", seed=0) as (adapted, pattern):
        base = logits_of(adapted)
        assert 1e-3 < relative(base, before) < 0.3
        assert {type(m.weight).__name__ for m in layers} == {"NF4Tensor"}
        with training(adapted, pattern) as named:
            ModelForward(adapted)(batch()).logits.square().mean().backward()
            assert {n for n, p in adapted.named_parameters() if p.grad is not None} == set(named)
            assert all(p.grad.abs().sum() > 0 for n, p in named.items() if ".lora_B." in n)
        original = {n: p.detach().clone() for n, p in named.items()}
        with torch.no_grad():
            for p in named.values():
                p.add_(0.1)
        assert torch.equal(Frozen(adapted, original)(batch()).logits, base)


def test_the_gradient_is_that_of_the_rounded_weights(tiny):
    """Against a model that holds what the 4 bits stand for as float32."""
    other = make_tiny()
    layers = zip(base_layers(tiny), base_layers(other), strict=True)
    with adapting(tiny, ROUNDED, "", seed=0) as (adapted, _):
        for mine, theirs in layers:
            theirs.weight.data = mine.weight.to(torch.float32)
        gradients = [adapter_gradients(m) for m in (adapted, adapt(other, LORA, "", seed=0))]
    for a, b in zip(*gradients, strict=True):
        assert_same_to_rounding(a, b)


def adapter_gradients(adapted):
    with training(adapted, ADAPTERS) as named:
        with torch.no_grad():
            for p in named.values():
                p.add_(0.05)
        ModelForward(adapted)(batch()).logits.square().mean().backward()
        return [p.grad for p in named.values()]


def test_the_update_is_merged_into_the_weights_from_before_the_rounding(tiny):
    start = dict(make_tiny().named_parameters())
    with adapting(tiny, ROUNDED, r"0\.mlp\.down_proj", seed=0) as (adapted, pattern):
        a, b = (p.detach() for p in named_trained(adapted, pattern).values())
        torch.nn.init.normal_(b, generator=torch.Generator().manual_seed(1))
    for name, p in tiny.named_parameters():
        change = 6 / 3 * b @ a if name == "model.layers.0.mlp.down_proj.weight" else None
        if change is None:
            assert torch.equal(p, start[name]), name
        else:
            assert_same_to_rounding(p, start[name] + change)


def test_training_that_fails_leaves_the_model_as_it_was(tiny):
    with pytest.raises(KeyError), adapting(tiny, ROUNDED, "", seed=0):
        raise KeyError
    assert same(tiny, make_tiny())
    assert all(p.requires_grad for p in tiny.parameters())


def test_a_rounded_run_is_measured_and_saved_merged_and_resumes(folder, tmp_path):
    made = recipe(folder, "npo-ilu", steps=4, lora_rank=2, quantise_base=4)
    assert made.lora == Lora(2, 2.0, base_bits=4)
    assert restore(describe(made)) == made
    whole = run(made, tmp_path / "whole")
    before, after = (read_weights(f / "model") for f in (folder, whole.path))
    assert {n for n in before if not torch.equal(before[n], after[n])} == {
        n for n in before if "_proj" in n
    }
    for n in before:
        update = after[n].float() - before[n].float()
        assert update.ndim < 2 or torch.linalg.matrix_rank(update, rtol=1e-3) <= 2, n
    stopped_and_resumed(made, whole, tmp_path / "half")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantise_base": 4}, "set `lora_rank` as well"),
        ({"quantise_base": 8, "lora_rank": 2}, "in 8 bits: it can have 4"),
        ({"quantise_base": 4, "lora_rank": 2, "perturbed": "."}, "leave out `quantise_base`"),
        ({"quantise_base": 4, "lora_rank": 2, "optimizer": "adamw-bf16"}, "`precision` bfloat16"),
    ],
)
def test_what_4_bits_cannot_do_is_refused(settings, message, folder):
    with pytest.raises(ValueError, match=message):
        recipe(folder, "npo", **settings)


def test_layers_that_cannot_have_4_bits_are_named():
    model = FAMILIES["gpt2"]()
    with pytest.raises(ValueError, match=r"c_attn cannot have 4 bits.*Leave out `quantise_base`"):
        adapted_layers(model, ROUNDED, "")


# Whole runs.


@pytest.mark.parametrize("name", ["npo-ilu", "rmu", "npo-sam"])
def test_a_run_saves_an_ordinary_merged_model(name, folder, tmp_path):
    layer = {"layer": 1} if name == "rmu" else {}
    made = recipe(folder, name, lora_rank=2, **layer)
    assert made.lora == Lora(2, 2.0)
    assert restore(describe(made)) == made
    out = run(made, tmp_path / "run")
    before, after = (read_weights(f / "model") for f in (folder, out.path))
    assert before.keys() == after.keys()
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    wanted = {n for n in before if "_proj" in n and (name != "rmu" or "down_proj" in n)}
    assert changed == wanted
    loaded = AutoModelForCausalLM.from_pretrained(out.path / "model")
    assert type(loaded).__name__ == "LlamaForCausalLM"
    update = (after["model.layers.1.mlp.down_proj.weight"]
              - before["model.layers.1.mlp.down_proj.weight"])  # fmt: skip
    assert torch.linalg.matrix_rank(update, rtol=1e-3) <= 2


def stopped_and_resumed(made, whole, path):
    """The run in two goes, with the bytes of the whole one."""
    seen: list[int] = []
    options = Options(progress=lambda n, d, t: seen.append(d), stop=lambda: len(seen) == 2)
    with pytest.raises(Stopped):
        run(made, path, options)
    half = run(made, path, Options(resume=True))
    for file in ("train.jsonl", "model/model.safetensors", "scores/after.json"):
        assert (whole.path / file).read_bytes() == (half.path / file).read_bytes(), file
    return half


@pytest.mark.parametrize("kind", ["adamw", "sophia"])
def test_an_interrupted_run_resumes_to_the_same_bytes(kind, folder, tmp_path):
    made = recipe(folder, "npo", steps=5, lora_rank=2, lora_alpha=4.0, optimizer=kind)
    whole = run(made, tmp_path / "whole")
    half = stopped_and_resumed(made, whole, tmp_path / "half")
    (half.path / "done.json").unlink()
    (half.path / "scores" / "after.json").unlink()
    again = run(made, half.path, Options(resume=True))  # OUT/model is there already
    file = "scores/after.json"
    assert (whole.path / file).read_bytes() == (again.path / file).read_bytes()


def test_attacks_work_on_the_merged_model(folder, tmp_path):
    tune = FineTune(Feed(TaskTrain("mood", 40), 4), Optim(lr=1e-3, steps=2))
    made = replace(recipe(folder, "npo", lora_rank=2), attacks={"mood": tune}, keep_attacked=True)
    out = run(made, tmp_path / "run")
    after, attacked = (read_weights(out.path / p / "model") for p in ("", "attacks/mood"))
    assert all(not torch.equal(after[n], attacked[n]) for n in after)  # not the adapters only


def test_masks_and_averages_are_refused_with_lora(folder, tmp_path):
    with pytest.raises(ValueError, match=r"a mask cannot be combined with LoRA.*`lora_rank`"):
        recipe(folder, "npo", lora_rank=2, mask=str(tmp_path / "m.safetensors"))
    with pytest.raises(ValueError, match="averaging cannot be combined with LoRA"):
        recipe(folder, "npo", lora_rank=2, average_from=2)


@pytest.mark.parametrize("bad", [{"lora_rank": -1}, {"lora_rank": 2, "lora_alpha": 0.0}])
def test_impossible_adapters_are_refused(bad, folder):
    with pytest.raises(ValueError, match="the rank must be at least 1 and alpha above 0"):
        recipe(folder, "npo", **bad)


def test_without_peft_nothing_is_written(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(optional, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"LoRA needs peft.*pip install 'peft>=[\d.]+'$"):
        run(recipe(folder, "npo", lora_rank=2), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_bfloat16_run_saves_bfloat16_and_resumes_to_the_same_bytes(folder, tmp_path):
    pytest.importorskip("torchao")
    made = recipe(folder, "npo", steps=4, optimizer="adamw-bf16")
    whole = run(made, tmp_path / "whole")
    assert {w.dtype for w in read_weights(whole.path / "model").values()} == {torch.bfloat16}
    half = stopped_and_resumed(made, whole, tmp_path / "half")
    (half.path / "done.json").unlink()
    (half.path / "scores" / "after.json").unlink()
    again = run(made, half.path, Options(resume=True))
    file = "scores/after.json"
    assert (whole.path / file).read_bytes() == (again.path / file).read_bytes()
