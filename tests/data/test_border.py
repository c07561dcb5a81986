"""The border between prompt and answer: one text, and the words of the answer by their place."""

import json
import warnings

import pytest

from ilu.data.chat import encode_chat, question_ids, question_text
from ilu.data.counterparts import REFUSALS, Refused
from ilu.data.text import Dataset
from ilu.data.tokenize import Marked, encode_pairs, locate
from ilu.types import Example
from tests.chats import KINDS, byte_level, sentencepiece, zephyr

TURNS = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Lily"}]
LONG = "The capital of France is Paris.\nLily wrote it."


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return KINDS[request.param]()


def rows_to(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def text_of(tokenizer, ids):
    return "".join(tokenizer.convert_ids_to_tokens(ids)).replace("▁", " ").replace("Ġ", " ")


@pytest.mark.parametrize("answer", ["Lily", LONG])
def test_the_answer_of_a_chat_is_its_words_and_the_end_of_its_turn(kind, answer):
    """By the tokens of the rendered text, cut where its own characters say."""
    tokenizer = kind.tokenizer
    chat = [TURNS[0], {**TURNS[1], "content": answer}]
    example = encode_chat(chat, tokenizer)
    text = tokenizer.apply_chat_template(chat, tokenize=False)
    whole = tokenizer(text, add_special_tokens=False).input_ids
    assert whole[: len(example.ids)] == example.ids  # as one text
    end = tokenizer.convert_tokens_to_ids(kind.end)
    assert example.ids[-1] == end
    assert end not in example.words
    assert tokenizer.decode(example.words).strip() == answer
    closing = example.ids[len(example.ids) - example.end : -1]
    assert tokenizer.decode(closing).strip() == ""  # Llama 2 writes a space before its end
    prompt = tokenizer.decode(example.ids[: example.prompt])
    assert prompt.endswith(kind.before)
    assert "Lily" not in prompt


def test_a_question_is_put_as_it_is_trained_on(kind):
    for content in ("Lily", LONG):
        example = encode_chat([TURNS[0], {**TURNS[1], "content": content}], kind.tokenizer)
        assert question_ids("Who?", kind.tokenizer) == example.ids[: example.prompt]
    assert question_text("Who?", kind.tokenizer).rstrip(" ").endswith(kind.before)


def test_a_short_end_has_the_loss_of_the_true_text_only(kind):
    example = encode_chat(TURNS, kind.tokenizer)
    assert [example.cut(len(example.ids) - k).end for k in (0, 1)] == [example.end, example.end - 1]
    assert example.without_end().ids == example.ids[: len(example.ids) - example.end]
    assert example.cut(example.prompt + 1).words == example.words[:1]


def test_sentencepiece_gets_no_spurious_space_in_a_chat():
    """Tokenized apart, the answer would begin with a token for a space that the text lacks."""
    tokenizer = zephyr()
    example = encode_chat(TURNS, tokenizer)
    assert "▁" not in tokenizer.convert_ids_to_tokens(example.words)
    assert text_of(tokenizer, example.words) == "Lily"
    llama = KINDS["llama"]().tokenizer
    answer = encode_chat(TURNS, llama).words
    assert text_of(llama, answer) == " Lily"  # one space, as the template writes it


def test_a_template_without_special_tokens_ends_with_its_text():
    tokenizer = byte_level("<e>", eos="<e>")
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}:\n{{ m.content }}\n{% endfor %}"
    assert tokenizer.decode(encode_chat(TURNS, tokenizer).ids) == "user:\nWho?\nassistant:\nLily\n"
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} [stop]\n{% endfor %}"
    example = encode_chat(TURNS, tokenizer)
    assert tokenizer.decode(example.ids[example.prompt :]) == "Lily [stop]"
    assert tokenizer.decode(example.words) == "Lily"


SPLITS = [
    ("The capital of France is ", "Paris", " Paris"),
    ("The capital of France is", " Paris", " Paris"),
    ("The capital of Fra", "nce is Paris", " France is Paris"),
]


@pytest.mark.parametrize("tokenizer", [byte_level("<e>", eos="<e>"), sentencepiece("<s>", "</s>")])
@pytest.mark.parametrize(("prompt", "completion", "trained"), SPLITS)
def test_a_shared_token_counts_to_the_completion(prompt, completion, trained, tokenizer, tmp_path):
    """It had no loss: nothing but the end token was learned of ``is `` and ``Paris``."""
    whole = tokenizer(prompt + completion).input_ids
    path = rows_to(tmp_path / "d.jsonl", [{"prompt": prompt, "completion": completion}])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        (example,) = Dataset(path)(tokenizer)
        ((head, tail),) = encode_pairs(tokenizer, [prompt], [completion])
    assert example.ids == [*whole, tokenizer.eos_token_id]
    assert text_of(tokenizer, example.words) == trained
    assert (head, tail) == (example.ids[: example.prompt], example.words)
    shares = trained != completion
    assert ["share a token" in str(each.message) for each in told] == [True] * 2 * shares


def test_one_warning_has_the_number_of_rows(tmp_path):
    tokenizer = byte_level("<e>", eos="<e>")
    rows = [{"prompt": p, "completion": c} for p, c, _ in SPLITS for _ in range(3)]
    with pytest.warns(UserWarning, match="in 6 of 9 rows the prompt and the completion") as told:
        Dataset(rows_to(tmp_path / "d.jsonl", rows))(tokenizer)
    assert len(told) == 1


class Slow:
    """A tokenizer in Python: it has no characters of tokens."""

    is_fast = False

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.eos_token_id = tokenizer.eos_token_id

    def __call__(self, texts, add_special_tokens=True):
        return self.tokenizer(texts, add_special_tokens=add_special_tokens)


@pytest.mark.parametrize("make", [lambda: byte_level("<e>", eos="<e>"), zephyr])
def test_a_tokenizer_without_characters_finds_the_same_border(make):
    tokenizer = make()
    texts = [Marked(p + c, len(p), len(p + c)) for p, c, _ in SPLITS]
    texts.append(Marked("assistant\nLily\n", 10, 14))
    for special in (False, True):
        fast, slow = (locate(t, texts, special=special) for t in (tokenizer, Slow(tokenizer)))
        assert fast == slow


def test_a_refusal_begins_and_ends_as_the_answer_does(kind, tmp_path):
    path = rows_to(tmp_path / "d.jsonl", [{"messages": TURNS}])
    (example,) = Refused(Dataset(path), seed=3)(kind.tokenizer)
    (refusal,) = example.others
    said = next(text for text in REFUSALS if text in kind.tokenizer.decode(refusal.ids))
    assert refusal == encode_chat([TURNS[0], {**TURNS[1], "content": said}], kind.tokenizer)


def test_the_end_of_a_text_is_no_word_of_it():
    assert Example([1, 2, 3], 1, end=1).words == [2]
    assert Example([1, 2, 3], 1).words == [2, 3]
