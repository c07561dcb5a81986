"""The folder of a PEFT adapter as a model: it is merged into its base when it is loaded."""

import json

import pytest
import torch
from safetensors.torch import load_file

from ilu.models.load import fingerprint_model, load_model
from ilu.models.stored import StoredWeights
from ilu.runs.run import run
from tests.build import batch
from tests.close import assert_same_to_rounding
from tests.runs.test_run import recipe

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")
TARGET = "model.layers.1.mlp.down_proj"


@pytest.fixture
def adapter(folder, tmp_path, monkeypatch):
    """An adapter of one layer of the tiny model, without a tokenizer of its own."""
    monkeypatch.setenv("ILU_CACHE", str(tmp_path / "cache"))
    base = load_model(str(folder / "model")).model
    config = peft.LoraConfig(r=2, lora_alpha=6.0, target_modules=[TARGET])
    torch.manual_seed(3)
    adapted = peft.get_peft_model(base, config)
    torch.nn.init.normal_(adapted.get_submodule(f"base_model.model.{TARGET}").lora_B.default.weight)
    adapted.peft_config["default"].base_model_name_or_path = str(folder / "model")
    adapted.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def by_hand(folder, adapter):
    """The base weights with alpha / rank B A added to one of them."""
    weights = load_file(folder / "model" / "model.safetensors")
    found = load_file(adapter / "adapter_model.safetensors")
    a, b = (found[f"base_model.model.{TARGET}.lora_{x}.weight"] for x in "AB")
    weights[f"{TARGET}.weight"] = weights[f"{TARGET}.weight"] + 6 / 2 * b @ a
    return weights


def test_an_adapter_is_loaded_as_its_base_model_with_the_update_added(folder, adapter):
    with pytest.warns(UserWarning, match=r"is a PEFT adapter of .*: it was merged into that model"):
        lm = load_model(str(adapter))
    wanted = by_hand(folder, adapter)
    for name, p in lm.model.named_parameters():
        assert_same_to_rounding(p, wanted[name])
    assert not any("lora" in name for name, _ in lm.model.named_modules())
    base = load_model(str(folder / "model"))
    assert len(lm.tokenizer) == len(base.tokenizer)
    logits = [m.model(input_ids=batch().input_ids).logits for m in (lm, base)]
    assert (logits[0] - logits[1]).abs().max() > 1e-2 * logits[1].abs().max()
    stored = StoredWeights(adapter.parent / "cache" / "models" / next(
        p.name for p in (adapter.parent / "cache" / "models").iterdir() if p.is_dir()))  # fmt: skip
    assert torch.equal(stored.rows(f"{TARGET}.weight", 0, 16),
                       lm.model.get_submodule(TARGET).weight)  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*is a PEFT adapter", "ignore:the gradient of the forget")
@pytest.mark.parametrize("rank", [0, 2])
def test_a_run_on_an_adapter_saves_the_whole_model_that_it_measured(
    rank, folder, adapter, tmp_path
):
    made = recipe(folder, "npo", model=str(adapter), lora_rank=rank)
    out = run(made, tmp_path / "run")
    files = {path.name for path in (out.path / "model").iterdir()}
    assert "model.safetensors" in files
    assert not any("adapter" in name for name in files)
    measured = made.metrics["forget_nll"](load_model(str(out.path / "model"))).value
    assert measured == out.scores("after")["forget_nll"].value
    assert out.read("data")["model"] == fingerprint_model(str(adapter))


def test_another_adapter_or_base_is_another_model(folder, adapter):
    before = fingerprint_model(str(adapter))
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**settings, "lora_alpha": 12.0}))
    assert fingerprint_model(str(adapter)) != before


def test_a_base_model_that_is_not_there_is_named(adapter):
    file = adapter / "adapter_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "base_model_name_or_path": "./nowhere"}))
    with pytest.raises(
        ValueError, match=r"base model './nowhere' of the adapter .* not on this ma"
    ):
        load_model(str(adapter))


def test_an_adapter_that_changes_no_weights_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ILU_CACHE", str(tmp_path / "cache"))
    base = load_model(str(folder / "model")).model
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    adapted = peft.get_peft_model(base, config)
    adapted.peft_config["default"].base_model_name_or_path = str(folder / "model")
    adapted.save_pretrained(tmp_path / "prompt")
    with pytest.raises(ValueError, match="kind PROMPT_TUNING changes no weights of the model"):
        load_model(str(tmp_path / "prompt"))
