import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ilu.data.hub import hub_name, load_rows
from ilu.data.multiple_choice import ChoiceRows
from ilu.data.stream import check_lengths
from ilu.data.text import Dataset, Passages, encode_chat
from ilu.models.load import load_model
from ilu.types import Example, Question

ROWS = [{"question": "Who?", "answer": "Me"}, {"question": "Wo ist «Ä»?", "answer": 'Da, "hier"'}]


@pytest.fixture(scope="module")
def tokenizer():
    return load_model("lab").tokenizer


def write(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        quoted = ['"{}","{}"'.format(*(v.replace('"', '""') for v in row.values())) for row in rows]
        path.write_text("\n".join([",".join(rows[0]), *quoted]) + "\n", encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet"])
def test_every_format_gives_the_same_rows(ending, tmp_path):
    assert load_rows(str(write(tmp_path / f"data.{ending}", ROWS))) == ROWS


def test_csv_values_stay_text(tmp_path):
    (tmp_path / "d.csv").write_text("question,answer\nagent,007\n")
    assert load_rows(str(tmp_path / "d.csv")) == [{"question": "agent", "answer": "007"}]


LAYOUTS = [
    ({"text": "Ann sleeps."}, 0),
    ({"prompt": "Ann", "completion": " sleeps."}, 2),
    ({"question": "Who sleeps?", "answer": "Ann"}, None),
]


@pytest.mark.parametrize(("row", "prompt"), LAYOUTS)
def test_layouts_are_found_and_only_answers_take_a_loss(row, prompt, tmp_path, tokenizer):
    (example,) = Dataset(str(write(tmp_path / "d.jsonl", [row])))(tokenizer)
    text = tokenizer.decode(example.ids, skip_special_tokens=True)
    assert all(value.strip() in text for value in row.values())
    if prompt is not None:
        assert example.prompt == prompt
    answer = tokenizer.decode(example.ids[example.prompt :])
    assert answer.replace("<s>", "").removesuffix("</s>").strip() == list(row.values())[-1].strip()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "q", "answer": 0}, "row 2: it has no choices"),
        ({"question": "q", "choices": ["a", "b"], "answer": ["B"]}, "names none of the 2 choices"),
        ({"question": "q", "choices": ["a", "b"], "answer": True}, "names none of the 2 choices"),
    ],
)
def test_every_row_of_questions_is_checked(row, message, tmp_path):
    first = {"question": "q", "choices": ["a", "b"], "answer": "B"}
    with pytest.raises(ValueError, match=message):
        ChoiceRows(str(write(tmp_path / "q.jsonl", [first, row])))()


def test_questions_whose_answers_are_all_in_one_place_are_warned_of(tmp_path):
    rows = [{"question": str(i), "choices": ["a", "b"], "answer": "B"} for i in range(4)]
    with pytest.warns(UserWarning, match="every right answer is B"):
        ChoiceRows(str(write(tmp_path / "q.jsonl", rows)))()
    ChoiceRows(str(tmp_path / "q.jsonl"), form="cloze")()  # which shows no letters
    rows[3]["answer"] = "A"
    ChoiceRows(str(write(tmp_path / "q.jsonl", rows)))()


def test_passages_leave_out_rows_without_text(tmp_path):
    path = write(tmp_path / "t.jsonl", [{"text": "a"}, {"body": "b"}, {"text": " "}, {"text": "c"}])
    assert Passages(str(path))() == ["a", "c"]


def test_chats_use_the_template_and_train_on_the_last_message(tmp_path, tokenizer):
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    source = Dataset(str(write(tmp_path / "d.jsonl", [{"messages": turns}])))
    with pytest.raises(ValueError, match="no chat template"):
        source(tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    try:
        (example,) = source(tokenizer)
        # The space is part of the first token of the answer, as in any text.
        assert tokenizer.decode(example.ids[: example.prompt]).endswith("assistant:")
        assert tokenizer.decode(example.ids[example.prompt :]) == " ho\n"
    finally:
        tokenizer.chat_template = None


@pytest.mark.parametrize(
    "day",
    [
        "{% if not date_string is defined %}{% set date_string = strftime_now('%d') %}{% endif %}"
        "{{ date_string }}",
        "{{ strftime_now('%d %b %Y') }}",
    ],
)
def test_a_template_that_asks_for_the_day_gets_the_same_every_day(day, tokenizer, monkeypatch):
    """Llama 3's writes it into the system prompt: the tokens would have another hash tomorrow."""
    template = day + ": {% for m in messages %}{{ m.content }} {% endfor %}"
    monkeypatch.setattr(tokenizer, "chat_template", template)
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    assert tokenizer.decode(encode_chat(turns, tokenizer).ids).startswith("26 Jul 2024: hi ho")


def test_columns_can_be_named(tmp_path, tokenizer):
    path = str(write(tmp_path / "d.jsonl", [{"q": "Who?", "a": "Ann", "text": "other"}]))
    (example,) = Dataset(path, {"prompt": "q", "completion": "a"})(tokenizer)
    assert tokenizer.decode(example.ids[example.prompt :]).startswith("Ann")
    with pytest.raises(ValueError, match=r"no column 'x'; it has: q, a, text"):
        Dataset(path, {"text": "x"})(tokenizer)


BAD = [
    ("d.jsonl", "", "is empty"),
    ("d.jsonl", '{"a": 1}\n{oops\n', r"line 2 is not JSON"),
    ("d.jsonl", "[1]\n", "is a list, not an object"),
    (
        "d.jsonl",
        '{"body": "x"}\n',
        r"columns body; wanted: messages or prompt\+completion .*text=body",
    ),
    ("d.jsonl", '{"text": "x"}\n{"text": ""}\n', "1 rows have no text, the first is row 2"),
    ("d.csv", "text\n", "is empty"),
    ("d.csv", "text,b\nx\n", "row 2 has another number of fields"),
    ("d.parquet", "no", "is not a Parquet file"),
    ("d.txt", "x", "cannot read files ending in '.txt'"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD)
def test_bad_files_say_what_is_wrong(name, content, message, tmp_path, tokenizer):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        Dataset(str(tmp_path / name))(tokenizer)


def test_a_file_that_is_not_text_or_not_there(tmp_path):
    (tmp_path / "d.jsonl").write_bytes(b'{"text": "\xff"}')
    with pytest.raises(ValueError, match="not UTF-8"):
        load_rows(str(tmp_path / "d.jsonl"))
    with pytest.raises(ValueError, match="does not exist"):
        load_rows(str(tmp_path / "none.jsonl"))


@pytest.mark.parametrize("name", ["nothing", "a/b/c", "../etc/passwd", "a/..", "a/b:c:d:e"])
def test_names_that_are_neither_file_nor_hub_id(name):
    with pytest.raises(ValueError, match="neither a file"):
        hub_name(name)


def test_hub_names_are_taken_apart():
    assert hub_name("org/name") == ("org/name", None, "train")
    assert hub_name("org/name:conf") == ("org/name", "conf", "train")
    assert hub_name("org/name::test") == ("org/name", None, "test")


def test_the_mirror_names_what_it_has(tmp_path, monkeypatch):
    for split in ("train", "test"):
        place = tmp_path / "org/name/main"
        place.mkdir(parents=True, exist_ok=True)
        write(place / f"{split}.jsonl", ROWS[:1])
    monkeypatch.setenv("ILU_HUB", str(tmp_path))
    assert load_rows("org/name") == load_rows("org/name:main:test") == ROWS[:1]
    with pytest.raises(ValueError, match=r"no split 'dev'; it has: test, train"):
        load_rows("org/name:main:dev")
    with pytest.raises(ValueError, match=r"needs a configuration, one of: main"):
        load_rows("org/name:other")
    with pytest.raises(ValueError, match="not in the mirror"):
        load_rows("org/unknown")


def test_truncation_only_when_told(tmp_path, tokenizer):
    path = str(write(tmp_path / "d.jsonl", [{"text": "Ann sleeps near the mill. " * 20}]))
    whole, cut = (Dataset(path, truncate=t)(tokenizer)[0] for t in (None, 7))
    assert len(cut.ids) == 7
    assert cut.ids == whole.ids[:7]
    with pytest.raises(ValueError, match=r"x: 1 of 2 rows are longer than the model's 5 tokens"):
        check_lengths([whole, Example([1], 0)], 5, "x")


def test_choice_questions_by_index_and_letter(tmp_path):
    rows = [
        {"question": "2 + 2?", "choices": ["3", "4"], "answer": 1},
        {"question": "2 + 3?", "choices": ["5", "4"], "answer": "A"},
    ]
    first, second = ChoiceRows(str(write(tmp_path / "c.jsonl", rows)))()
    assert first == Question("2 + 2?\nA. 3\nB. 4\nAnswer:", (" A", " B"), 1)
    assert second.answer == 0
    bad = write(tmp_path / "bad.jsonl", [{**rows[0], "answer": "C"}])
    with pytest.raises(ValueError, match=r"row 1: the answer 'C' names none of the 2"):
        ChoiceRows(str(bad))()


REAL = [
    ("locuslab/TOFU:forget10", 400),
    ("locuslab/TOFU:retain90", 3600),
    ("openai/gsm8k", 7473),
]


@pytest.mark.parametrize(("name", "count"), REAL)
def test_real_datasets_load_from_the_mirror(name, count, hub, tokenizer):
    examples = Dataset(name)(tokenizer)
    assert len(examples) == count
    assert all(0 < e.prompt < len(e.ids) for e in examples)


def test_real_multiple_choice_loads_from_the_mirror(hub):
    questions = ChoiceRows("cais/mmlu:all:test", limit=50)()
    assert len(questions) == 50
    assert all(q.options == (" A", " B", " C", " D") for q in questions)


def test_sentencepiece_gets_no_second_space(stories260k, tmp_path):
    """Tokenized apart, ` A` would be two spaces and an A: a sequence that no text contains."""
    from ilu.data.tokenize import encode_pairs

    tokenizer = load_model(str(stories260k)).tokenizer
    ((head, tail),) = encode_pairs(tokenizer, ["Question: Who? Answer:"], [" A"])
    assert [*head, *tail] == tokenizer("Question: Who? Answer: A").input_ids
    assert tokenizer.convert_ids_to_tokens(tail) == ["\u2581", "A"]


@pytest.mark.parametrize(("truncate", "message"), [(0, "at least 1 token"), (2, "no token left")])
def test_a_truncation_that_leaves_nothing_is_refused(truncate, message, tmp_path, tokenizer):
    path = str(write(tmp_path / "d.jsonl", ROWS))
    with pytest.raises(ValueError, match=message):
        Dataset(path, truncate=truncate)(tokenizer)


def test_a_renamed_column_completes_the_layout(tmp_path, tokenizer):
    path = str(write(tmp_path / "d.jsonl", [{"question": "Who?", "response": "Ann"}]))
    (example,) = Dataset(path, {"answer": "response"})(tokenizer)
    assert tokenizer.decode(example.ids).endswith("Answer: Ann</s>")


def test_numbers_and_empty_prompts_are_data(tmp_path, tokenizer):
    rows = [{"prompt": "", "completion": "Ann"}, {"prompt": "How many?", "completion": 0}]
    first, second = Dataset(str(write(tmp_path / "d.jsonl", rows)))(tokenizer)
    assert first.prompt <= 1
    assert tokenizer.decode(second.ids[second.prompt :]).strip() == "0</s>"


def test_a_spreadsheets_byte_order_mark_is_not_part_of_a_name(tmp_path):
    (tmp_path / "d.csv").write_bytes("\ufefftext\nhello\n".encode())
    assert load_rows(str(tmp_path / "d.csv")) == [{"text": "hello"}]


def test_truncation_drops_rows_whose_prompt_fills_it_and_says_so(tmp_path, tokenizer):
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": p, "completion": " one two"} for p in ("a", "a b c d e f g h")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    longest = len(Dataset(str(path))(tokenizer)[1].ids)
    with pytest.warns(UserWarning, match="1 of 2 rows left out"):
        (kept,) = Dataset(str(path), truncate=longest - 3)(tokenizer)
    assert len(kept.ids) > kept.prompt
