"""``ilu plan`` on other architectures than Llama."""

import pytest
import transformers as t

from ilu.cli.plan import choices
from ilu.models.load import load_model
from ilu.system.distributed import ALONE
from tests.models.test_families import FAMILIES
from tests.models.test_matrices import MAMBA
from tests.runs.test_run import recipe

RWKV = {"hidden_size": 16, "attention_hidden_size": 16, "intermediate_size": 32}


def saved(model, place):
    model.save_pretrained(place)
    load_model("lab").tokenizer.save_pretrained(place)
    return str(place)


def test_a_saving_that_a_model_cannot_have_is_left_out(folder, tmp_path):
    # GPT-2's layers cannot have 4 bits: this was an error about a flag that was not given.
    made = recipe(folder, "npo", model=saved(FAMILIES["gpt2"](), tmp_path / "m"))
    names = [row.settings for row in choices(made, 64, 2**40, ALONE)]
    assert names[0] == "as given"
    assert any(name.endswith("--lora-rank 16") for name in names)
    assert not any("quantise-base" in name for name in names)


@pytest.mark.parametrize(
    "model",
    [
        lambda: t.MambaForCausalLM(t.MambaConfig(**MAMBA)),
        lambda: t.RwkvForCausalLM(t.RwkvConfig(vocab_size=32, num_hidden_layers=2, **RWKV)),
    ],
)
def test_a_model_without_attention_is_an_error_that_says_what_to_do(model, folder, tmp_path):
    made = recipe(folder, "npo", model=saved(model(), tmp_path / "m"))
    with pytest.raises(ValueError, match=r"cannot be predicted: .*`steps` 1.*cost.json"):
        list(choices(made, 64, 2**40, ALONE))
