"""Which parameters are weight matrices: what is quantised, pruned and adapted in experts."""

import math
import re

import pytest
import torch
import transformers as t

from ilu.attacks.prune import Prune
from ilu.attacks.quantise import Quantise
from ilu.models.blocks import blocks
from ilu.models.lora import Lora, adapted_layers, adapting, warn_of_coverage
from ilu.models.matrices import share_of_blocks, weight_matrices
from tests.build import batch
from tests.close import assert_same_to_rounding
from tests.models.test_families import FAMILIES, SIZE

LORA = Lora(2, 4.0)
EXPERTS = {**SIZE, "num_local_experts": 4, "num_experts_per_tok": 2}
SPARSE = {
    "mixtral": lambda: t.MixtralForCausalLM(t.MixtralConfig(**EXPERTS)),
    "qwen2-moe": lambda: t.Qwen2MoeForCausalLM(
        t.Qwen2MoeConfig(**SIZE, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24,
                         shared_expert_intermediate_size=24)
    ),
    "gpt-oss": lambda: t.GptOssForCausalLM(t.GptOssConfig(**EXPERTS, head_dim=8)),
    "llama4": lambda: t.Llama4ForCausalLM(
        t.Llama4TextConfig(**EXPERTS, head_dim=8, intermediate_size_mlp=32)
    ),
}  # fmt: skip
TRANSPOSED = {"gpt-oss", "llama4"}


def made(build):
    torch.manual_seed(0)
    model = build().eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.normal_(0, 0.3)
    return model


@pytest.fixture(params=SPARSE)
def sparse(request):
    return request.param, made(SPARSE[request.param])


def test_almost_all_weights_of_the_blocks_are_matrices(sparse):
    _, model = sparse
    assert (
        share_of_blocks(model, weight_matrices(model).keys()) > 0.94
    )  # the biases of tiny experts are many


@pytest.mark.parametrize("family", FAMILIES)
def test_in_a_dense_model_they_are_the_linear_layers_but_the_output(family):
    model = FAMILIES[family]()
    found = {n for n, p in blocks(model).named_parameters() if p.ndim == 2}
    names = [n for n in weight_matrices(model) if "lm_head" not in n]
    assert {n.partition("layers.")[2] or n.partition("h.")[2] for n in names} == found
    assert len(names) == len(weight_matrices(model))


def stacks(name, model):
    """Every matrix of the experts, its rows its outputs, from the equations of the model."""
    for n, p in model.named_parameters():
        if re.search(r"experts\.(gate_up|down)_proj$", n):
            for one in p.detach():
                yield one.T if name in TRANSPOSED else one


def test_each_expert_is_quantised_as_a_linear_layer_is(sparse):
    pytest.importorskip("torchao")
    name, model = sparse
    before = [w.clone() for w in stacks(name, model)]
    Quantise(4, group=8)(model)
    after = [*stacks(name, model)]
    assert len(before) >= 3 * 4 * 2
    for wanted, found in zip(before, after, strict=True):
        rows = wanted.reshape(len(wanted), -1, 8)
        # The scale maps the values of a group to -8 ... 7 without clipping either side.
        scale = torch.maximum(rows.amin(-1).clamp(max=0) / -8, rows.amax(-1).clamp(min=0) / 7)
        codes = (rows / scale[..., None]).round().clamp(-8, 7)
        assert_same_to_rounding(found, (codes * scale[..., None]).reshape(wanted.shape))


def test_pruning_zeroes_the_smallest_half_of_every_expert(sparse):
    name, model = sparse
    before = [w.clone() for w in stacks(name, model)]
    Prune(0.5)(model)
    for was, is_now in zip(before, stacks(name, model), strict=True):
        kept = was.abs() > was.abs().flatten().kthvalue(was.numel() // 2).values
        assert torch.equal(is_now, was * kept)
    matrices = [p for n, p in model.named_parameters() if n in weight_matrices(model)]
    zeros = sum((p == 0).sum().item() for p in matrices)
    assert math.isclose(zeros / sum(p.numel() for p in matrices), 0.5, abs_tol=0.01)


def test_lora_says_which_share_has_no_adapter(sparse):
    _, model = sparse
    layers = adapted_layers(model, LORA, "")
    with pytest.warns(UserWarning, match=r"LoRA adapts layers with \d+% .*such as .*experts"):
        warn_of_coverage(model, layers, LORA, "")


def test_lora_on_a_dense_model_says_nothing(tiny):
    warn_of_coverage(tiny, adapted_layers(tiny, LORA, ""), LORA, "")


def test_a_router_that_returns_a_pair_has_no_adapter():
    model = made(SPARSE["llama4"])
    before = model(input_ids=batch().input_ids).logits.detach()
    assert not any("router" in n for n in adapted_layers(model, LORA, ""))
    with adapting(model, LORA, "", seed=0) as (adapted, _):
        assert_same_to_rounding(adapted(input_ids=batch().input_ids).logits.detach(), before)


def test_a_subclass_that_returns_the_linear_map_is_adapted():
    size = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = made(lambda: t.FalconForCausalLM(t.FalconConfig(**size, alibi=False)))
    assert len(adapted_layers(model, LORA, "")) == 2 * 4


MAMBA = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}


def test_lora_on_mamba_adapts_the_layers_that_it_calls():
    # dt_proj's weight is read without calling the layer; PEFT refuses out_proj, which kernels read.
    model = made(lambda: t.MambaForCausalLM(t.MambaConfig(**MAMBA)))
    found = {n.rpartition(".")[2] for n in adapted_layers(model, LORA, "")}
    assert found == {"in_proj", "x_proj"}
    with adapting(model, LORA, "", seed=0) as (adapted, pattern):
        loss = adapted(input_ids=batch().input_ids, labels=batch().input_ids).loss
        loss.backward()
        grads = [p.grad for n, p in adapted.named_parameters() if re.search(pattern, n)]
        assert len(grads) == 2 * 2 * 2
        assert all(g is not None for g in grads)
