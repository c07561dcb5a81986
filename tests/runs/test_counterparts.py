"""What stands beside forget examples: refusals, introductions, generic labels."""

import json
from dataclasses import dataclass

import pytest
import torch

from ilu.data.counterparts import EXPERT, NOVICE, REFUSALS, InContexts, Refused
from ilu.data.stream import collate, split
from ilu.data.text import Dataset
from ilu.lab.sources import Documents
from ilu.methods.forget.whp import Reinforced
from ilu.models.forward import ModelForward
from ilu.models.load import load_model
from ilu.training.fit import Optim
from ilu.types import Example


@pytest.fixture(scope="module")
def tokenizer():
    return load_model("lab").tokenizer


@pytest.fixture
def asked(tmp_path):
    path = tmp_path / "asked.jsonl"
    path.write_text("".join(json.dumps({"question": f"Who is {n}?", "answer": n}) + "\n"
                            for n in ("Ann", "Ben", "Eve")))  # fmt: skip
    return Dataset(str(path))


def test_a_refusal_follows_the_same_prompt(asked, tokenizer):
    for example in Refused(asked)(tokenizer):
        (refusal,) = example.others
        assert refusal.ids[: refusal.prompt] == example.ids[: example.prompt]
        words = tokenizer.decode(refusal.ids[refusal.prompt :], skip_special_tokens=True).strip()
        assert words in REFUSALS


def test_refusals_differ_and_are_the_same_every_time(asked, tokenizer):
    once, twice = (Refused(Documents("agents"))(tokenizer) for _ in range(2))
    assert once == twice
    assert len({tuple(e.others[0].ids[e.others[0].prompt :]) for e in once}) > 5


def test_a_text_without_prompt_is_refused_after_its_first_half(tokenizer):
    example = Refused(Documents("agents", stop=1))(tokenizer)[0]
    assert example.others[0].prompt == len(example.ids) // 2


def test_introductions_leave_the_same_tokens_to_predict(asked, tokenizer):
    for source in (asked, Documents("agents", stop=2)):
        for example in InContexts(source)(tokenizer):
            predicted = example.ids[max(example.prompt, 1) :]
            for other, text in zip(example.others, (EXPERT, NOVICE), strict=True):
                assert other.ids[other.prompt :] == predicted
                assert f"{text}\n" in tokenizer.decode(other.ids)


def test_counterparts_are_batched_split_and_moved_with_their_examples():
    examples = [Example([1, 2, k], 1, (Example([k, 5], 1), Example([6], 0))) for k in (3, 4)]
    whole = collate(examples)
    assert whole.others[0].input_ids.tolist() == [[3, 5], [4, 5]]
    parts = split(whole, 1)
    assert [p.others[0].input_ids.tolist() for p in parts] == [[[3, 5]], [[4, 5]]]
    assert whole.to(torch.device("cpu")).others[1].labels.tolist() == [[6], [6]]


@dataclass(frozen=True)
class Few:
    """Three documents."""

    def __call__(self, tokenizer):
        return Documents("agents", stop=1)(tokenizer)[:3]


def test_generic_labels_are_where_their_tokens_are(tokenizer):
    """Without reinforcement they are what the model itself finds most likely."""
    made = Reinforced(Few(), "lab", alpha=5.0, optim=Optim(lr=1e-3, steps=0), batch_size=2)
    batch = collate(made(tokenizer))
    first_choice = ModelForward(load_model("lab").model)(batch).logits.argmax(-1)
    labels = batch.others[0].labels[:, 1:]
    assert torch.equal(labels != -100, batch.labels[:, 1:] != -100)
    assert torch.equal(labels[labels != -100], first_choice[labels != -100])


def test_reinforcement_makes_the_labels_generic(tokenizer):
    def labels(steps):
        optim = Optim(lr=1e-3, steps=steps)
        made = Reinforced(Few(), "lab", alpha=5.0, optim=optim, batch_size=2)
        return [e.others[0].ids for e in made(tokenizer)]

    text = [e.ids for e in Few()(tokenizer)]
    known, generic = (
        sum(a == b for x, y in zip(text, labels(steps), strict=True)
            for a, b in zip(x, y, strict=True)) for steps in (0, 10)
    )  # fmt: skip
    assert generic < known
