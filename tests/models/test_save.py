"""What is saved is what was measured: precision, weights and logits of the folder."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from ilu.models import save
from ilu.models.load import load_model
from ilu.models.save import own_dtype, round_weights, save_model
from ilu.runs.report.card import body
from ilu.runs.report.gather import gather
from ilu.runs.run import Options, run
from ilu.types import LM
from tests.conftest import make_tiny
from tests.models.test_families import FAMILIES
from tests.runs.test_run import recipe

PLAIN = AutoModelForCausalLM.from_pretrained


class NoTokenizer:
    def save_pretrained(self, folder):
        pass


def lm_of(model) -> LM:
    return LM(model, NoTokenizer())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_folder_has_the_rounded_weights_in_the_wanted_precision(family, dtype, tmp_path):
    torch.manual_seed(0)
    model = FAMILIES[family]().eval()
    wanted = {n: p.detach().to(dtype) for n, p in model.named_parameters()}
    change = round_weights(model, dtype)
    save_model(lm_of(model), tmp_path / "m", dtype=dtype)
    for n, p in model.named_parameters():
        assert p.dtype == torch.float32
        assert torch.equal(p, wanted[n].float())
    stored = load_file(tmp_path / "m" / "model.safetensors")
    assert {x.dtype for x in stored.values()} == {dtype}
    assert json.loads((tmp_path / "m" / "config.json").read_text())["dtype"] == str(dtype)[6:]
    again = PLAIN(tmp_path / "m", dtype="auto")
    assert all(torch.equal(p, wanted[n]) for n, p in again.named_parameters())
    # Half the spacing is the largest error of rounding: 2^-9 of a number in bfloat16.
    limit = {torch.float32: 0.0, torch.bfloat16: 2**-9, torch.float16: 2**-12}[dtype]
    assert (0 < change < limit) if limit else change == 0


def test_tied_weights_are_written_once(tmp_path):
    model = FAMILIES["qwen2-tied"]()
    round_weights(model, torch.bfloat16)
    save_model(lm_of(model), tmp_path / "m", dtype=torch.bfloat16)
    assert "lm_head.weight" not in load_file(tmp_path / "m" / "model.safetensors")


def test_weights_beyond_the_range_of_a_precision_are_refused():
    model = make_tiny()
    with torch.no_grad():
        model.lm_head.weight[0, 0] = 1e6
    with pytest.raises(ValueError, match=r"lm_head.weight has values beyond .*float16.*save_dtype"):
        round_weights(model, torch.float16)


def test_a_weight_that_differs_on_disk_is_an_error_that_names_it(tmp_path, monkeypatch):
    given = save.pretrained

    def other(name, path, **how):
        model = given(name, path, **how)
        with torch.no_grad():
            model.model.layers[1].mlp.up_proj.weight[3, 2] += 1e-4
        return model

    monkeypatch.setattr(save, "pretrained", other)
    with pytest.raises(ValueError, match=r"1 of \d+ weights differ, first model.layers.1.mlp.up_p"):
        save_model(lm_of(make_tiny()), tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_weights_that_were_not_rounded_first_are_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"weights differ, first model.embed_tokens.weight"):
        save_model(lm_of(make_tiny()), tmp_path / "m", dtype=torch.bfloat16)


def test_a_configuration_of_another_model_is_an_error(tmp_path):
    size = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2}  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**size, initializer_range=0.4)).eval()
    model.config.rope_parameters = {"rope_type": "default", "rope_theta": 2.0}
    with pytest.raises(ValueError, match=r"with the same weights its logits differ by"):
        save_model(lm_of(model), tmp_path / "m")


def bfloat16_model(folder, place):
    """The tiny model of ``folder`` in bfloat16."""
    lm = load_model(str(folder / "model"))
    lm.model.bfloat16().save_pretrained(place)
    lm.tokenizer.save_pretrained(place)
    return str(place)


def test_a_precision_is_read_from_the_configuration_or_else_from_the_files(folder, tmp_path):
    place = bfloat16_model(folder, tmp_path / "m")
    assert own_dtype(place) == torch.bfloat16
    config = tmp_path / "m" / "config.json"
    config.write_text(
        json.dumps({k: v for k, v in json.loads(config.read_text()).items() if k != "dtype"})
    )
    assert own_dtype(place) == torch.bfloat16
    assert own_dtype(str(folder / "model")) == torch.float32


@pytest.mark.parametrize("wanted", ["own", "float32"])
def test_a_run_keeps_the_precision_of_its_model_and_measures_what_it_saves(
    wanted, folder, tmp_path
):
    place = bfloat16_model(folder, tmp_path / "m")
    made = recipe(folder, "npo", model=place, lr=1e-3, save_dtype=wanted)
    out = run(made, tmp_path / "run")
    stored = load_file(out.path / "model" / "model.safetensors")
    dtype = torch.bfloat16 if wanted == "own" else torch.float32
    assert {x.dtype for x in stored.values()} == {dtype}
    measured = made.metrics["forget_nll"](load_model(str(out.path / "model"))).value
    assert out.scores("after")["forget_nll"].value == measured
    saving = out.read("saving")
    assert saving["dtype"] == str(dtype)[6:]
    assert (saving["rounding"] > 0) == (wanted == "own")
    text = body(gather([out.path])[0][0])
    assert ("rounded to bfloat16" in text) == (wanted == "own")
    assert f"saved in {saving['dtype']}" in text


def test_a_resumed_run_has_the_same_rounded_weights(folder, tmp_path, monkeypatch):
    place = bfloat16_model(folder, tmp_path / "m")
    made = recipe(folder, "npo", model=place)
    whole = run(made, tmp_path / "whole")
    monkeypatch.setattr("ilu.runs.run.measure", lambda *a: 1 / 0)  # ends after the model is saved
    with pytest.raises(ZeroDivisionError):
        run(made, tmp_path / "cut")
    monkeypatch.undo()
    again = run(made, tmp_path / "cut", Options(resume=True))
    assert again.scores("after") == whole.scores("after")
    assert again.read("model") == whole.read("model")


def test_a_damaged_copy_is_not_what_was_saved(tmp_path):
    save_model(lm_of(make_tiny()), tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    weights = load_file(file)
    save_file({n: x for n, x in weights.items() if "up_proj" not in n}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 2 of its weights"):
        save.pretrained("m", str(tmp_path / "m"), dtype=torch.float32)
