"""Packed rows: what padded ones give, or a refusal; never anything else."""

from dataclasses import replace

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    MistralConfig,
    MistralForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
)

from ilu.methods.retain.likelihood import NLL
from ilu.methods.robust.ilu import Penalty, ScaleGradient, Square
from ilu.methods.robust.sam import SAM
from ilu.models.forward import ModelForward
from ilu.models.packing import attending_to_each_text, packed, spread
from ilu.runs.run import run
from ilu.training.fit import Optim
from ilu.training.objective import Term
from tests.build import batch, shorten
from tests.close import apart, assert_same_to_rounding
from tests.conftest import make_tiny
from tests.models.test_families import FAMILIES, SIZE
from tests.runs.test_run import recipe
from tests.training.test_stepping import FORGET, TWO, trained

OTHERS = {
    "gemma2, which caps scores": lambda: Gemma2ForCausalLM(Gemma2Config(**SIZE, head_dim=8)),
    "bloom, which adds to scores": lambda: BloomForCausalLM(
        BloomConfig(vocab_size=32, hidden_size=16, n_layer=2, n_head=2)
    ),
}
UNEVEN = shorten(shorten(batch(), row=0, by=5), row=1, by=1)


def read(model, pack):
    with attending_to_each_text(model, pack):
        forward = ModelForward(model, packed=pack)
        return forward.tokens(UNEVEN).logp, forward.hidden(UNEVEN, 1)


@pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)
def test_a_packed_row_gives_what_its_texts_give(make):
    torch.manual_seed(0)
    model = make().eval()
    (tokens, states), (wanted, padded) = read(model, True), read(model, False)
    assert_same_to_rounding(tokens, wanted)
    kept = UNEVEN.attention_mask.bool()
    assert_same_to_rounding(states[kept], padded[kept])
    assert states[~kept].abs().max() == 0


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_attention_that_cannot_be_kept_within_a_text_is_refused(make):
    torch.manual_seed(0)
    model = make().eval()
    own = model.config._attn_implementation
    with pytest.raises(ValueError, match="`pack`: the attention of"):
        read(model, True)
    assert model.config._attn_implementation == own


def test_no_padding_is_read():
    inputs = packed(UNEVEN)
    assert inputs["input_ids"].shape == (1, int(UNEVEN.attention_mask.sum()))
    assert inputs["cu_seq_lens_q"].tolist() == [0, 3, 10, 18]
    assert inputs["position_ids"][0, :5].tolist() == [0, 1, 2, 0, 1]
    torch.testing.assert_close(
        spread(inputs["input_ids"], UNEVEN), UNEVEN.input_ids * UNEVEN.attention_mask
    )


CASES = {
    "two passes": (TWO, {}),
    "recompute": (TWO, {"recompute": True}),
    "micro-batches": (TWO, {"micro_batch": 2}),
    "offloaded": (TWO, {"offload_reference": True}),
    "SAM": ({**TWO, "forget": replace(FORGET, rule=SAM(0.1))}, {}),
    "the logits reading": ({**TWO, "i": Term(ScaleGradient(), "other", rule=Square())}, {}),
    "the gradient reading": ({**TWO, "i": Term(NLL(), "other", rule=Penalty())}, {}),
}


@pytest.mark.parametrize(("objective", "settings"), CASES.values(), ids=CASES)
def test_training_moves_the_same_way(objective, settings):
    optim = Optim(lr=1e-3, steps=3, **settings)
    model, rows = trained(objective, optim)
    other, seen = trained(objective, replace(optim, pack=True))
    for a, b in zip(rows, seen, strict=True):
        assert b == pytest.approx(a, rel=2e-3)
    start = make_tiny().state_dict()
    assert apart(model.state_dict(), other.state_dict(), start) < 1e-2
    assert other.config._attn_implementation == model.config._attn_implementation == "sdpa"


WINDOWED = {
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZE, sliding_window=4)),
    "llama4, in chunks": lambda: Llama4ForCausalLM(
        Llama4TextConfig(**SIZE, head_dim=8, attention_chunk_size=4, num_local_experts=2,
                         intermediate_size_mlp=32, attn_temperature_tuning=False)
    ),
    "qwen2-moe, in the mask alone": lambda: Qwen2MoeForCausalLM(
        Qwen2MoeConfig(**SIZE, layer_types=["sliding_attention"] * 3, sliding_window=4,
                       use_sliding_window=True, num_experts=2, num_experts_per_tok=1)
    ),
}  # fmt: skip


@pytest.mark.parametrize("make", WINDOWED.values(), ids=WINDOWED)
def test_windows_end_where_they_do_in_padded_batches(make):
    torch.manual_seed(0)
    model = make().eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    (tokens, _), (wanted, _) = read(model, True), read(model, False)
    assert_same_to_rounding(tokens, wanted)


def test_attention_that_counts_from_the_beginning_of_the_row_is_refused():
    model = WINDOWED["llama4, in chunks"]().eval()
    model.config.attn_temperature_tuning = True
    with pytest.raises(ValueError, match="`pack`: the attention of Llama4ForCausalLM"):
        read(model, True)


def test_running_out_of_memory_is_not_blamed_on_attention(monkeypatch, tiny):
    def full(model):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("ilu.models.packing.read_packed", full)
    with pytest.raises(torch.OutOfMemoryError):
        read(tiny, True)
    assert tiny.config._attn_implementation == "sdpa"


def test_a_refusal_leaves_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("ilu.models.packing.gives", lambda model, alone: False)
    with pytest.raises(ValueError, match="`pack`: the attention of"):
        run(recipe(folder, "npo", pack=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_it_is_a_flag(folder):
    assert recipe(folder, "npo", pack=True).optim.pack
    assert not recipe(folder, "npo").optim.pack
