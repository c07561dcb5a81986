"""Masks: scores against their formulas, exact selection, files, old files, training to the bit."""

import json
import pickle
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from ilu.data.stream import Stream, collate
from ilu.methods.forget.idk import Refusal
from ilu.methods.masks.gradients import fisher, input_squares, loss_gradient
from ilu.methods.masks.make import Scoring, choose, score_weights
from ilu.methods.masks.score_storage import store_scores
from ilu.methods.masks.scores import Gradient, Magnitude, Random, Snip, Wanda
from ilu.methods.masks.statistics import by_block, counts, density, distribution, joined, overlaps
from ilu.methods.masks.storage import MaskFile, load_mask, save_mask
from ilu.methods.masks.top_k import nonzero, top_fraction, top_fractions
from ilu.methods.masks.units import Units
from ilu.methods.masks.wagle import FisherWagle, Wagle
from ilu.methods.masks.wagle_pt import convert, read_legacy
from ilu.methods.retain.likelihood import NLL
from ilu.methods.robust.sam import SAM
from ilu.models.forward import ModelForward
from ilu.models.load import weights_hash
from ilu.models.token_math import mean_nll
from ilu.models.weight_names import place
from ilu.runs.mask_stage import make_masks
from ilu.system.errors import Stopped
from ilu.training.checkpoint import Checkpoints
from ilu.training.fit import Optim, fit
from ilu.training.objective import Term
from ilu.training.optim.masked import moving
from ilu.types import LM, Example
from tests.close import assert_same_to_rounding
from tests.conftest import make_tiny

FORGET = [Example([(i * k) % 31 + 1 for k in range(3, 9 - i % 3)], prompt=1) for i in range(1, 9)]
RETAIN = [Example([(i + k) % 31 + 1 for k in range(3, 9)], prompt=2) for i in range(1, 7)]
DATA = {"forget": FORGET, "retain": RETAIN}


def scoring(score, **settings):
    return Scoring(score=score, forget_loss=NLL(), retain_loss=NLL(), **settings)


def scores_of(score, model=None, **settings):
    return dict(score_weights(scoring(score, **settings), model or make_tiny(), DATA).scores)


def summed(model, examples, size):
    """The original's accumulation: the sum over batches of the gradient of the token mean."""
    model.zero_grad()
    for start in range(0, len(examples), size):
        batch = collate(examples[start : start + size])
        model(
            batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels
        ).loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters()}


# -- scores ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mu", [1e-6, 1e-3, 1.0])
def test_wagle_on_sums_is_the_formula_of_the_released_code(mu):
    model = make_tiny()
    g_f, g_r = (summed(model, data, 3) for data in (FORGET, RETAIN))
    model.zero_grad()
    found = scores_of(Wagle(mu), model, reduction="sum", batch_size=3)
    for name, p in model.named_parameters():
        theirs = ((p.detach() - g_r[name] / mu) * g_f[name]).abs()
        assert_same_to_rounding(found[name].abs(), theirs)


def test_the_mean_gradient_is_that_of_all_examples_whatever_the_batches():
    model = make_tiny().double()
    out = ModelForward(model)(collate(FORGET))
    exact = torch.autograd.grad(mean_nll(out.logits, out.targets).mean(), list(model.parameters()))
    small = make_tiny()
    named = dict(small.named_parameters())
    for size in (1, 3, 8):
        found = loss_gradient(small, named, NLL(), FORGET, batch_size=size)
        for g, e in zip(found.values(), exact, strict=True):
            assert_same_to_rounding(g.double(), e)
    assert all(p.grad is None for p in small.parameters())


def test_sums_weigh_refusals_by_their_own_tokens():
    model = make_tiny()
    named = dict(model.named_parameters())
    refusals = [Example(e.ids[:2] + [7] * (1 + i), prompt=2) for i, e in enumerate(FORGET)]
    beside = [e._replace(others=(r,)) for e, r in zip(FORGET, refusals, strict=True)]
    found = loss_gradient(model, named, Refusal(), beside, batch_size=3, reduction="sum")
    for name, g in summed(model, refusals, 3).items():
        assert_same_to_rounding(found[name], g)


def test_gradients_of_half_precision_weights_are_added_in_float32():
    """In bfloat16 a sum stops growing at 256 times its summands; the parts here are exact."""
    model = make_tiny().bfloat16()
    one = FORGET[:1]
    named = dict(model.named_parameters())
    single = loss_gradient(model, named, NLL(), one, batch_size=1)
    many = loss_gradient(model, named, NLL(), one * 600, batch_size=1, reduction="sum")
    for name, g in many.items():
        assert g.dtype == torch.float32
        assert_same_to_rounding(g, 600 * single[name])


def test_fisher_is_the_mean_of_the_squares_and_not_the_square_of_the_mean():
    model = make_tiny()
    named = dict(model.named_parameters())
    squares = [loss_gradient(model, named, NLL(), [e], batch_size=1) for e in RETAIN]
    found = fisher(model, named, NLL(), RETAIN)
    for name, f in found.items():
        tokens = [len(e.ids) - e.prompt for e in RETAIN]
        weighted = [t * g[name].square() for t, g in zip(tokens, squares, strict=True)]
        assert_same_to_rounding(f, torch.stack(weighted).mean(0))
    curved = scores_of(FisherWagle(1e-2), model)
    g_f = loss_gradient(model, named, NLL(), FORGET, batch_size=4)
    g_r = loss_gradient(model, named, NLL(), RETAIN, batch_size=4)
    for name, p in named.items():
        wanted = (p - g_r[name] / (found[name] + 1e-2)) * g_f[name]
        assert_same_to_rounding(curved[name], wanted.detach())


def test_a_mu_that_is_left_out_balances_the_two_terms():
    found = score_weights(scoring(Wagle()), make_tiny(), DATA)
    assert found.scales.theta == pytest.approx(found.scales.retain)
    given = score_weights(scoring(Wagle(1e-3)), make_tiny(), DATA)
    assert given.scales.mu == 1e-3
    assert given.scales.retain == pytest.approx(found.scales.theta * found.scales.mu / 1e-3)


def test_simple_scores():
    model = make_tiny()
    g = loss_gradient(model, dict(model.named_parameters()), NLL(), FORGET, batch_size=4)
    for name, p in model.named_parameters():
        assert torch.equal(scores_of(Magnitude(), model)[name], p)
        assert_same_to_rounding(scores_of(Gradient(), model)[name], g[name])
        assert_same_to_rounding(scores_of(Snip(), model)[name], (p * g[name]).detach())
    a, b, c = (scores_of(Random(seed))["lm_head.weight"] for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    alone = scores_of(Random(0), parameters="lm_head")
    assert torch.equal(alone["lm_head.weight"], a)  # does not depend on what else is scored


def test_wanda_sees_inputs_but_no_padding():
    model = make_tiny()
    named = dict(model.named_parameters())
    seen: list[torch.Tensor] = []
    layer = model.model.layers[1].mlp.down_proj
    hook = layer.register_forward_pre_hook(lambda m, x: seen.append(x[0].detach()[0]))
    for e in FORGET:
        model(torch.tensor([e.ids]))
    hook.remove()
    columns = torch.cat(seen).square().mean(0)
    found = input_squares(model, FORGET, batch_size=8)["model.layers.1.mlp.down_proj.weight"]
    assert_same_to_rounding(found, columns)
    scores = scores_of(Wanda(), model, batch_size=8)
    assert set(scores) == {n for n in named if "proj" in n or "lm_head" in n}
    wanted = layer.weight * columns.sqrt()
    assert_same_to_rounding(scores["model.layers.1.mlp.down_proj.weight"], wanted.detach())


def test_wanda_reads_layers_that_are_given_all_tokens_in_a_row():
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=32, hidden_size=16, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=32, word_embed_proj_dim=16,
    )  # fmt: skip
    scores = scores_of(Wanda(), OPTForCausalLM(config).eval())
    assert any("fc1.weight" in name for name in scores)


def test_wanda_knows_transposed_layers():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=32, n_positions=32, n_embd=16, n_layer=1, n_head=2)
    model = GPT2LMHeadModel(config).eval()
    scores = scores_of(Wanda(), model)
    assert scores["transformer.h.0.mlp.c_fc.weight"].shape == (16, 64)
    with pytest.raises(ValueError, match="rows of this model's layers are inputs"):
        make_masks(scoring(Wanda()), [], "row", LM(model, None), DATA)


def test_a_score_names_the_data_it_needs():
    with pytest.raises(ValueError, match="needs `retain`"):
        score_weights(scoring(Wagle()), make_tiny(), {"forget": FORGET})
    with pytest.raises(ValueError, match="`mu` 0"):
        Wagle(0.0)


# -- selection ---------------------------------------------------------------------------------


def random_scores(seed):
    """Ties, zeros, negative and tiny numbers, in tensors of several shapes."""
    g = torch.Generator().manual_seed(seed)
    shapes = {"model.layers.0.a.weight": (7, 5), "model.layers.0.b.bias": (3,),
              "model.layers.1.a.weight": (4, 9), "head.weight": (11,)}  # fmt: skip
    found = {n: torch.randn(s, generator=g) for n, s in shapes.items()}
    found["model.layers.0.a.weight"][2] = 0.25
    found["model.layers.1.a.weight"][:, 3] = -0.25
    found["head.weight"][::2] = 0.0
    found["head.weight"][1] = 1e-40
    return found


def sorted_mask(parts, fraction):
    """The slow way: a stable sort of all sizes, the first of equals in front."""
    x = torch.cat([p.flatten() for p in parts.values()]).abs()
    mask = torch.zeros(len(x), dtype=torch.bool)
    mask[x.sort(descending=True, stable=True).indices[: round(fraction * len(x))]] = True
    return dict(zip(parts, mask.split([p.numel() for p in parts.values()]), strict=True))


@pytest.mark.parametrize("fraction", [0.001, 0.05, 0.33, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("per", ["model", "layer", "tensor", "row"])
def test_selection_is_that_of_a_sort(per, fraction):
    for seed in range(5):
        scores = random_scores(seed)
        groups = {
            "model": [scores],
            "layer": [
                {n: x for n, x in scores.items() if key in n} for key in ("s.0", "s.1", "he")
            ],
            "tensor": [{n: x} for n, x in scores.items()],
        }
        found = dict(top_fraction(scores.items(), fraction, per=per))
        assert list(found) == list(scores)
        if per == "row":
            for name, x in scores.items():
                for row, kept in zip(
                    x.view(-1, x.shape[-1]), found[name].view(-1, x.shape[-1]), strict=True
                ):
                    assert torch.equal(kept, sorted_mask({"": row}, fraction)[""])
            continue
        for group in groups[per]:
            for name, mask in sorted_mask(group, fraction).items():
                assert torch.equal(found[name].flatten(), mask), (name, seed)


def test_several_fractions_come_from_one_scoring_and_contain_each_other():
    scores = random_scores(0)
    small, large = (dict(m) for m in top_fractions(scores.items(), [0.2, 0.6]))
    assert sum(int(m.sum()) for m in small.values()) == round(0.2 * 85)
    for name, mask in small.items():
        assert not (mask & ~large[name]).any()
        assert torch.equal(mask, dict(top_fraction(scores.items(), 0.2))[name])


def test_selection_reads_scores_in_pieces(monkeypatch):
    whole = dict(top_fraction(random_scores(1).items(), 0.4))
    monkeypatch.setattr("ilu.methods.masks.top_k.CHUNK", 4)
    for per in ("model", "row"):
        pieces = dict(top_fraction(random_scores(1).items(), 0.4, per=per))
        if per == "model":
            assert all(torch.equal(pieces[n], m) for n, m in whole.items())
        else:
            assert int(pieces["model.layers.0.a.weight"].sum()) == 7 * 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite_are_refused(bad):
    scores = random_scores(0)
    scores["head.weight"][3] = bad
    with pytest.raises(ValueError, match=r"head\.weight are not finite"):
        top_fractions(scores.items(), [0.5])


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.1])
def test_impossible_fractions_are_refused(fraction):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        top_fractions(random_scores(0).items(), [fraction])


def test_stored_scores_are_the_same_in_the_same_order(tmp_path):
    scores = random_scores(2)
    stored = store_scores(iter(scores.items()), tmp_path / "s", shard=100)
    assert len(list((tmp_path / "s").glob("*.safetensors"))) > 1
    assert [n for n, _ in stored] == list(scores)
    a, b = (dict(top_fraction(s, 0.3)) for s in (stored, scores.items()))
    assert all(torch.equal(a[n], b[n]) for n in scores)


def test_distribution_has_quantiles_zeros_and_octaves():
    scores = {"a": torch.cat([torch.zeros(10), torch.linspace(1, 100, 990)])}
    found = distribution(scores.items())
    assert found.zero == 10
    assert found.quantiles["0.5"] == pytest.approx(scores["a"].median().item(), rel=0.01)
    assert found.quantiles["0.01"] == 0.0
    assert found.octaves["5"] == int(((scores["a"] >= 32) & (scores["a"] < 64)).sum())


# -- units -------------------------------------------------------------------------------------


def grouped_query_model():
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2)  # fmt: skip
    return LlamaForCausalLM(config)


def test_heads_are_whole_and_those_that_share_keys_stay_together():
    scores = scores_of(Magnitude(), grouped_query_model())
    with torch.no_grad():
        scores = {n: torch.full_like(x, 0.1) for n, x in scores.items()}
        scores["model.layers.1.self_attn.o_proj.weight"][:, 8:] = 5.0  # the second pair of heads
    total = sum(x.numel() for x in scores.values())
    head = 2 * 16 * 8 + 2 * 16 * 4  # its part of q, o, k, v
    mask = dict(Units("heads", heads=2)(scores.items(), (head + 1) / total))
    assert {n for n, m in mask.items() if m.any()} == {
        f"model.layers.1.self_attn.{p}_proj.weight" for p in "qkvo"
    }
    assert torch.equal(mask["model.layers.1.self_attn.q_proj.weight"].any(1), torch.arange(16) >= 8)
    assert torch.equal(mask["model.layers.1.self_attn.k_proj.weight"].any(1), torch.arange(8) >= 4)
    assert torch.equal(mask["model.layers.1.self_attn.o_proj.weight"].any(0), torch.arange(16) >= 8)
    assert sum(int(m.sum()) for m in mask.values()) == head


def test_neurons_are_rows_in_and_a_column_out():
    scores = {n: torch.zeros_like(x) for n, x in scores_of(Magnitude()).items()}
    scores["model.layers.0.mlp.up_proj.weight"][5, 2] = -3.0
    total = sum(x.numel() for x in scores.values())
    mask = dict(Units("neurons", reduce="norm")(scores.items(), 3 * 16 / total))
    assert mask["model.layers.0.mlp.gate_proj.weight"][5].all()
    assert mask["model.layers.0.mlp.down_proj.weight"][:, 5].all()
    assert sum(int(m.sum()) for m in mask.values()) == 3 * 16


def test_modules_by_the_effect_of_removing_them():
    """Large scores of both signs cancel in the sum, and small ones of one sign add up."""
    scores = {
        "l.0.a.weight": torch.tensor([[5.0, -5.0]]),
        "l.0.b.weight": torch.tensor([[1.0, 1.0]]),
    }
    by_sum = dict(Units("modules", reduce="sum")(scores.items(), 0.5))
    by_mean = dict(Units("modules")(scores.items(), 0.5))
    assert by_sum["l.0.b.weight"].all()
    assert not by_sum["l.0.a.weight"].any()
    assert by_mean["l.0.a.weight"].all()


def test_a_unit_that_is_too_large_leaves_room_for_smaller_ones():
    scores = {"l.0.a.weight": torch.full((100,), 9.0), "l.0.b.weight": torch.ones(10)}
    mask = dict(Units("modules")(scores.items(), 0.5))
    assert mask["l.0.b.weight"].all()
    assert not mask["l.0.a.weight"].any()


def test_units_that_cannot_be_are_refused():
    fused = {"m.layers.0.mlp.gate_up_proj.weight": torch.ones(8, 4),
             "m.layers.0.mlp.down_proj.weight": torch.ones(4, 4)}  # fmt: skip
    with pytest.raises(ValueError, match="together in one matrix"):
        list(Units("neurons")(fused.items(), 0.5))
    with pytest.raises(ValueError, match="above 0"):
        choose(fused.items(), [2.0], Units("modules"))
    with pytest.raises(ValueError, match="how many key-value heads"):
        Units("heads")
    with pytest.raises(ValueError, match="found no neurons"):
        list(Units("neurons")(random_scores(0).items(), 0.5))
    experts = {"m.layers.0.mlp.experts.gate_up_proj": torch.ones(2, 8, 4)}
    with pytest.warns(UserWarning, match="experts that lie in one tensor, such as m.layers.0.mlp"):
        mask = dict(Units("neurons")([*scores_of(Magnitude()).items(), *experts.items()], 0.5))
    assert not any(mask[name].any() for name in experts)
    with pytest.raises(ValueError, match="not even one"):
        list(Units("neurons")(scores_of(Magnitude()).items(), 1e-4))


def test_choose_without_a_fraction_takes_every_score_but_0():
    (mask,) = choose({"a": torch.tensor([0.0, -1.0])}.items(), [None], "model")
    assert torch.equal(dict(mask)["a"], torch.tensor([False, True]))
    assert dict(nonzero({"a": torch.zeros(2)}.items()))["a"].sum() == 0


# -- files -------------------------------------------------------------------------------------


def random_mask(model, share=0.3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {n: torch.rand(p.shape, generator=g) < share for n, p in model.named_parameters()}


def test_a_mask_comes_back_and_takes_one_bit_a_weight(tmp_path):
    model = make_tiny()
    mask = random_mask(model)
    save_mask(tmp_path / "m.safetensors", mask.items(), {"model": weights_hash(model), "x": 1})
    loaded = load_mask(tmp_path / "m.safetensors", model, weights_hash(model))
    assert all(torch.equal(loaded[n], m) for n, m in mask.items())
    stored = load_file(tmp_path / "m.safetensors")
    assert sum(x.nbytes for x in stored.values()) == sum(-(-m.numel() // 8) for m in mask.values())
    assert MaskFile(tmp_path / "m.safetensors").record["x"] == 1


def test_a_mask_of_other_weights_is_refused(tmp_path):
    model = make_tiny()
    save_mask(tmp_path / "m", random_mask(model).items(), {"model": weights_hash(model)})
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1e-6
    with pytest.raises(ValueError, match="made for a model with other weights"):
        load_mask(tmp_path / "m", model, weights_hash(model))


def test_weights_hash_knows_values_and_not_precision():
    a, b = make_tiny().bfloat16(), make_tiny().bfloat16().float()
    assert weights_hash(a) == weights_hash(b)
    with torch.no_grad():
        b.lm_head.weight[3, 3] += 1
    assert weights_hash(a) != weights_hash(b)


def test_masks_that_do_not_fit_or_are_damaged_are_refused(tmp_path):
    model, path = make_tiny(), tmp_path / "m.safetensors"
    save_file({"nowhere": torch.ones(2, dtype=torch.bool)}, path)
    with pytest.raises(ValueError, match="the model lacks, first: nowhere"):
        load_mask(path, model)
    save_file({"lm_head.weight": torch.ones(2, 2, dtype=torch.bool)}, path)
    with pytest.raises(ValueError, match=r"is \(2, 2\), the model's weight is \(32, 16\)"):
        load_mask(path, model)
    save_file({"lm_head.weight": torch.ones(32, 16)}, path)
    with pytest.raises(ValueError, match="wanted bool"):
        load_mask(path, model)
    shapes = {"lm_head.weight": [32, 16]}
    save_file({"lm_head.weight": torch.ones(3, dtype=torch.uint8)}, path,
              {"ilu_mask": json.dumps({"shapes": shapes})})  # fmt: skip
    with pytest.raises(ValueError, match=r"damaged at lm_head\.weight"):
        load_mask(path, model)
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="not a safetensors file"):
        load_mask(path, model)
    with pytest.raises(ValueError, match="does not exist"):
        load_mask(tmp_path / "none", model)


# -- the original's files ----------------------------------------------------------------------


def test_dense_legacy_masks_are_read(tmp_path):
    model = make_tiny()
    mask = random_mask(model)
    padded = torch.cat([mask["lm_head.weight"], torch.ones(1, 16, dtype=torch.bool)])
    torch.save({**mask, "lm_head.weight": padded}, tmp_path / "tofu_0.95.pt")
    found = convert(read_legacy(tmp_path / "tofu_0.95.pt"), model)
    assert all(torch.equal(found.mask[n], m) for n, m in mask.items())
    assert found.notes == [
        "lm_head.weight: 1 rows at the end cut, the model's vocabulary is shorter"
    ]


def test_numbered_wanda_masks_are_read_in_the_order_of_layers(tmp_path):
    model = make_tiny()
    names = [f"model.layers.{i}.{m}.weight" for i in range(2) for m in (
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
        "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")]  # fmt: skip
    mask = random_mask(model)
    torch.save({i: mask[n] for i, n in enumerate(names)}, tmp_path / "with_0.5.pt")
    old = read_legacy(tmp_path / "with_0.5.pt")
    still, free = convert(old, model), convert(old, model, "free")
    for name in names:
        assert torch.equal(still.mask[name], mask[name])
    assert not still.mask["lm_head.weight"].any()
    assert free.mask["lm_head.weight"].all()
    assert "stay still" in still.notes[-1]
    with pytest.raises(ValueError, match="made for another model"):
        convert({i: m for i, m in old.items() if i != 3}, model)


class Trap:
    def __reduce__(self):
        return print, ("this must never run",)


def test_nothing_but_tensors_is_unpickled(tmp_path, capsys):
    (tmp_path / "a.pt").write_bytes(pickle.dumps(Trap()))
    torch.save({"w": Trap()}, tmp_path / "b.pt")
    (tmp_path / "torn.pt").write_bytes(b"\x80\x02.")
    for name in ("a.pt", "b.pt", "torn.pt"):
        with pytest.raises(ValueError, match="not a mask that torch can load safely"):
            read_legacy(tmp_path / name)
    assert capsys.readouterr().out == ""
    torch.save([1, 2], tmp_path / "c.pt")
    with pytest.raises(ValueError, match="contains a list"):
        read_legacy(tmp_path / "c.pt")
    torch.save({"lm_head.weight": torch.full((32, 16), 2)}, tmp_path / "d.pt")
    with pytest.raises(ValueError, match="other than 0 and 1"):
        convert(read_legacy(tmp_path / "d.pt"), make_tiny())
    with pytest.raises(ValueError, match="the model lacks"):
        convert({"strange": torch.ones(1)}, make_tiny())
    with pytest.raises(ValueError, match="does not exist"):
        read_legacy(tmp_path / "e.pt")
    taller = {"model.layers.0.self_attn.k_proj.weight": torch.ones(20, 16).bool()}
    with pytest.raises(ValueError, match="the model's weight"):
        convert(taller, make_tiny())


# -- what masks look like ----------------------------------------------------------------------


def test_density_by_module_and_block():
    assert place("model.layers.11.self_attn.q_proj.weight") == ("self_attn.q_proj", "11")
    assert place("model.embed_tokens.weight") == ("embed_tokens", "-")
    assert place("lm_head.weight") == ("lm_head", "-")
    bits = {"m.layers.0.fc.weight": [1, 0, 0], "m.layers.0.fc.bias": [1], "m.norm.weight": [0]}
    mask = {name: torch.tensor(each).bool() for name, each in bits.items()}
    assert density(counts(mask.items())) == {"fc": {"0": 0.5}, "norm": {"-": 0.0}}
    assert by_block(counts(mask.items())) == {"0": (2, 4), "-": (0, 1)}


def test_overlap_of_independent_masks_is_that_of_chance():
    model = nn.Linear(400, 400)
    a, b = (random_mask(model, 0.2, seed) for seed in (0, 1))
    whole = joined(overlaps(a.items(), b.items()).values())
    assert whole.iou == pytest.approx(whole.chance_iou, rel=0.03)
    assert whole.chance_iou == pytest.approx(0.04 / 0.36, rel=0.03)
    same = joined(overlaps(a.items(), a.items()).values())
    assert same.iou == 1.0
    alone = joined(overlaps({}.items(), a.items()).values())
    assert alone == (0, sum(int(m.sum()) for m in a.values()), 0.0)
    with pytest.raises(ValueError, match="different models"):
        overlaps(a.items(), {"weight": torch.ones(2, dtype=torch.bool)}.items())


# -- training ----------------------------------------------------------------------------------


def streams():
    return {"forget": Stream(FORGET, 4, 0), "retain": Stream(RETAIN, 3, 0)}


OBJECTIVE = {"forget": Term(NLL(), on="forget", weight=-0.1), "retain": Term(NLL(), on="retain")}


def trained(mask, objective=OBJECTIVE, **settings):
    model, rows = make_tiny(), []
    run = {k: settings.pop(k) for k in ("checkpoints", "stop") if k in settings}
    optim = Optim(**{"lr": 1e-2, "steps": 4, "weight_decay": 0.1} | settings)
    fit(model, objective, streams(), optim, mask=mask, log=rows.append, **run)
    return model, rows


def same(one, other):
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def half_masked(model):
    """Some tensors in part, some not at all, some whole."""
    mask = random_mask(model)
    mask["lm_head.weight"][:] = False
    mask["model.norm.weight"][:] = True
    return mask


SAMMED = {**OBJECTIVE, "forget": replace(OBJECTIVE["forget"], rule=SAM(0.1))}


@pytest.mark.parametrize("objective", [OBJECTIVE, SAMMED])
def test_what_a_mask_holds_keeps_its_bits(objective):
    start = make_tiny()
    mask = half_masked(start)
    model, _ = trained(mask, objective, average_from=2, average_every=1, micro_batch=2)
    for (name, p), before in zip(model.named_parameters(), start.parameters(), strict=True):
        assert torch.equal(p[~mask[name]], before[~mask[name]])
        moved = (p != before)[mask[name]]
        assert not mask[name].any() or moved.float().mean() > 0.5


def test_the_optimiser_has_no_state_where_nothing_moves():
    model = make_tiny()
    mask = half_masked(model)
    free = moving({n: p for n, p in model.named_parameters() if mask[n].any()}, mask)
    assert "lm_head.weight" not in free.parts
    assert free.parts["model.norm.weight"] is model.model.norm.weight
    for name, part in free.parts.items():
        assert part.numel() == int(mask[name].sum())


def test_saved_moments_are_those_of_what_moves(tmp_path):
    mask = half_masked(make_tiny())
    at = Checkpoints(tmp_path / "c", every=2)
    trained(mask, checkpoints=at)
    saved = load_file(at.latest() / "optimizer.safetensors")
    sizes = {
        k.removeprefix("exp_avg/"): x.numel() for k, x in saved.items() if k.startswith("exp_avg/")
    }
    assert sizes == {n: int(m.sum()) for n, m in mask.items() if m.any()}


def test_a_mask_of_everything_changes_no_bit():
    model = make_tiny()
    everything = {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters()}
    (a, rows), (b, others) = trained(everything), trained(None)
    assert rows == others
    assert same(a, b)


def test_the_gradient_is_clipped_by_what_moves():
    """The first gradient norm is that of the moving entries alone."""
    model = make_tiny()
    mask = half_masked(model)
    _, rows = trained(mask, steps=1)
    loss = 0.0
    for name, size, weight in (("forget", 4, -0.1), ("retain", 3, 1.0)):
        out = ModelForward(model)(streams()[name](0))
        loss = loss + weight * mean_nll(out.logits, out.targets).sum() / size
    loss.backward()
    squares = [p.grad[mask[n]].square().sum() for n, p in model.named_parameters()]
    assert rows[0]["grad_norm"] == pytest.approx(torch.stack(squares).sum().sqrt().item(), rel=1e-4)


@pytest.mark.parametrize("optimizer", ["adamw", "sophia"])
def test_masked_training_resumes_to_the_same_bits(tmp_path, optimizer):
    mask = half_masked(make_tiny())
    whole, _ = trained(mask, steps=6, optimizer=optimizer, lr=1e-3)
    at, seen = Checkpoints(tmp_path / optimizer), []
    with pytest.raises(Stopped):
        trained(mask, steps=6, optimizer=optimizer, lr=1e-3, checkpoints=at,
                stop=lambda: len(seen) == 3 or bool(seen.append(1)))  # fmt: skip
    again, rows = trained(mask, steps=6, optimizer=optimizer, lr=1e-3, checkpoints=at)
    assert 0 < len(rows) < 6
    assert same(whole, again)


def test_a_mask_that_lets_nothing_move_is_refused():
    mask = {n: torch.zeros_like(p, dtype=torch.bool) for n, p in make_tiny().named_parameters()}
    with pytest.raises(ValueError, match="has none of the trained weights"):
        trained(mask)
