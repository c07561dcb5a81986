"""Model folders that a library cannot read, and tokens that a model lacks: one line each."""

import json
import shutil

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

from ilu.models.load import load_model
from tests.chats import chatml


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder whose tokenizer has 60 tokens more than the model."""
    folder, tokenizer = tmp_path_factory.mktemp("whole") / "model", chatml()
    config = LlamaConfig(
        vocab_size=len(tokenizer) - 60, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def changed(whole, folder, name, content):
    shutil.copytree(whole, folder)
    old = folder / name
    old.write_text(json.dumps({**json.loads(old.read_text()), **content}) if content else "{}")
    return str(folder)


DAMAGED = [
    ("tokenizer.json", {}, "cannot load model"),
    ("tokenizer_config.json", {"eos_token": 7}, "eos_token has to be either str"),
    ("config.json", {"hidden_size": "sixteen"}, "'hidden_size' expected int, got str"),
]


@pytest.mark.parametrize(("name", "content", "message"), DAMAGED)
def test_a_damaged_folder_is_one_line(name, content, message, whole, tmp_path, ilu):
    done = ilu("ask", changed(whole, tmp_path / "model", name, content), "Who?")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


BAD = [
    ("config.json", b"[]"),
    ("config.json", b'{"model_type": "llama", "num_hidden_layers": "two"}'),
    ("model.safetensors", b""),
    ("model.safetensors", b'"weights"'),
    ("model.safetensors.index.json", b"{}"),
]
COMMANDS = (
    ["unlearn", "rmu", "--forget=f.jsonl", "--retain=f.jsonl", "--out=run", "--model=bad"],
    ["plan", "npo", "--model=bad"],
    ["vectors", "bad", "bad", "--out=v.json"],
)


@pytest.mark.parametrize(("name", "content"), BAD)
def test_every_command_names_what_is_damaged(name, content, whole, tmp_path, ilu):
    shutil.copytree(whole, tmp_path / "bad")
    if name.endswith("index.json"):
        (tmp_path / "bad/model.safetensors").unlink()
    (tmp_path / "bad" / name).write_bytes(content)
    (tmp_path / "f.jsonl").write_text(json.dumps({"text": "a b"}) + "\n")
    reads_weights = [words for words in COMMANDS if name == "config.json" or words[0] != "plan"]
    for words in reads_weights:
        done = ilu(*words)
        assert done.returncode == 2, words
        assert "Traceback" not in done.stderr, words
        assert done.stderr.startswith("error: "), words


def test_an_error_in_the_code_of_a_model_is_one_line(whole, tmp_path, ilu, monkeypatch):
    """Its own is shown in full, as a traceback."""
    (tmp_path / "f.jsonl").write_text(json.dumps({"text": "a b"}) + "\n")
    words = ["evaluate", str(whole), "--suite=likelihood", "--data=f.jsonl", "--out=s.json"]
    monkeypatch.setattr(modeling_llama, "create_causal_mask", None)
    done = ilu(*words)
    assert done.returncode == 2
    assert "code of the model or of its tokenizer failed with TypeError" in done.stderr
    assert "Traceback" in ilu(*words, "--debug").stderr


def test_a_broken_template_is_one_line(whole, tmp_path, ilu):
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    (folder / "chat_template.jinja").write_text("{% for m in %}")
    done = ilu("ask", str(folder), "Who?")
    assert done.returncode == 2
    assert "error: the chat template refuses messages" in done.stderr


def test_a_prompt_that_is_no_text_is_one_line(whole, ilu):
    done = ilu("ask", str(whole), "a\udcff b")  # as Python reads bytes that are no UTF-8
    assert done.returncode == 2
    assert "the prompt has half of a surrogate pair" in done.stderr


def test_a_prompt_longer_than_a_file_name_is_a_prompt(whole, ilu):
    done = ilu("ask", str(whole), "Who? " * 60, "--no-chat", "--max-new-tokens", "2")
    assert "File name too long" not in done.stderr
    assert done.returncode == 0


def test_a_token_that_the_model_does_not_have_is_named(whole, tmp_path, ilu):
    lm = load_model(str(whole))
    known, unknown = len(lm.tokenizer) - 61, len(lm.tokenizer) - 1
    assert lm.model(torch.tensor([[known]])).logits.isfinite().all()
    name = lm.tokenizer.convert_ids_to_tokens(unknown)
    with pytest.raises(ValueError, match=f"the token '{name}' with id {unknown}, but the model"):
        lm.model(torch.tensor([[known, unknown]]))
    done = ilu("ask", str(whole), name.replace("Ġ", " "), "--no-chat", "--max-new-tokens", "2")
    assert done.returncode == 2
    assert f"id {unknown}, but the model has embeddings of {known + 1} tokens" in done.stderr
