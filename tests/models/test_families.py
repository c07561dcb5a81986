"""Other architectures than Llama: where the blocks are, tied embeddings, learned positions."""

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from ilu.data.stream import Stream
from ilu.methods.forget.npo import NPO
from ilu.methods.forget.rmu import rmu_recipe
from ilu.models.blocks import context_length
from ilu.models.forward import Frozen, ModelForward
from ilu.models.load import read_weights, set_weights
from ilu.models.load_sharded import skeleton
from ilu.models.save import save_model
from ilu.training.fit import Optim, fit
from ilu.training.objective import Term
from ilu.types import LM, Example
from tests.build import batch
from tests.close import assert_same_to_rounding

SIZE = {
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
FAMILIES = {
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=32, n_embd=16, n_layer=3, n_head=2, n_positions=64)
    ),
    "qwen2-tied": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZE, tie_word_embeddings=True)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZE)),
    "neox": lambda: GPTNeoXForCausalLM(
        GPTNeoXConfig(**{k: v for k, v in SIZE.items() if k != "num_key_value_heads"})
    ),
}


@pytest.fixture(params=FAMILIES)
def model(request):
    torch.manual_seed(0)
    return FAMILIES[request.param]().eval()


def test_a_skeleton_has_no_weights_the_same_buffers_and_the_same_ties(model, tmp_path):
    model.config.save_pretrained(tmp_path)
    found = skeleton(str(tmp_path))
    assert all(p.is_meta for p in found.parameters())
    assert ties(found) == ties(model)
    buffers = dict(model.named_buffers())
    assert [n for n, b in found.named_buffers() if torch.equal(b, buffers[n])] == [*buffers]


def ties(model):
    """Groups of names of one and the same weight."""
    groups: dict[int, list[str]] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(weight), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


class Nothing:
    def save_pretrained(self, folder):
        pass


def test_hidden_is_the_output_of_the_block(model):
    b = batch()
    whole = model(input_ids=b.input_ids, output_hidden_states=True).hidden_states
    assert_same_to_rounding(ModelForward(model).hidden(b, 1), whole[2])
    assert context_length(model) == 64


def test_the_reference_stays_while_the_model_moves(model):
    original = {n: p.detach().clone() for n, p in model.named_parameters()}
    before = ModelForward(model)(batch()).logits.detach()
    examples = [Example([1, 2, 3, i], 1) for i in range(4, 8)]
    stream = {"forget": Stream(examples, 2, 0)}
    fit(model, {"forget": Term(NPO(), on="forget")}, stream, Optim(lr=1e-2, steps=2))
    assert_same_to_rounding(Frozen(model, original)(batch()).logits, before)
    assert not torch.allclose(ModelForward(model)(batch()).logits, before)


def test_weights_survive_a_trip_to_disk(model, tmp_path):
    save_model(LM(model, Nothing()), tmp_path / "m")
    before = ModelForward(model)(batch()).logits.detach()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    set_weights(model, tmp_path / "m")
    assert_same_to_rounding(ModelForward(model)(batch()).logits, before)
    assert len(read_weights(tmp_path / "m")) <= len(model.state_dict())


def test_rmu_trains_the_second_matrix_of_the_mlp_in_every_family(model):
    import re

    pattern = rmu_recipe(layer=1).parameters
    names = [n for n, _ in model.named_parameters() if re.search(pattern, n)]
    assert len(names) == 2
    assert all("mlp" in n and "bias" not in n for n in names)
