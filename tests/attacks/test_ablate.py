"""Directional ablation: the projection, and that hooks and folded weights are the same model."""

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, Olmo2Config, OlmoConfig

from ilu.attacks.ablate import (
    Ablate,
    ablated,
    ablating,
    check_removed,
    direction,
    fold,
    mean_states,
    writers,
)
from ilu.attacks.prompting.ablation import Ablation
from ilu.data.splits import OtherQuestions, SampledQuestions
from ilu.evals.metrics.multiple_choice import Choice
from ilu.lab.sources import Documents, Facts
from ilu.models.forward import ModelForward
from ilu.models.load import load_model
from ilu.recipes.attacks import Attacker
from ilu.recipes.settings import AttackSettings
from ilu.training.fit import Optim
from ilu.types import LM, Batch, Example
from tests.command import in_process


def ids(vocabulary=64):
    return torch.randint(3, vocabulary, (3, 9), generator=torch.Generator().manual_seed(0))


def test_the_projection_is_what_the_formula_says():
    """By hand: (I - r r^T) h with r = (3, 4) / 5 and h = (1, 2) is h - 2.2 r."""
    r = direction(torch.tensor([4.0, 5.0]), torch.tensor([1.0, 1.0]))
    assert r.tolist() == pytest.approx([0.6, 0.8])
    h = torch.tensor([[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]])
    expected = torch.tensor([[1 - 2.2 * 0.6, 2 - 2.2 * 0.8], [0.0, 0.0], [0.0, 0.0]])
    assert torch.allclose(ablated(h, r), expected, atol=1e-6)
    matrix = torch.eye(2) - r[:, None] * r[None]
    assert torch.allclose(ablated(h, r), h @ matrix.T, atol=1e-6)
    with pytest.raises(ValueError, match="no direction differs"):
        direction(torch.ones(2), torch.ones(2))


def test_hooks_and_folded_weights_give_the_same_logits_on_the_lab():
    lm = load_model("lab")
    lm.model.double()
    tokens = ids(1900)
    r = torch.nn.functional.normalize(torch.randn(128, dtype=torch.float64), dim=0)
    with torch.no_grad():
        plain = lm.model(tokens).logits
        with ablating(lm.model, r):
            hooked = lm.model(tokens).logits
        assert torch.equal(lm.model(tokens).logits, plain)
        fold(lm.model, r)
        folded = lm.model(tokens).logits
    assert (hooked - plain).abs().max() > 0.1
    assert torch.allclose(hooked, folded, atol=1e-10)


SIZE = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIGS = {
    "gpt2": GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2, tie_word_embeddings=False),
    "olmo": OlmoConfig(**SIZE, intermediate_size=32, tie_word_embeddings=False),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_other_families_are_folded_as_well(name):
    """GPT-2 has transposed matrices, biases and positions that are added."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name]).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    assert len(writers(model)) == 4
    r = torch.nn.functional.normalize(torch.randn(16, dtype=torch.float64), dim=0)
    with torch.no_grad():
        with ablating(model, r):
            hooked = model(ids()).logits
        fold(model, r)
        assert torch.allclose(model(ids()).logits, hooked, atol=1e-10)


def test_a_model_that_normalises_after_its_layers_is_refused():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(Olmo2Config(**SIZE, intermediate_size=32)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    r = torch.nn.functional.normalize(torch.randn(16), dim=0)
    fold(model, r)
    lm = LM(model, None)
    with pytest.raises(ValueError, match="or normalises after them"):
        check_removed(lm, [Example(each, 0) for each in ids().tolist()], r)


def test_means_are_over_all_real_tokens():
    """Against the definition: text by text, without padding."""
    lm = load_model("lab")
    examples = Documents("agents", stop=2)(lm.tokenizer)
    found = mean_states(lm, examples, batch_size=3)
    for layer in (0, 5):
        states = [
            ModelForward(lm.model).hidden(Batch(one, torch.ones_like(one), one), layer)[0]
            for one in (torch.tensor([e.ids]) for e in examples)
        ]
        assert torch.allclose(found[layer], torch.cat(states).mean(0), atol=1e-4)


def test_the_attack_removes_the_difference_of_the_means():
    lm = load_model("lab")
    attack = Attacker(optim=Optim(lr=1e-3, steps=1))("ablate:2")
    assert attack == Ablate(Documents("agents", stop=20), Documents("people", stop=20), 2)
    assert len(attack.data(lm)) == 160

    def gap():
        parts = (source(lm.tokenizer) for source in (attack.forget, attack.retain))
        forget, retain = (mean_states(lm, part, 16)[2] for part in parts)
        return forget - retain

    before = gap()
    reached: list[str] = []
    attack(lm, reached=reached.append, progress=lambda done, total: None)
    assert reached == ["end"]
    r = before / before.norm()
    assert float((gap() @ r).abs()) < 1e-4 * float(before.norm())


def test_the_probe_leaves_the_weights_and_chooses_on_other_questions():
    lm = load_model("lab")
    agents = Facts("agents")
    probe = Ablation(
        SampledQuestions(agents, 12), OtherQuestions(agents, 12, 8), SampledQuestions(
            Facts("people"), 8)
    )  # fmt: skip
    before = Choice(SampledQuestions(agents, 12))(lm).value
    found = probe(lm)
    assert set(found) == {"ablate_accuracy", "ablate_choice"}
    assert found["ablate_choice"].value in range(6)
    assert found["ablate_accuracy"].n == 12
    assert Choice(SampledQuestions(agents, 12))(lm).value == before


def test_what_is_wrong_is_said_before_a_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("ilu.runs.prepare.load_model", None)
    words = ("attack", "lab", "--suite", "lab", "--attack", "ablate:6", "--out", "x")
    done = in_process(words, tmp_path)
    assert done.returncode == 2
    assert "layer 6 is out of range: the model has 6 blocks" in done.stderr
    by = Attacker(optim=Optim(lr=1e-3, steps=1), settings=AttackSettings(forget="mine.jsonl"))
    with pytest.raises(ValueError, match=r"attack 'ablate:1': .*set `retain`"):
        by("ablate:1")
