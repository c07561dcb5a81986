"""Files as people have them: arrays, compressed files, long fields, columns that are not read."""

import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ilu.data import readers
from ilu.data.hub import load_rows
from ilu.data.readers import is_data_file
from ilu.data.text import Dataset
from ilu.recipes.user_data import dataset
from tests.chats import byte_level

ROWS = [{"question": "Who?", "answer": "Lily"}, {"question": "Wo, «Ä»?", "answer": "Da"}]


@pytest.fixture(scope="module")
def plain():
    return byte_level("<e>", eos="<e>")


def zstd(content: bytes) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(content)
    return out.getvalue().to_pybytes()


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table(rows):
    quoted = [",".join(f'"{v}"' for v in row.values()) for row in rows]
    return "\n".join(["question,answer", *quoted, ""]).encode()


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("before", ["", "\n \n", "\ufeff"])
def test_an_array_of_objects_is_rows(indent, before, tmp_path):
    path = tmp_path / "d.json"
    path.write_text(before + json.dumps(ROWS, indent=indent), encoding="utf-8")
    assert load_rows(str(path)) == ROWS


def test_an_object_over_several_lines_is_one_row(tmp_path):
    path = tmp_path / "d.json"
    path.write_text(json.dumps(ROWS[0], indent=1))
    assert load_rows(str(path)) == ROWS[:1]


BAD = [
    ("[]", "is empty"),
    ('[{"a": 1}, 2]', "item 2 is a int, not an object"),
    ('[{"a": 1},', "is not JSON .*: write one array of objects, or one object per line"),
    ('{"a": 1}\n{oops}\n', "line 2 is not JSON"),
    ("{\n", "is not JSON"),
    ("oops\n", "line 1 is not JSON"),
]


@pytest.mark.parametrize(("content", "message"), BAD)
def test_other_arrays_say_what_is_wrong(content, message, tmp_path):
    path = tmp_path / "d.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_rows(str(path))


def test_an_array_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "LARGEST_ARRAY", 40)
    path = tmp_path / "d.json"
    path.write_text(json.dumps(ROWS))
    with pytest.raises(ValueError, match="longer than 40 characters: write one object per line"):
        load_rows(str(path))


@pytest.mark.parametrize(("pack", "end"), [(gzip.compress, ".gz"), (zstd, ".zst")])
@pytest.mark.parametrize(
    ("name", "content"), [("d.jsonl", lines(ROWS)), ("d.json", json.dumps(ROWS).encode()),
                          ("d.json", lines(ROWS)), ("d.csv", table(ROWS))]
)  # fmt: skip
def test_compressed_files_have_the_same_rows(name, content, pack, end, tmp_path, plain):
    path, packed = tmp_path / name, tmp_path / f"{name}{end}"
    path.write_bytes(content)
    packed.write_bytes(pack(content))
    assert load_rows(str(packed)) == ROWS
    assert Dataset(str(packed))(plain) == Dataset(str(path))(plain)
    assert is_data_file(packed)


@pytest.mark.parametrize("end", [".gz", ".zst"])
def test_damaged_or_endless_compressed_files_are_refused(end, tmp_path, monkeypatch):
    pack = gzip.compress if end == ".gz" else zstd
    path = tmp_path / f"d.jsonl{end}"
    path.write_bytes(b"no such format")
    with pytest.raises(ValueError, match=r"is not a (gzip|zstd) file that can be read"):
        load_rows(str(path))
    path.write_bytes(pack(lines([{"text": "a" * 90_000}] * 9)))
    monkeypatch.setattr(readers, "LARGEST_FILE", 100_000)
    monkeypatch.setattr(readers, "LARGEST_RATIO", 1)
    with pytest.raises(ValueError, match="unpacks to more than 100000 bytes"):
        load_rows(str(path))


def test_the_limit_of_a_field_is_that_of_a_row(tmp_path, monkeypatch):
    """The library's own is 131,072 characters: it called such a file no CSV file."""
    path, text = tmp_path / "d.csv", "word " * 40_000
    path.write_text(f'text\n"{text}"\n')
    assert load_rows(str(path)) == [{"text": text}]
    monkeypatch.setattr(readers, "LARGEST_ROW", 5000)
    try:
        with pytest.raises(ValueError, match="has a row longer than 5000 characters"):
            load_rows(str(path))
    finally:
        csv.field_size_limit(131_072)


def test_every_format_has_the_same_limit(tmp_path, monkeypatch):
    """It was that of a field in CSV, and none in an array or in lists of messages."""
    rows = [{"prompt": "a" * 300, "completion": ["b" * 300]}]
    (tmp_path / "d.jsonl").write_bytes(lines(rows))
    (tmp_path / "d.json").write_text(json.dumps(rows))
    (tmp_path / "d.csv").write_bytes(table([{"question": "a" * 300, "answer": "b" * 300}]))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    for name in ("d.jsonl", "d.json", "d.csv", "d.parquet"):
        assert len(load_rows(str(tmp_path / name))) == 1
    monkeypatch.setattr(readers, "LARGEST_ROW", 500)
    for name in ("d.jsonl", "d.json", "d.csv", "d.parquet"):
        with pytest.raises(ValueError, match=r"longer than 500 characters"):
            load_rows(str(tmp_path / name))


def test_columns_that_are_not_read_are_named_once(tmp_path, plain):
    path = tmp_path / "d.jsonl"
    path.write_bytes(lines([{**row, "topic": "x", "hint": "y"} for row in ROWS]))
    with pytest.warns(UserWarning, match="these columns are not read: topic, hint") as told:
        Dataset(str(path))(plain)
    assert len(told) == 1
    Dataset(str(path), {"question": "question", "answer": "hint"})(plain)  # the user has chosen


TWO_WAYS = [
    ({"text": "Who?", "labels": "Lily"}, "question with its answer in labels"),
    ({"text": "Who?", "output": "Lily"}, "question with its answer in output"),
    ({"text": "a", "question": "Who?", "answer": "b"}, r"as question\+answer or as text"),
    ({"prompt": "a", "completion": "c", "text": "b"}, r"as prompt\+completion or as text"),
]


@pytest.mark.parametrize(("row", "message"), TWO_WAYS)
def test_columns_that_can_be_read_in_two_ways_are_asked_for(row, message, tmp_path, plain):
    path = tmp_path / "d.jsonl"
    path.write_bytes(lines([row]))
    for read in (Dataset(str(path)).check, lambda: Dataset(str(path))(plain)):
        with pytest.raises(ValueError, match=message):
            read()


def test_the_answer_to_that_question_is_read(tmp_path, plain):
    path = tmp_path / "d.jsonl"
    path.write_bytes(lines([{"text": "Who?", "labels": "Lily"}]))
    (pair,) = dataset(str(path), ("question=text", "answer=labels"), None)(plain)
    assert plain.decode(pair.words) == " Lily"
    (alone,) = dataset(str(path), ("text=text",), None)(plain)
    assert plain.decode(alone.ids) == "Who?"
    path.write_bytes(lines([{"text": "Who?", "label": 1}]))
    with pytest.warns(UserWarning, match="not read: label"):  # a class is no answer
        Dataset(str(path))(plain)
