"""GGUF files as models: written here by the ``gguf`` library, and converted into the cache."""

import json
import shutil
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ilu.models import gguf as ours
from ilu.models.load import fingerprint_model, load_model, read_weights
from ilu.models.named import check_name, full_name, model_path
from ilu.models.save import save_model
from ilu.system.atomic import file_hash

gguf = pytest.importorskip("gguf", reason="gguf is not installed")

PROJECTIONS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
TEMPLATE = "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}{% endfor %}"


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ILU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def lab():
    return load_model("lab")


@pytest.fixture(scope="module")
def model(lab):
    """A random Llama of two layers, with half as many key heads as query heads."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(lab.tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
        bos_token_id=0, eos_token_id=1, tie_word_embeddings=False,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def interleaved(weight, heads):
    """The order of rows in which llama.cpp keeps queries and keys."""
    rows = weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1)
    return np.ascontiguousarray(rows.swapaxes(1, 2).reshape(weight.shape))


def stored_as(name, weight, config):
    """Name and rows of a weight in GGUF."""
    if name in OUTSIDE:
        return OUTSIDE[name], weight
    _, _, block, *rest, _ = name.split(".")
    place = ".".join(rest)
    heads = {"self_attn.q_proj": config.num_attention_heads,
             "self_attn.k_proj": config.num_key_value_heads}.get(place)  # fmt: skip
    turned = interleaved(weight, heads) if heads else weight
    return f"blk.{block}.{PROJECTIONS[place]}.weight", turned


def write(path, model, tokenizer, *, kind=None, architecture="llama", extra=(), parts=0):
    """A GGUF file of a model; ``kind`` quantises the matrices."""
    config, out = model.config, gguf.GGUFWriter(path, architecture)
    out.add_name("tiny")
    out.add_block_count(config.num_hidden_layers)
    out.add_context_length(config.max_position_embeddings)
    out.add_embedding_length(config.hidden_size)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_rope_freq_base(10000.0)
    out.add_vocab_size(config.vocab_size)
    if parts:
        out.add_uint16("split.count", parts)
    stored = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    vocabulary = sorted(stored["vocab"], key=stored["vocab"].get)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list(vocabulary)
    out.add_token_types([3 if t in ("<s>", "</s>") else 1 for t in vocabulary])
    out.add_token_merges([" ".join(pair) for pair in stored["merges"]])
    out.add_bos_token_id(0)
    out.add_eos_token_id(1)
    out.add_chat_template(
        "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}{% endfor %}"
    )
    for name, weight in model.state_dict().items():
        there, rows = stored_as(name, weight.numpy(), config)
        if kind is not None and rows.ndim == 2:
            out.add_tensor(there, gguf.quantize(rows, kind), raw_dtype=kind)
        else:
            out.add_tensor(there, rows)
    for name in extra:
        out.add_tensor(name, np.ones(8, np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory, model, lab):
    return write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", model, lab.tokenizer)


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(2, 40)[None]).logits


def test_a_gguf_file_is_the_model_that_it_was_written_from(file, model, lab, tmp_path, capfd):
    """Also as the only file of a folder. Weights are float32, and saving needs nothing special."""
    loaded = load_model(str(file))
    assert torch.equal(logits(loaded.model), logits(model))
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert not hasattr(loaded.model.config, "quantization_config")
    text = "Velunor lives in a tower."
    assert loaded.tokenizer(text, add_special_tokens=False).input_ids == lab.tokenizer(
        text, add_special_tokens=False
    ).input_ids  # fmt: skip
    assert loaded.tokenizer.chat_template == TEMPLATE
    save_model(loaded, tmp_path / "saved")
    again = load_model(str(tmp_path / "saved"))
    assert torch.equal(logits(again.model), logits(model))
    assert again.tokenizer.chat_template == loaded.tokenizer.chat_template
    folder = tmp_path / "only"
    folder.mkdir()
    shutil.copy(file, folder / "other-name.gguf")
    assert torch.equal(logits(load_model(str(folder)).model), logits(model))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["Q8_0", "F16", "Q4_1", "BF16"])
def test_quantised_weights_are_turned_into_the_floats_that_they_mean(kind, model, lab, tmp_path):
    kind = gguf.GGMLQuantizationType[kind]
    path = write(tmp_path / "q.gguf", model, lab.tokenizer, kind=kind)
    found = load_model(str(path)).model.state_dict()
    for name, weight in model.state_dict().items():
        rounded = weight.numpy()
        if rounded.ndim == 2:
            rounded = gguf.dequantize(gguf.quantize(rounded, kind), kind)
            assert not np.array_equal(rounded, weight.numpy())
        assert found[name].dtype == torch.float32
        assert np.array_equal(found[name].numpy(), rounded), name


def test_a_file_is_converted_once_whatever_its_name(file, cache, tmp_path, monkeypatch):
    first = model_path(str(file))
    assert Path(first).is_relative_to(cache)
    monkeypatch.setattr(ours, "convert", lambda *_: pytest.fail("converted again"))
    shutil.copy(file, tmp_path / "copy.gguf")
    assert model_path(str(tmp_path / "copy.gguf")) == first
    found = fingerprint_model(str(file))
    assert found["tiny.gguf"] == file_hash(file)
    assert found["model.safetensors"] == file_hash(Path(first) / "model.safetensors")
    assert full_name(str(file)) == str(file.resolve())
    monkeypatch.setattr(ours, "CONVERSION", ours.CONVERSION + 1)
    with pytest.raises(pytest.fail.Exception, match="converted again"):
        model_path(str(file))
    assert not list(cache.rglob("*.partial"))


def test_two_processes_convert_one_file_once(file, cache):
    context = get_context("spawn")
    with context.Pool(2) as pool:
        folders = pool.map(model_path, [str(file)] * 2)
    assert folders[0] == folders[1]
    assert len(list((cache / "models").glob("[!.]*"))) == 1
    assert len(read_weights(Path(folders[0]))) == 21


def damaged(folder, file):
    (folder / "m.gguf").write_bytes(file.read_bytes()[:2000])


def several(folder, file):
    for name in ("a.gguf", "b.gguf", "mmproj-a.gguf"):
        shutil.copy(file, folder / name)


CASES = {
    "several": (several, "has 2 GGUF files .a.gguf, b.gguf.: give one of the files"),
    "damaged": (damaged, "m.gguf is damaged or incomplete"),
    "text": (lambda f, _: (f / "m.gguf").write_text("hello there"), "is not a GGUF file"),
    "part": (
        lambda f, file: shutil.copy(file, f / "m-00001-of-00002.gguf"),
        "one part of a split GGUF: merge the parts",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_folder_that_cannot_be_read_is_refused_in_a_line(case, file, tmp_path, monkeypatch):
    monkeypatch.setattr(ours, "convert", lambda *_: pytest.fail("nothing heavy before the error"))
    make, message = CASES[case]
    folder = tmp_path / "model"
    folder.mkdir()
    make(folder, file)
    with pytest.raises(ValueError, match=message):
        check_name(str(folder))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"architecture": "clip"}, "has the architecture 'clip'; readable from GGUF: bloom"),
        ({"parts": 3}, "one part of a split GGUF"),
        ({"extra": ("rope_freqs.weight",)}, "scales positions by rope_freqs.weight"),
    ],
)
def test_what_transformers_would_misread_is_refused(given, message, model, lab, tmp_path):
    path = write(tmp_path / "m.gguf", model, lab.tokenizer, **given)
    with pytest.raises(ValueError, match=message):
        load_model(str(path))


def test_a_quantisation_without_a_rule_is_refused(file, monkeypatch):
    monkeypatch.setattr(ours, "dequantised", lambda kind: kind.name != "F32")
    with pytest.raises(ValueError, match=r"tensors of the type F32, which gguf cannot turn into"):
        check_name(str(file))
    monkeypatch.undo()
    kinds = gguf.GGMLQuantizationType
    assert ours.dequantised(kinds.Q4_K)
    assert not ours.dequantised(kinds.Q8_K)


def test_a_file_that_has_more_than_the_model_is_reported(model, lab, tmp_path):
    path = write(tmp_path / "m.gguf", model, lab.tokenizer, extra=("blk.0.unknown.weight",))
    with pytest.warns(UserWarning, match=r"8 of \d+ weights of m.gguf have no place in Llama"):
        load_model(str(path))


def test_weights_are_missing(model, lab, tmp_path, monkeypatch):
    kept = {k: v for k, v in model.state_dict().items() if "layers.1.mlp.up" not in k}
    monkeypatch.setattr(model, "state_dict", lambda: kept)
    path = write(tmp_path / "m.gguf", model, lab.tokenizer)
    with pytest.raises(ValueError, match=r"cannot convert m.gguf: .*lacks 1 weights"):
        load_model(str(path))


def test_a_full_disk_is_an_error_that_says_where(file, monkeypatch, cache):
    def full(file, folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ours, "convert", full)
    with pytest.raises(ValueError, match=r"No space left on device.*set ILU_CACHE"):
        model_path(str(file))
    assert not list(cache.rglob("model*.safetensors"))


def test_there_is_no_such_file_and_a_revision_means_nothing(file, tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*gone.gguf"):
        check_name(str(tmp_path / "gone.gguf"))
    with pytest.raises(ValueError, match="is for a model on the hub"):
        check_name(str(file), "main")
