"""Weights are read from a folder as ``from_pretrained`` loads them, whatever else lies there."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM

from ilu.evals.geometry.task_vectors import grams, grouped
from ilu.models.load import fingerprint_model, load_model, read_weights
from ilu.models.stored import StoredWeights, layout
from ilu.models.weight_files import weight_files
from tests.conftest import make_tiny
from tests.models.test_families import FAMILIES, SIZE


def same_as_loaded(folder) -> None:
    """Compare shapes and values, read in pieces of three rows, with the loaded model."""
    loaded = dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters())
    stored = StoredWeights(folder)
    assert stored.shapes() == {n: tuple(p.shape) for n, p in loaded.items()}
    for name, p in loaded.items():
        rows = [stored.rows(name, i, min(i + 3, len(p))) for i in range(0, len(p), 3)]
        assert torch.equal(torch.cat(rows), p)


def rewrite(folder, change) -> None:
    """Replace the weights of a folder by ``change`` of them."""
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_read_as_it_is_loaded(family, tmp_path):
    FAMILIES[family]().save_pretrained(tmp_path)
    same_as_loaded(tmp_path)


def test_gpt2_has_other_names_on_the_hub(tmp_path):
    FAMILIES["gpt2"]().save_pretrained(tmp_path)
    mask = torch.ones(1, 1, 64, 64).tril()
    rewrite(tmp_path, lambda found: {
        **{n.removeprefix("transformer."): x for n, x in found.items()},
        "h.0.attn.bias": mask,  # a buffer of older versions
    })  # fmt: skip
    same_as_loaded(tmp_path)
    assert layout(tmp_path).sources["transformer.wpe.weight"] == "wpe.weight"


def test_a_copied_head_and_old_buffers_are_as_the_loader_has_them(tmp_path):
    FAMILIES["qwen2-tied"]().save_pretrained(tmp_path)
    rewrite(tmp_path, lambda found: {
        **found,
        "lm_head.weight": found["model.embed_tokens.weight"].clone(),
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
    })  # fmt: skip
    same_as_loaded(tmp_path)


def test_fused_experts_are_read_as_the_model_has_them(tmp_path):
    torch.manual_seed(0)
    MixtralForCausalLM(
        MixtralConfig(**SIZE, num_local_experts=4, num_experts_per_tok=2)
    ).save_pretrained(tmp_path)
    assert layout(tmp_path).sources is None
    same_as_loaded(tmp_path)


def test_pickled_weights_are_read_as_well(tmp_path):
    model = make_tiny()
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    same_as_loaded(tmp_path)
    assert [*fingerprint_model(str(tmp_path))] == ["pytorch_model.bin"]


def test_other_files_of_weights_in_the_folder_are_not_read(tmp_path):
    make_tiny().save_pretrained(tmp_path / "a", max_shard_size="8KB")
    shards = weight_files(tmp_path / "a")
    assert len(shards) > 1
    noise = {n: torch.randn_like(x) for n, x in read_weights(tmp_path / "a").items()}
    for name in ("consolidated", "model-00001-of-00099", "optimizer", "zzz"):
        save_file(noise, tmp_path / "a" / f"{name}.safetensors", {"format": "pt"})
    assert weight_files(tmp_path / "a") == shards
    same_as_loaded(tmp_path / "a")
    assert [*fingerprint_model(str(tmp_path / "a"))] == [shard.name for shard in shards]


def test_the_norm_of_a_task_vector_ignores_other_files(tmp_path):
    model = make_tiny()
    model.save_pretrained(tmp_path / "a")
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.01)
    model.save_pretrained(tmp_path / "b")
    count = sum(p.numel() for p in model.parameters())
    save_file({"model.norm.weight": torch.full((16,), 99.0)}, tmp_path / "b" / "x.safetensors")
    models = {n: StoredWeights(tmp_path / p) for n, p in (("original", "a"), ("unlearned", "b"))}
    total = grouped(grams(models), lambda name: "")[""]
    assert total.sqrt().item() == pytest.approx(0.01 * math.sqrt(count), rel=1e-4)


def test_a_missing_shard_is_named(tmp_path):
    make_tiny().save_pretrained(tmp_path, max_shard_size="8KB")
    first = weight_files(tmp_path)[0]
    first.unlink()
    with pytest.raises(ValueError, match=rf"names {first.name}, which is not there"):
        weight_files(tmp_path)


@pytest.mark.parametrize("method", ["gptq", "awq", "hqq", "quanto", "compressed-tensors"])
def test_of_a_library_the_settings_are_not_called_ours(method, folder, tmp_path):
    """The command line made flags of the names in backticks: ``--pip install``."""
    lm = load_model(str(folder / "model"))
    for part in (lm.model, lm.tokenizer):
        part.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    new = {**config, "quantization_config": {"quant_method": method, "bits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(new))
    with pytest.raises(ValueError, match=r"cannot load model .*was quantised") as error:
        load_model(str(tmp_path))
    assert "`" not in str(error.value)


def test_a_checkpoint_that_needs_a_missing_library_is_refused_in_one_line(folder, tmp_path):
    lm = load_model(str(folder / "model"))
    for part in (lm.model, lm.tokenizer):
        part.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    quantised = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": quantised}))
    with pytest.raises(ValueError, match=r"cannot load model .*bitsandbytes.*was quantised"):
        load_model(str(tmp_path))
