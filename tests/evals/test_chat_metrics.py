"""Every metric of known answers on chats: only the words count, whatever the template writes."""

import json
import math
import re
from itertools import accumulate

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ilu.data.multiple_choice import ChoiceRows
from ilu.data.text import Dataset
from ilu.evals.metrics.generation import end_tokens, generate
from ilu.evals.metrics.likelihood import AnswerNLL
from ilu.evals.metrics.membership import MembershipInference
from ilu.evals.metrics.multiple_choice import option_logps
from ilu.evals.metrics.muse import Membership
from ilu.evals.metrics.tofu import Answers, Replies, texts
from ilu.evals.metrics.verbatim import Verbatim
from ilu.types import LM, Question
from tests.chats import KINDS, byte_level

PAIRS = [("Who?", "Lily wrote it in Paris."), ("Where?", "The river is the Seine."), ("I?", "No.")]


def model_of(tokenizer):
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=256, initializer_range=0.5,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module", params=KINDS)
def lm(request):
    tokenizer = KINDS[request.param]().tokenizer
    return LM(model_of(tokenizer), tokenizer)


@pytest.fixture
def data(tmp_path):
    def write(pairs):
        path = tmp_path / f"{len(pairs)}.jsonl"
        chats = [
            [{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in pairs
        ]
        path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
        return Dataset(str(path))

    return write


def answer_logps(lm, pairs):
    """Log-probability and hit of each token with a letter of the answer.

    Tokens are those of the rendered text; their places are sums of the lengths of their names.
    """
    for question, answer in pairs:
        chat = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        text = lm.tokenizer.apply_chat_template(chat, tokenize=False)
        ids = lm.tokenizer(text, add_special_tokens=False).input_ids
        names = [re.sub("[Ġ▁]", " ", n) for n in lm.tokenizer.convert_ids_to_tokens(ids)]
        joined = "".join(names)
        start, stop = joined.rindex(answer), joined.rindex(answer) + len(answer)
        start -= joined[start - 1] == " "
        ends = list(accumulate(map(len, names)))
        inside = [k for k, n in enumerate(names) if ends[k] > start and ends[k] - len(n) < stop]
        with torch.no_grad():
            logits = lm.model(torch.tensor([ids])).logits[0]
        logp = logits.log_softmax(-1)
        yield (
            [logp[k - 1, ids[k]].item() for k in inside],
            [bool(logits[k - 1].argmax() == ids[k]) for k in inside],
        )


def test_memorisation_and_membership_are_of_the_words(lm, data):
    words = list(answer_logps(lm, PAIRS))
    verbatim = Verbatim(data(PAIRS), max_new_tokens=40)(lm)
    tofu = Answers("x", lambda t: data(PAIRS)(t))  # without wrong answers the truth is not defined
    read = [e.words for e in tofu.source(lm.tokenizer)]
    assert [len(logp) for logp, _ in words] == list(map(len, read))
    exact = [sum(hits) / len(hits) for _, hits in words]
    assert verbatim["verbatim_exact_memorisation"].items == pytest.approx(exact)
    scores = MembershipInference(data(PAIRS), data(PAIRS), share=0.5)(lm)
    mean = [sum(logp) / len(logp) for logp, _ in words]
    assert scores["members_logp"].items == pytest.approx(mean, abs=1e-4)
    lowest = [sorted(logp)[: max(1, len(logp) // 2)] for logp, _ in words]
    by_hand = [sum(least) / len(least) for least in lowest]
    found = Membership(data(PAIRS), data(PAIRS), statistic=lambda x: half(x))(lm)
    assert found["membership_forget"].items == pytest.approx(by_hand, abs=1e-4)


def half(logp):
    kept = sorted(logp.tolist())[: max(1, len(logp) // 2)]
    return sum(kept) / len(kept)


def test_a_model_that_repeats_the_words_is_memorised_whatever_follows_them(lm, data):
    """Extraction strength was 0: the model does not write the line break after its turn."""
    model = model_of(lm.tokenizer)
    examples = data(PAIRS)(lm.tokenizer)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(200):
        loss = torch.zeros(())
        for e in examples:
            ids = torch.tensor([e.ids])
            labels = ids.clone()
            labels[:, : e.prompt] = -100
            loss = loss + model(ids, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if loss < 0.02:
            break
    after = LM(model.eval(), lm.tokenizer)
    scores = Verbatim(data(PAIRS), max_new_tokens=40)(after)
    for name in ("extraction_strength", "exact_memorisation", "rouge", "bleu"):
        assert scores[f"verbatim_{name}"].value == pytest.approx(1.0), name
    nll = AnswerNLL(data(PAIRS))(after).value
    assert nll == pytest.approx(loss.item() / len(PAIRS), abs=0.01)


def test_the_reference_of_rouge_is_what_the_assistant_said(lm, data):
    examples = data(PAIRS)(lm.tokenizer)
    scores = texts(examples, [answer for _, answer in PAIRS], lm.tokenizer)
    assert scores["rouge"] == [1.0, 1.0, 1.0]
    scores = texts(examples, ["Lily", "The river", "assistant"], lm.tokenizer)
    assert scores["rouge"] == [1 / 5, 2 / 5, 0.0]


def test_a_reply_ends_at_the_end_of_a_turn(lm):
    """Also where neither the tokenizer nor the model's settings name it."""
    for configured in (None, 3, [3, 4]):
        lm.model.generation_config.eos_token_id = configured
        ends = {3, 4} if isinstance(configured, list) else {configured} - {None}
        for kind in KINDS.values():
            if (each := kind()).tokenizer.chat_template == lm.tokenizer.chat_template:
                ends |= {lm.tokenizer.convert_tokens_to_ids(each.end), lm.tokenizer.eos_token_id}
        assert end_tokens(lm) == ends
    lm.model.generation_config.eos_token_id = None


def test_a_tokenizer_without_an_end_of_text_ends_no_answer(tmp_path):
    tokenizer = byte_level("<b>", eos=None)
    lm = LM(model_of(tokenizer), tokenizer)
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"prompt": "The capital", "completion": " is Paris."}) + "\n")
    with pytest.warns(UserWarning, match="no token ends the completions .* no end-of-text token"):
        (example,) = Dataset(str(path))(tokenizer)
    assert tokenizer.decode(example.words) == " is Paris."
    assert example.end == 0
    assert len(tokenizer(generate(lm, ["The"], max_new_tokens=5)).input_ids[0]) > 0


def test_a_template_that_ends_no_turn_is_warned_of(tmp_path):
    """GLM ends a turn with the role of the next message."""
    tokenizer = byte_level("<|user|>", "<|assistant|>", "<e>", eos="<e>")
    tokenizer.chat_template = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"question": "Who?", "answer": "Lily"}) + "\n")
    with pytest.warns(UserWarning, match="no token ends .* the chat template writes nothing"):
        (example,) = Dataset(str(path))(tokenizer)
    assert tokenizer.decode(example.ids) == "<|user|>\nWho?<|assistant|>\nLily"


def test_an_option_that_shares_a_token_with_its_prompt_is_scored(tmp_path):
    """No question was scorable: the prompt alone ends with a token of a space."""
    tokenizer = byte_level("<e>", eos="<e>")
    lm = LM(model_of(tokenizer), tokenizer)
    question = Question("The capital of France is ", ("Paris", "Seine"), 0)
    with pytest.warns(UserWarning, match="in 2 of 2 rows the prompt and the completion share"):
        ((paris, seine),) = option_logps(lm, [question], batch_size=2)
    for option, found in (("Paris", paris), ("Seine", seine)):
        ids = tokenizer(f"The capital of France is {option}").input_ids
        first = len(tokenizer("The capital of France is").input_ids)
        with torch.no_grad():
            logp = lm.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        by_hand = sum(logp[k - 1, ids[k]].item() for k in range(first, len(ids)))
        assert found == pytest.approx(by_hand, abs=1e-4)
    assert math.isfinite(paris)
    with pytest.warns(UserWarning, match="1 questions have an option or a prompt without a token"):
        assert None in option_logps(lm, [Question("The", ("", " is"), 0)], batch_size=2)[0]


def test_what_no_metric_reads_is_left_out_and_the_others_stay(tmp_path):
    """The suite ended with: nothing to score."""
    tokenizer = byte_level("<e>", eos="<e>")
    lm = LM(model_of(tokenizer), tokenizer)
    rows = [{"prompt": "東京は", "completion": f"大きい町{i}です"} for i in range(3)]
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.warns(UserWarning, match="is left out: (ROUGE|BLEU) reads words") as told:
        scores = Verbatim(Dataset(str(path)), max_new_tokens=8)(lm)
    assert len(told) == 2
    kept = {"exact_memorisation", "extraction_strength", "refusals"}
    assert scores.keys() == {f"verbatim_{name}" for name in kept}
    with pytest.warns(UserWarning, match="x_rouge is left out"):
        assert Replies("x", Dataset(str(path)), max_new_tokens=8)(lm).keys() == {"x_refusals"}


def test_options_of_a_file_are_text(tmp_path):
    path = tmp_path / "q.jsonl"
    row = {"question": "Who?", "choices": ["Lily", None], "answer": 0}
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=r"q.jsonl, row 1: choice 2 is null, and must be text"):
        ChoiceRows(str(path))()
