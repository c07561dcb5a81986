"""Tiny random models of many architectures, from the configurations of Transformers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ilu.models.load import load_tokenizer

SMALL: Mapping[str, Any] = {
    "hidden_size": 32, "n_embd": 32, "d_model": 32, "intermediate_size": 48, "ffn_dim": 48,
    "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 128, "num_experts": 4, "num_local_experts": 4,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}  # fmt: skip
"""Sizes by the names that configurations have for them; each takes those that it has."""
HEADS = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 8}
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
          "v_head_dim": 8, "num_key_value_heads": 4}  # fmt: skip
GROUPS = {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
TEXT = {**SMALL, "vocab_size": 2048}
VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
          "num_attention_heads": 2, "image_size": 28, "patch_size": 14}  # fmt: skip
OWN: Mapping[str, Mapping[str, Any]] = {
    "bailing_hybrid": {**LATENT, "layer_types": ["linear_attention", "full_attention"]},
    "bamba": {**HEADS, "attn_layer_indices": [1]},
    "codegen": {"rotary_dim": 4},
    "deepseek_v2": {**LATENT, **GROUPS, "head_dim": None},
    "deepseek_v3": {**LATENT, **GROUPS, "head_dim": None},
    "falcon": {"head_dim": None},
    "falcon_h1": {**HEADS, "mamba_d_ssm": 64, "mamba_n_groups": 1},
    "falcon_mamba": {"state_size": 4},
    "gemma4_text": {"vocab_size_per_layer_input": 3000, "head_dim": None},
    "glm4_moe_lite": {**LATENT, **GROUPS, "head_dim": None},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 4},
    "granitemoehybrid": {**HEADS, "layer_types": ["mamba", "attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {**LATENT, **GROUPS, "layer_types": ["linear_attention", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "longcat_flash": {**LATENT, "num_layers": 1},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1, "state_size": 8, "chunk_size": 8},
    "minicpm3": {**LATENT, "head_dim": None},
    "olmo_hybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "qwen3_5_text": {"layer_types": ["linear_attention", "full_attention"]},
    "qwen3_next": {"layer_types": ["linear_attention", "full_attention"]},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "youtu": {**LATENT, "head_dim": None},
    "zaya": {"num_experts_per_tok": 1},
    "zamba2": {"num_hidden_layers": 4, "layer_types": ["mamba", "hybrid"] * 2, "n_mamba_heads": 8,
               "mamba_headdim": 8, "mamba_ngroups": 1, "mamba_d_state": 8, "num_mem_blocks": 1,
               "num_key_value_heads": 4, "hybrid_layer_ids": [1, 3], "head_dim": None},
    "dbrx": {"max_seq_len": 128, "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8},
             "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2,
                            "hidden_size": 32}},
    "gemma3": {"text_config": TEXT, "vision_config": VISION, "mm_tokens_per_image": 1},
}  # fmt: skip
"""What else an architecture needs; None leaves the small value out."""
ARCHITECTURES = [
    "afmoe", "apertus", "arcee", "bailing_hybrid", "biogpt", "bitnet", "bloom", "codegen",
    "cohere", "cohere2", "ctrl", "dbrx", "deepseek_v2", "deepseek_v3", "diffllama", "doge",
    "ernie4_5", "ernie4_5_moe", "exaone4", "falcon", "falcon_h1", "falcon_mamba", "flex_olmo",
    "gemma", "gemma2", "gemma3", "gemma3_text", "gemma4_text", "gpt2", "gpt_neo", "gpt_neox",
    "gpt_oss", "gptj", "granitemoehybrid", "jamba", "lfm2_moe", "llama", "llama4_text", "mamba",
    "mamba2", "minimax", "mixtral", "mpt", "nemotron_h", "openai-gpt", "opt", "phi", "phi3",
    "qwen2_moe", "qwen3_5_text", "qwen3_moe", "qwen3_next", "recurrent_gemma", "rwkv", "xlstm",
    "zamba2",
]  # fmt: skip
"""Decoders of text among the causal LMs of Transformers."""


def configuration(name: str, tokenizer: Any) -> Any:
    """The tiny configuration of an architecture."""
    from transformers import AutoConfig

    usual: Any = AutoConfig.for_model(name)
    known = {*usual.to_dict(), *usual.attribute_map}
    sizes = {k: v for k, v in SMALL.items() if k in known} | dict(OWN.get(name, {}))
    return AutoConfig.for_model(
        name, **{k: v for k, v in sizes.items() if v is not None}, vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=0,
    )  # fmt: skip


def make_model(name: str, folder: Path) -> nn.Module:
    """Save a random model with the lab's tokenizer. Its predictions are far from uniform."""
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer("lab")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(configuration(name, tokenizer))
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.add_(torch.randn_like(p) * 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model
