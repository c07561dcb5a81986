"""Greedy generation: the same text alone and in a batch, as a plain loop without a cache says."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ilu.evals.metrics.generation import continuations, generate
from ilu.models.load import load_model
from ilu.types import LM
from tests.conftest import make_tiny

PROMPTS = [
    "Ann",
    "Agent Orin was seen near the old mill and",
    "The",
    "Question: Who sleeps? Answer:",
]


@pytest.fixture(scope="module")
def lab() -> LM:
    return load_model("lab")


@pytest.fixture
def bare() -> LM:
    """A random model whose tokenizer knows 32 words and no special token at all."""
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(32)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return LM(make_tiny(), PreTrainedTokenizerFast(tokenizer_object=words))


def plain_loop(lm: LM, prompt: str, count: int) -> str:
    """One prompt, no padding, no cache: the second implementation."""
    ids = list(lm.tokenizer(prompt).input_ids)
    if ids[-1] == lm.tokenizer.eos_token_id:
        ids.pop()
    start = len(ids)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(lm.model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == lm.tokenizer.eos_token_id:
            break
    return lm.tokenizer.decode(ids[start:], skip_special_tokens=True)


def test_batches_give_what_one_prompt_alone_gives_in_the_order_asked(lab):
    alone = [plain_loop(lab, p, 12) for p in PROMPTS]
    assert len(set(alone)) > 1
    for size in (1, 3, 16):
        assert generate(lab, PROMPTS, max_new_tokens=12, batch_size=size) == alone


def test_a_tokenizer_without_special_tokens(bare):
    assert bare.tokenizer.pad_token is None
    assert bare.tokenizer.bos_token is None
    bare.model.generation_config.eos_token_id = None
    prompts = ["w3 w4 w5", "w7"]
    found = generate(bare, prompts, max_new_tokens=9)
    assert found == [plain_loop(bare, p, 9) for p in prompts]
    assert [len(text.split()) for text in found] == [9, 9]


def test_it_stops_at_any_end_of_text(lab, monkeypatch):
    whole = generate(lab, PROMPTS[1:2], max_new_tokens=12)[0]
    ids = lab.tokenizer(whole, add_special_tokens=False).input_ids
    third = next(i for i in ids if i not in ids[:2])
    monkeypatch.setattr(lab.model.generation_config, "eos_token_id", [third, 1])
    (cut, *_) = generate(lab, [PROMPTS[1], PROMPTS[3]], max_new_tokens=12)
    assert cut == lab.tokenizer.decode(ids[: ids.index(third)])
    assert cut


def test_sampling_and_penalties_of_the_model_are_left_out_and_left_alone(bare):
    bare.model.generation_config.eos_token_id = None
    before = generate(bare, ["w3 w4"], max_new_tokens=9)
    own = bare.model.generation_config
    own.repetition_penalty, own.do_sample, own.no_repeat_ngram_size = 50.0, True, 1
    assert generate(bare, ["w3 w4"], max_new_tokens=9) == before
    assert bare.model.generation_config is own
    assert own.repetition_penalty == 50.0


@pytest.mark.parametrize(
    ("prompt", "new", "message"),
    [
        ("w1 " * 60, 5, "a prompt of 60 tokens leaves no room for 5 new ones in the model's 64"),
        ("w1", 0, "max_new_tokens 0"),
        ("", 5, "no tokens to continue"),
    ],
)
def test_what_cannot_be_continued_is_refused(prompt, new, message, bare):
    with pytest.raises(ValueError, match=message):
        generate(bare, [prompt], max_new_tokens=new)
    assert len(generate(bare, ["w1 " * 60], max_new_tokens=4)) == 1


def test_no_prompt_gives_no_text(bare):
    assert continuations(bare, [], max_new_tokens=4) == []
