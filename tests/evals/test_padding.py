"""Prompts of several lengths: a batch is continued as each prompt is alone, in any architecture."""

import warnings

import pytest
import torch
import transformers as t

from ilu.evals.metrics.generation import continuations
from ilu.models.load import load_model
from ilu.types import LM
from tests.models.test_families import FAMILIES

HEADS = [[5, 6, 7], [9, 8, 7, 6, 5, 4, 3], [11, 2], [3, 9, 12, 4], [2, 11]]
RWKV = {"hidden_size": 16, "attention_hidden_size": 16, "intermediate_size": 32}


def made(build):
    torch.manual_seed(0)
    model = build().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.4)
    return LM(model, load_model("lab").tokenizer)


def each_alone(lm):
    """Greedy continuation of every prompt by plain steps of the model, without padding or cache."""
    found: list[str] = []
    for head in HEADS:
        ids = torch.tensor([head])
        for _ in range(6):
            ids = torch.cat(
                [ids, lm.model(input_ids=ids, use_cache=False).logits[:, -1:].argmax(-1)], 1
            )
        found.append(lm.tokenizer.decode(ids[0, len(head) :], skip_special_tokens=True))
    return found


def without_ends(lm):
    lm.model.generation_config.eos_token_id = None
    lm.tokenizer.eos_token = None
    return lm


def test_rwkv_mixes_the_rows_of_a_batch_so_it_continues_one_by_one():
    config = t.RwkvConfig(vocab_size=32, num_hidden_layers=2, **RWKV)
    lm = without_ends(made(lambda: t.RwkvForCausalLM(config)))
    with pytest.warns(UserWarning, match="RwkvForCausalLM continues a prompt in a batch otherwise"):
        found = continuations(lm, HEADS, max_new_tokens=6, batch_size=4)
    assert found == each_alone(lm)
    assert len(set(found)) > 2


@pytest.mark.parametrize("family", FAMILIES)
def test_models_with_attention_are_padded_and_nothing_is_said(family):
    lm = without_ends(made(FAMILIES[family]))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*continues a prompt")
        assert continuations(lm, HEADS, max_new_tokens=6, batch_size=4) == each_alone(lm)
