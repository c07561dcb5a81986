"""Values at the border of a file: text and chats are read, everything else is refused by name."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ilu.data import token_cache
from ilu.data.chat import encode_chat
from ilu.data.downstream import Problems
from ilu.data.multiple_choice import ChoiceRows
from ilu.data.muse import FewShot
from ilu.data.text import Dataset, Passages
from ilu.data.tofu import Perturbed
from tests.chats import KINDS, byte_level, chatml, with_template

USER, REPLY = {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Lily"}
NAN = float("nan")


def rows_to(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def plain():
    return byte_level("<e>", eos="<e>")


CHATS = [
    {"prompt": [USER], "completion": [REPLY]},
    {"prompt": [USER], "completion": "Lily"},
    {"prompt": "Who?", "completion": [REPLY]},
    {"messages": [USER, {"role": "assistant", "content": [{"type": "text", "text": "Lily"}]}]},
    {"messages": [USER, {"role": "assistant", "content": "Lily", "tool_calls": None}]},
]


@pytest.mark.parametrize("row", CHATS)
def test_lists_of_messages_are_chats(row, tmp_path):
    """They became the text ``[{'role': ...``."""
    tokenizer = chatml()
    (example,) = Dataset(rows_to(tmp_path / "d.jsonl", [row]))(tokenizer)
    assert example == encode_chat([USER, REPLY], tokenizer)


def test_keys_that_parquet_fills_with_null_are_not_keys(tmp_path):
    """In Parquet every message has every key, and a template asks which keys there are."""
    template = (
        "{% for m in messages %}{% if m.tool_calls is defined %}[calls {{ m.tool_calls[0] }}]"
        "{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    )
    tokenizer = with_template(chatml(), template)
    calls = [{**USER, "tool_calls": ["f"]}, {**USER, "tool_calls": None}]
    rows = [{"messages": [call, {**REPLY, "tool_calls": None}]} for call in calls]
    second, first = Dataset(rows_to(tmp_path / "d.parquet", rows))(tokenizer)
    assert first == encode_chat([USER, REPLY], tokenizer)
    assert tokenizer.decode(second.ids).count("[calls f]") == 1


@pytest.mark.parametrize("column", ["answer", "completion"])
def test_of_aliases_the_first_is_the_answer(column, tmp_path, plain, monkeypatch):
    first = {"answer": "question", "completion": "prompt"}[column]
    monkeypatch.setenv("ILU_CACHE", str(tmp_path / "cache"))
    rows = [{first: "Who?", column: value} for value in (["Lily", "Ann"], "Lily")]
    path = rows_to(tmp_path / "d.jsonl", rows)
    for in_memory in (token_cache.IN_MEMORY, 0, 0):  # the last time the cache is read
        monkeypatch.setattr(token_cache, "IN_MEMORY", in_memory)
        with pytest.warns(UserWarning, match="1 rows have a list of several answers, of which"):
            aliases, one = Dataset(path)(plain)
        assert aliases == one


REFUSED = [
    ({"prompt": ["Who?"], "completion": "a"}, "prompt is a list"),
    ({"prompt": "Who?", "completion": {"value": "a"}}, "completion is an object"),
    ({"prompt": "Who?", "completion": True}, "completion is true or false"),
    ({"prompt": NAN, "completion": "a"}, "prompt is nan, which stands for a missing value"),
    ({"prompt": "Who?", "completion": "Li\ud800ly"}, "completion has half of a surrogate pair"),
    ({"prompt": [USER], "completion": [REPLY, USER, REPLY]}, "completion has 3 messages"),
    ({"question": ["a"], "answer": "b"}, "question is a list"),
    ({"question": "Who?", "answer": [None]}, "the first entry of answer is null"),
    ({"text": ["a"]}, "text is a list"),
    ({"messages": "Who?"}, "messages must be a list of objects with role and content"),
    ({"messages": [USER, {"from": "gpt"}]}, "message 2 .* with role and content: it has from"),
    ({"messages": [USER, {**REPLY, "content": None}]}, "the content of message 2 .* is null"),
    ({"messages": [USER, {**REPLY, "content": NAN}]}, "the content of message 2 .* is nan"),
    ({"messages": [{**USER, "content": [{"type": "image"}]}, REPLY]}, "a part of type image"),
    ({"messages": [USER, {**REPLY, "content": ""}]}, "the last message of messages has no text"),
    ({"messages": [USER, {**REPLY, "content": None, "tool_calls": ["f"]}]}, "calls are not read"),
    ({"messages": [USER, REPLY, USER]}, "the last message .* has the role 'user'"),
    ({"messages": [{"role": None, "content": "a"}, REPLY]}, "the role of message 1 .* is null"),
]


@pytest.mark.parametrize(("row", "message"), REFUSED)
def test_other_values_are_refused_with_row_and_column(row, message, tmp_path):
    good = {"messages": [USER, REPLY]} if "messages" in row else dict.fromkeys(row, "a")
    path = rows_to(tmp_path / "d.jsonl", [good, row])
    with pytest.raises(ValueError, match=rf"d.jsonl: row 2: .*{message}"):
        Dataset(path).check()  # before a model is loaded
    with pytest.raises(ValueError, match=rf"d.jsonl: row 2: .*{message}"):
        Dataset(path)(chatml())


def test_bytes_of_parquet_are_no_text(tmp_path, plain):
    path = rows_to(tmp_path / "d.parquet", [{"text": b"the cat"}])
    with pytest.raises(ValueError, match="row 1: text is binary data"):
        Dataset(path)(plain)
    with pytest.raises(ValueError, match="row 1: text is binary data"):
        Passages(path)()


@pytest.mark.parametrize("missing", [None, NAN, ""])
def test_a_missing_value_is_none_of_the_text(missing, tmp_path, plain):
    path = rows_to(tmp_path / "d.jsonl", [{"text": "a b"}, {"text": missing}])
    with pytest.raises(ValueError, match="1 rows have no text, the first is row 2"):
        Dataset(path)(plain)
    assert len(Dataset(path, skip_blank=True)(plain)) == 1
    assert Passages(path)() == ["a b"]


def test_a_row_without_the_column_of_the_prompt_has_an_empty_one(tmp_path, plain):
    rows = [{"prompt": "Who?", "completion": " Lily"}, {"completion": "Lily"}]
    assert Dataset(rows_to(tmp_path / "d.jsonl", rows))(plain)[1].prompt == 0


def test_a_template_that_refuses_a_role_is_the_cause(tmp_path):
    template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    )
    path = rows_to(tmp_path / "d.jsonl", [{"messages": [{**USER, "role": "system"}, USER, REPLY]}])
    cause = "row 1: the chat template refuses .* system, user, assistant: no system role"
    with pytest.raises(ValueError, match=cause):
        Dataset(path)(with_template(chatml(), template))
    broken = with_template(chatml(), "{{ messages[5].content }}")
    with pytest.raises(ValueError, match="row 1: the chat template refuses"):
        Dataset(path)(broken)


def test_a_template_may_rewrite_earlier_messages(tmp_path):
    """Some drop the thoughts of earlier turns. The text is the template's, and so is its prompt."""
    template = (
        "{% for m in messages %}{% if loop.last %}{{ m.content }}<|im_end|>"
        "{% else %}{{ m.content.split('</think>')[-1] }}\n{% endif %}{% endfor %}"
    )
    tokenizer = with_template(chatml(), template)
    chat = [USER, {**REPLY, "content": "<think>so</think>Ann"}, USER, REPLY]
    example = encode_chat(chat, tokenizer)
    assert tokenizer.decode(example.ids) == "Who?\nAnn\nWho?\nLily<|im_end|>"
    assert tokenizer.decode(example.words) == "Lily"


def test_every_reader_of_rows_refuses_what_is_no_text(tmp_path, plain):
    bad = {"question": "Who?", "answer": {"value": "a"}}
    path = rows_to(tmp_path / "d.jsonl", [bad])
    for read in (lambda: Problems(path, None)(), lambda: FewShot(path, path)(plain)):
        with pytest.raises(ValueError, match="row 1: answer is an object"):
            read()
    path = rows_to(tmp_path / "t.jsonl", [{"question": "Who?", "answer": "a",
                                           "perturbed_answer": ["b", None]}])  # fmt: skip
    with pytest.raises(ValueError, match="row 1: answer is null"):
        Perturbed(path)(plain)
    path = rows_to(tmp_path / "c.jsonl", [{"question": "Who?", "choices": ["a", NAN], "answer": 0}])
    with pytest.raises(ValueError, match="row 1: choice 2 is nan"):
        ChoiceRows(path)()


def test_tokens_of_every_kind_of_chat_are_text(tmp_path):
    for make in KINDS.values():
        path = rows_to(tmp_path / "d.jsonl", [{"question": "Who?", "answer": "Lily"}])
        assert Dataset(path)(tokenizer := make().tokenizer) == [
            encode_chat([USER, REPLY], tokenizer)
        ]
