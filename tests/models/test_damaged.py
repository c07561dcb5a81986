"""Model folders that a library cannot read, and tokens that a model lacks: one line each."""

import json
import shutil

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

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
