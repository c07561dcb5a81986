"""The output projections of the MLPs that RMU trains, found by structure in other architectures."""

import re

import pytest
import torch
import transformers as t

from ilu.methods.forget.rmu import rmu_recipe, steered_weights
from ilu.models import mlp
from ilu.models.mlp import mlp_outputs, mlp_outputs_resolved
from ilu.models.stored import skeleton
from ilu.models.weight_names import in_blocks
from tests.models.test_families import FAMILIES, SIZE
from tests.models.test_matrices import MAMBA, SPARSE, made

PLAIN = {k: v for k, v in SIZE.items() if k != "num_key_value_heads"}
GPT = {"vocab_size": 32, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64}
OTHERS = {
    **SPARSE,
    "gptj": lambda: t.GPTJForCausalLM(t.GPTJConfig(**GPT, rotary_dim=4)),
    "falcon": lambda: t.FalconForCausalLM(t.FalconConfig(**PLAIN, alibi=False)),
    "bloom": lambda: t.BloomForCausalLM(
        t.BloomConfig(vocab_size=32, hidden_size=16, n_layer=3, n_head=2)
    ),
    "opt": lambda: t.OPTForCausalLM(
        t.OPTConfig(vocab_size=32, hidden_size=16, ffn_dim=32, num_hidden_layers=3,
                    num_attention_heads=2, word_embed_proj_dim=16, max_position_embeddings=64)
    ),
    "mpt": lambda: t.MptForCausalLM(t.MptConfig(vocab_size=32, d_model=16, n_heads=2, n_layers=3)),
    "rwkv": lambda: t.RwkvForCausalLM(
        t.RwkvConfig(vocab_size=32, hidden_size=16, attention_hidden_size=16, intermediate_size=32,
                     num_hidden_layers=3)
    ),
    "dbrx": lambda: t.DbrxForCausalLM(
        t.DbrxConfig(vocab_size=32, d_model=16, n_heads=2, n_layers=3, max_seq_len=64,
                     attn_config={"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8},
                     ffn_config={"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2,
                                 "hidden_size": 16})
    ),
    "square": lambda: t.LlamaForCausalLM(t.LlamaConfig(**{**SIZE, "intermediate_size": 16})),
    "dense-first": lambda: t.DeepseekV3ForCausalLM(
        t.DeepseekV3Config(**SIZE, n_routed_experts=4, num_experts_per_tok=2, n_group=1,
                           topk_group=1, moe_intermediate_size=24, first_k_dense_replace=1,
                           q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4, v_head_dim=8,
                           qk_nope_head_dim=4)
    ),
}  # fmt: skip
WANTED = {
    "mixtral": [r"model.layers.N.mlp.experts.down_proj"],
    "qwen2-moe": ["model.layers.N.mlp.experts.down_proj",
                  "model.layers.N.mlp.shared_expert.down_proj.weight"],
    "gpt-oss": ["model.layers.N.mlp.experts.down_proj"],
    "llama4": ["model.layers.N.feed_forward.experts.down_proj",
               "model.layers.N.feed_forward.shared_expert.down_proj.weight"],
    "gptj": ["transformer.h.N.mlp.fc_out.weight"],
    "falcon": ["transformer.h.N.mlp.dense_4h_to_h.weight"],
    "bloom": ["transformer.h.N.mlp.dense_4h_to_h.weight"],
    "opt": ["model.decoder.layers.N.fc2.weight"],
    "mpt": ["transformer.blocks.N.ffn.down_proj.weight"],
    "rwkv": ["rwkv.blocks.N.feed_forward.value.weight"],
    "dbrx": ["transformer.blocks.N.ffn.experts.mlp.w2"],
    "square": ["model.layers.N.mlp.down_proj.weight"],
}  # fmt: skip


@pytest.mark.parametrize("name", WANTED)
def test_the_output_projections_of_every_block(name):
    wanted = [each.replace("N", str(i)) for i in (1, 2) for each in WANTED[name]]
    assert sorted(mlp_outputs(made(OTHERS[name]), [1, 2])) == sorted(wanted)


@pytest.mark.parametrize("name", [*WANTED, *FAMILIES])
def test_a_model_without_storage_has_the_same(name, tmp_path):
    model = made({**OTHERS, **FAMILIES}[name])
    model.config.save_pretrained(tmp_path)
    assert mlp_outputs(skeleton(str(tmp_path)), [1, 2]) == mlp_outputs(model, [1, 2])


def test_dense_and_expert_blocks_of_one_model_are_all_trained():
    model = made(OTHERS["dense-first"])
    found = mlp_outputs_resolved(model, rmu_recipe(layer=2).parameters)
    names = [n for n, _ in model.named_parameters() if re.search(found, n)]
    assert sorted(names) == [
        "model.layers.0.mlp.down_proj.weight",
        "model.layers.1.mlp.experts.down_proj",
        "model.layers.1.mlp.shared_experts.down_proj.weight",
        "model.layers.2.mlp.experts.down_proj",
        "model.layers.2.mlp.shared_experts.down_proj.weight",
    ]


def test_the_weights_of_a_block_are_those_of_its_number_and_no_later_one():
    """CTRL numbers the layers of its MLP: the third of block 0 was taken for block 2."""
    config = t.CTRLConfig(vocab_size=32, n_embd=16, dff=24, n_layer=3, n_head=2, n_positions=64)
    model = made(lambda: t.CTRLLMHeadModel(config))
    names = [n for n, _ in model.named_parameters()]
    found = [n for n in names if re.search(in_blocks([2]), n)]
    assert found == [n for n in names if n.startswith("transformer.h.2.")]
    assert "transformer.h.0.ffn.2.weight" in names


@pytest.mark.parametrize("family", FAMILIES)
def test_the_pattern_of_usual_models_stays_as_it_is(family):
    pattern = steered_weights(2)
    assert mlp_outputs_resolved(made(FAMILIES[family]), pattern) == pattern
    assert mlp_outputs_resolved(made(FAMILIES[family]), "q_proj") == "q_proj"


def test_the_trial_tells_attention_and_convolutions_from_mlps_without_their_names(monkeypatch):
    monkeypatch.setattr(mlp, "by_name", None)
    kinds = {"layer_types": ["conv", "full_attention", "conv"], "block_auto_adjust_ff_dim": False}
    model = made(lambda: t.Lfm2ForCausalLM(t.Lfm2Config(**SIZE, **kinds)))
    found = mlp_outputs(model, [0, 1, 2])
    assert found == [f"model.layers.{i}.feed_forward.w2.weight" for i in range(3)]


def test_a_model_without_mlps_is_an_error_with_its_names():
    model = made(lambda: t.MambaForCausalLM(t.MambaConfig(**MAMBA)))
    with pytest.raises(ValueError, match=r"no MLP in the blocks 0, 1 of Mamba.*`parameters`.*mix"):
        mlp_outputs_resolved(model, steered_weights(1))


def test_a_multimodal_model_has_the_blocks_of_its_text():
    text = {**SIZE, "head_dim": 8}
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3,
              "num_attention_heads": 2, "image_size": 28, "patch_size": 14}  # fmt: skip
    config = t.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=1)
    torch.manual_seed(0)
    model = t.AutoModelForCausalLM.from_config(config).eval()
    found = mlp_outputs(model, [1])
    assert len(found) == 1
    assert found[0].endswith("layers.1.mlp.down_proj.weight")
    assert "vision" not in found[0]
