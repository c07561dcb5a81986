"""Soft prompts: where the vectors are, what they change, and what they learn from."""

import pytest
import torch

from ilu.attacks.prompting.prompts import answered
from ilu.attacks.prompting.softprompt import SoftPrompt, optimised, soft_logps, soft_loss
from ilu.data.splits import OtherQuestions, SampledQuestions
from ilu.data.tokenize import encode_pairs
from ilu.lab.sources import Facts
from ilu.models.load import load_model, weights_hash
from ilu.recipes.attacks import Attacker
from ilu.recipes.probes import probes
from ilu.recipes.suite_request import SuiteRequest
from ilu.training.fit import Optim

AGENTS = Facts("agents")
ASKED, TRAIN = SampledQuestions(AGENTS, 12), OtherQuestions(AGENTS, 12, 8)


@pytest.fixture(scope="module")
def lm():
    return load_model("lab")


def read_alone(lm, head, tail, vectors):
    """Second derivation: one text as embeddings, without hooks, padding or batches."""
    embed = lm.model.get_input_embeddings().weight
    begin, *rest = head
    assert begin == lm.tokenizer.bos_token_id
    inputs = torch.cat([embed[torch.tensor([begin])], vectors, embed[torch.tensor(rest + tail)]])
    logits = lm.model(inputs_embeds=inputs[None]).logits[0]
    logps = logits.log_softmax(-1)[len(head) + len(vectors) - 1 : -1]
    return logps[torch.arange(len(tail)), torch.tensor(tail)]


@torch.no_grad()
def test_the_vectors_stand_between_the_beginning_of_the_text_and_the_question(lm):
    draw = torch.Generator().manual_seed(3)
    vectors = 0.3 * torch.randn(3, 128, generator=draw)
    questions = ASKED()[:3]
    found = soft_logps(lm, questions, vectors, batch_size=5)
    for q, row in zip(questions, found, strict=True):
        for option, value in zip(q.options, row, strict=True):
            ((head, tail),) = encode_pairs(lm.tokenizer, [q.prompt], [option])
            expected = read_alone(lm, head, tail, vectors).sum()
            assert value == pytest.approx(float(expected), abs=1e-3)
    examples = answered(lm.tokenizer, questions)
    losses = [
        -read_alone(lm, e.ids[: e.prompt], e.ids[e.prompt :], vectors).mean() for e in examples
    ]
    loss = soft_loss(lm, examples, vectors)
    assert float(loss) == pytest.approx(float(torch.stack(losses).mean()), abs=1e-4)


def test_training_lowers_the_loss_and_no_weight_changes():
    lm = load_model("lab-never")
    before = weights_hash(lm.model)
    state = torch.random.get_rng_state()
    settings = SoftPrompt(ASKED, TRAIN, tokens=4, steps=15)
    examples = answered(lm.tokenizer, TRAIN())
    found = optimised(lm, examples, settings)
    assert found.losses[-1] < 0.8 * found.losses[0]
    assert optimised(lm, examples, settings).vectors.equal(found.vectors)
    assert weights_hash(lm.model) == before
    assert all(p.grad is None for p in lm.model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_it_is_measured_on_questions_that_it_did_not_learn_from(lm):
    found = SoftPrompt(ASKED, TRAIN, tokens=2, steps=2)(lm)
    assert found["softprompt_accuracy"].n == 12
    with pytest.raises(ValueError, match="are among those that the attack learns from"):
        SoftPrompt(ASKED, ASKED, tokens=2, steps=2)(lm)


def test_the_number_of_vectors_is_part_of_the_name():
    (group,) = probes(SuiteRequest(limit=12), ["softprompt:3"]).values()
    assert group.group.tokens == 3
    assert list(probes(SuiteRequest(limit=12), ["softprompt:3"])) == ["softprompt"]
    for name, message in (
        ("softprompt:0", "a soft prompt of 0 vectors"),
        ("softprompt:many", "give a number of vectors"),
    ):
        with pytest.raises(ValueError, match=message):
            probes(SuiteRequest(limit=12), [name])
    with pytest.raises(ValueError, match="softprompt and softprompt:3: one softprompt at a time"):
        probes(SuiteRequest(limit=12), ["softprompt", "softprompt:3"])
    with pytest.raises(ValueError, match="leaves the weights as they are: it is for `probe`"):
        Attacker(optim=Optim(lr=1e-3, steps=1))("softprompt:8")
