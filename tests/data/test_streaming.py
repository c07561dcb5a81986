"""Data that is too large for memory: the same examples, batches and bytes as data that is not."""

import csv
import json
import os
import resource
import threading
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ilu.attacks.convergence import hold_out
from ilu.data import hub, readers, text, token_cache
from ilu.data.counterparts import InContexts, Refused
from ilu.data.lazy import View, joined
from ilu.data.splits import HalfOfExamples, Part
from ilu.data.stream import Stream, check_lengths, fingerprint, rows_of
from ilu.data.text import Dataset
from ilu.models import reference_cache
from ilu.models.load import load_model
from ilu.recipes.attacks import with_attacks
from ilu.runs.prepare import warn_of_overlap
from ilu.runs.run import Options, run
from ilu.system.distributed import Ranks
from ilu.system.errors import Stopped
from ilu.training.fit import Optim
from ilu.types import Batch, Tokens
from tests.runs.test_run import recipe
from tests.system.test_reliability import bytes_of


@pytest.fixture(scope="module")
def tokenizer():
    return load_model("lab").tokenizer


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A place for tokenized text of this test alone."""
    monkeypatch.setenv("ILU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "examples"


@pytest.fixture
def both(cache, monkeypatch, tokenizer):
    """The examples of a source in memory, and as a view of a file."""

    def read(source):
        found = []
        for limit in (1 << 40, 0):
            monkeypatch.setattr(token_cache, "IN_MEMORY", limit)
            found.append(source(tokenizer))
        whole, view = found
        assert isinstance(whole, list)
        assert isinstance(view, View)
        return whole, view

    return read


def rows_to(path: Path, rows: list[dict[str, str]]) -> str:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            out = csv.DictWriter(file, list(rows[0]))
            out.writeheader()
            out.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def pairs(count: int) -> list[dict[str, str]]:
    """Questions with answers of different lengths."""
    return [
        {"question": f"Who keeps lighthouse {i}?", "answer": "Mara «Ä» Quill. " * (i % 5 + 1)}
        for i in range(count)
    ]


def texts(count: int) -> list[dict[str, str]]:
    return [
        {"text": f"The tide table of day {i} is on the wall. " * (i % 3 + 1)} for i in range(count)
    ]


SHAPES = [
    ("d.jsonl", pairs(70), {}),
    ("d.csv", pairs(70), {}),
    ("d.parquet", pairs(70), {}),
    ("d.jsonl", texts(64), {"truncate": 11}),  # whole blocks
    ("d.jsonl", texts(1), {}),
    ("d.jsonl", [{"q": "Who?", "a": f"Ann {i}"} for i in range(40)],
     {"columns": {"prompt": "q", "completion": "a"}, "count": 33}),
    ("d.jsonl", [{"text": t} for t in ("Ann naps.", " ", "", "Ben sings.")], {"skip_blank": True}),
    ("d.jsonl", [{"prompt": "Ann", "gt": f" sleeps {i}."} for i in range(3)], {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "rows", "settings"), SHAPES)
def test_examples_hashes_and_batches_are_the_same(name, rows, settings, both, tmp_path):
    whole, view = both(Dataset(rows_to(tmp_path / name, rows), **settings))
    assert list(view) == whole
    assert [view[i] for i in range(-len(whole), len(whole))] == [*whole, *whole]
    assert fingerprint(view) == fingerprint(whole)
    size = min(3, len(whole))
    streams = [Stream(examples, size, seed=5) for examples in (whole, view)]
    for k in range(2 * len(whole) // size):
        for ranks in (Ranks(), *(Ranks(rank, size) for rank in range(size))):
            a, b = (rows_of(stream(k), ranks) for stream in streams)
            assert torch.equal(a.input_ids, b.input_ids)
            assert torch.equal(a.labels, b.labels)


def test_parts_of_a_view_are_views_of_the_right_rows(both, tmp_path, tokenizer):
    source = Dataset(rows_to(tmp_path / "d.jsonl", texts(50)))
    whole, view = both(source)
    for cut in (slice(7), slice(40, None), slice(3, 45, 7), slice(None, None, -1), slice(60, 70)):
        assert list(view[cut]) == whole[cut]
        assert isinstance(view[cut], View)
    assert list(view[5:40][3:9]) == whole[5:40][3:9]
    with pytest.raises(IndexError):
        view[50]
    for wrapped in (
        Part(source, 10, 30),
        HalfOfExamples(source, "test"),
        Refused(source, seed=3),
        InContexts(source),
        Refused(Part(source, 10, 30)),
    ):
        expected, found = both(wrapped)
        assert list(found) == expected
    mixed = joined([whole[:5], view[5:20], [], view[20:]])
    assert isinstance(mixed, View)
    assert list(mixed) == whole


def test_what_is_held_out_of_a_view_is_the_same(both, tmp_path):
    whole, view = both(Dataset(rows_to(tmp_path / "d.jsonl", texts(40) + texts(20))))
    (trained, held), (others, same) = (hold_out(examples, 6, seed=1) for examples in (whole, view))
    assert isinstance(others, View)
    assert (list(others), list(same)) == (list(trained), list(held))


def test_what_is_asked_of_all_examples_is_asked_of_a_view(both, tmp_path):
    rows = texts(40)
    whole, view = both(Dataset(rows_to(tmp_path / "d.jsonl", rows)))
    _, other = both(Dataset(rows_to(tmp_path / "e.jsonl", rows[:7] + pairs(0) + rows[:2])))
    longest = max(len(e.ids) for e in whole)
    long = sum(len(e.ids) == longest for e in whole)
    with pytest.raises(ValueError, match=rf"{long} of 40 rows .* longest has {longest}\)"):
        check_lengths(view, longest - 1, "x")
    streams = {"forget": Stream(view, 2, 0), "retain": Stream(other, 2, 0)}
    with pytest.warns(UserWarning, match="^9 retain examples are in the forget set"):
        warn_of_overlap(streams)


# --- The file ------------------------------------------------------------------------------------


def parts_of(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*")) if cache.exists() else []


def test_text_is_tokenized_once_and_found_by_its_content(both, cache, tmp_path, monkeypatch):
    path = rows_to(tmp_path / "d.jsonl", texts(40))
    whole, _ = both(Dataset(path))
    assert len(parts_of(cache)) == 3

    def never(*rest):
        raise AssertionError("tokenized again")

    with monkeypatch.context() as patch:
        patch.setattr(text, "encode_row", never)
        os.utime(path, (0, 0))
        copy = rows_to(tmp_path / "elsewhere.jsonl", texts(40))
        for same in (path, copy):
            assert list(Dataset(same)(load_model("lab").tokenizer)) == whole
    assert len(parts_of(cache)) == 3
    assert len(Dataset(path, truncate=9)(load_model("lab").tokenizer)[0].ids) == 9
    spoken = load_model("lab").tokenizer
    spoken.add_special_tokens({"bos_token": "<new>"})
    assert Dataset(path)(spoken) is not None
    assert len(parts_of(cache)) == 9
    rows_to(tmp_path / "d.jsonl", texts(41))
    assert len(Dataset(path)(load_model("lab").tokenizer)) == 41


def test_small_files_stay_in_memory_and_write_nothing(cache, tmp_path, tokenizer):
    assert isinstance(Dataset(rows_to(tmp_path / "d.jsonl", texts(3)))(tokenizer), list)
    assert not cache.exists()


def test_rows_that_are_left_out_are_told_of_every_time(both, cache, tmp_path, tokenizer):
    rows = [{"prompt": p, "completion": " one two"} for p in ("a", "a b c d e f g h", "b")]
    source = Dataset(rows_to(tmp_path / "d.jsonl", rows), truncate=6)
    with pytest.warns(UserWarning, match="1 of 3 rows left out"):
        whole, view = both(source)
    assert list(view) == whole
    with pytest.warns(UserWarning, match="1 of 3 rows left out"):
        source(tokenizer)


def test_two_that_want_the_same_file_make_it_once(both, cache, tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(token_cache, "IN_MEMORY", 0)
    path = rows_to(tmp_path / "d.jsonl", texts(200))
    made, encode = [], text.encode_row

    def counted(*given):
        made.append(1)
        return encode(*given)

    monkeypatch.setattr(text, "encode_row", counted)
    found = []
    workers = [
        threading.Thread(target=lambda: found.append(list(Dataset(path)(tokenizer))))
        for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found[0] == found[1] == found[2]
    assert len(made) == 200


BAD = [
    ('{"text": "fine"}\n' * 40 + "{oops\n", "line 41 is not JSON"),
    ('{"text": "fine"}\n' * 40 + '{"text": ""}\n', "1 rows have no text, the first is row 41"),
    ('{"text": "fine words"}\n' * 40 + '{"text": "\\u0000"}\n{"text": "1"}\n', None),
    (
        '{"text": "fine"}\n' * 40 + '{"text": 1}\n',
        r"row 41: text is a number \(1\), and must be text",
    ),
    ('{"body": "x"}\n', "has the columns body; wanted"),
    ("\n \n", "is empty: it needs at least one row"),
    ('{"text": "' + "x" * 3000 + '"}\n', "line 1 is longer than 2000 characters"),
]


@pytest.mark.parametrize(("content", "message"), BAD)
def test_bad_rows_are_refused_in_words_and_leave_nothing(
    content, message, cache, tmp_path, tokenizer, monkeypatch
):
    monkeypatch.setattr(token_cache, "IN_MEMORY", 0)
    monkeypatch.setattr(readers, "LARGEST_ROW", 2000)
    (tmp_path / "d.jsonl").write_text(content)
    if message is None:
        assert len(Dataset(str(tmp_path / "d.jsonl"))(tokenizer)) == 42
        return
    with pytest.raises(ValueError, match=message):
        Dataset(str(tmp_path / "d.jsonl"))(tokenizer)
    assert parts_of(cache) == []


@pytest.mark.parametrize(
    ("hashed", "message"),
    [(True, "cannot keep tokenized text .* set ILU_CACHE"), (False, "cannot write a tokenizer")],
)
def test_a_full_disk_is_told_with_a_way_out_and_leaves_nothing(
    hashed, message, cache, tmp_path, tokenizer, monkeypatch
):
    monkeypatch.setattr(token_cache, "IN_MEMORY", 0)
    if hashed:
        monkeypatch.setattr(token_cache, "tokenizer_hash", lambda tokenizer: "known")
    source = Dataset(rows_to(tmp_path / "d.jsonl", texts(400)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(ValueError, match=message):
            source(tokenizer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert parts_of(cache) == []
    assert len(source(tokenizer)) == 400


def test_what_a_kill_left_is_cleared_away(both, cache, tmp_path):
    source = Dataset(rows_to(tmp_path / "d.jsonl", texts(40)))
    whole, _ = both(source)
    (made,) = cache.iterdir()
    token_cache.opened.cache_clear()
    half = made.rename(made.with_name(made.name + ".partial"))
    (half / token_cache.FILE).write_bytes(b"half")
    assert list(both(source)[1]) == whole
    assert list(cache.iterdir()) == [made]


@pytest.mark.parametrize("damage", ["cut", "changed", "no record", "no file"])
def test_a_damaged_file_is_refused(damage, both, cache, tmp_path):
    source = Dataset(rows_to(tmp_path / "d.jsonl", texts(40)))
    both(source)
    (made,) = cache.iterdir()
    token_cache.opened.cache_clear()
    file, content = made / token_cache.FILE, (made / token_cache.FILE).read_bytes()
    if damage == "cut":
        file.write_bytes(content[:-100])
    elif damage == "changed":
        file.write_bytes(content[:900] + bytes([content[900] ^ 1]) + content[901:])
    else:
        (made / (token_cache.RECORD if damage == "no record" else token_cache.FILE)).unlink()
    with pytest.raises(ValueError, match=r"damaged .* delete this folder"):
        both(source)


def test_data_that_changes_under_the_reader_is_refused(cache, tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(token_cache, "IN_MEMORY", 0)
    path, encode = rows_to(tmp_path / "d.jsonl", texts(40)), text.encode_row

    def meddling(*given):
        with Path(path).open("a") as file:
            file.write('{"text": "one more"}\n')
        monkeypatch.setattr(text, "encode_row", encode)
        return encode(*given)

    monkeypatch.setattr(text, "encode_row", meddling)
    with pytest.raises(ValueError, match=r"d.jsonl was changed while it was read"):
        Dataset(path)(tokenizer)
    assert parts_of(cache) == []


# --- Where it comes from -------------------------------------------------------------------------


def test_the_hubs_own_files_are_streamed(both, tmp_path, monkeypatch):
    import datasets

    table = pa.Table.from_pylist(texts(40))
    with pa.ipc.new_stream(str(tmp_path / "d.arrow"), table.schema) as out:
        out.write_table(table)
    found = datasets.Dataset.from_file(str(tmp_path / "d.arrow"))
    monkeypatch.setattr(datasets, "load_dataset", lambda *given, **options: found)
    monkeypatch.setattr(hub, "silent", lambda url: None)
    monkeypatch.delenv(hub.MIRROR, raising=False)
    whole, view = both(Dataset("org/name"))
    assert list(view) == whole == both(Dataset(rows_to(tmp_path / "d.jsonl", texts(40))))[0]


@pytest.mark.parametrize(
    ("name", "lines"),
    [("Salesforce/wikitext:wikitext-2-raw-v1:test", True),
     ("roneneldan/TinyStories:default:validation", False)],
)  # fmt: skip
def test_real_corpora_are_the_same(name, lines, hub, both):
    whole, view = both(Dataset(name, truncate=64, skip_blank=lines))
    assert fingerprint(view) == fingerprint(whole)
    assert len(whole) > 300


def test_a_giant_text_in_a_parquet_file_meets_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "LARGEST_ROW", 1000)
    path = Path(rows_to(tmp_path / "d.parquet", [{"text": "short"}, {"text": "x" * 2000}]))
    with pytest.raises(ValueError, match="row longer than 1000 characters"):
        readers.read_rows(path)


# --- Memory --------------------------------------------------------------------------------------


def peak(make) -> int:
    tracemalloc.start()
    try:
        kept = make()
        assert len(kept)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_memory_does_not_grow_with_the_corpus(ending, cache, tmp_path, tokenizer, monkeypatch):
    rows = [
        {"text": f"{i} The tide table of this day is on the wall of the mill. "}
        for i in range(3200)
    ]
    small, large = (
        Dataset(rows_to(tmp_path / f"{count}.{ending}", rows[:count])) for count in (800, 3200)
    )

    def prepared(source):
        examples = source(tokenizer)
        fingerprint(examples)
        check_lengths(examples, 1000, "x")
        return [Stream(examples, 4, 0)(k) for k in range(2)]

    prepared(small)  # what is imported and remembered once
    held = [peak(lambda source=source: prepared(source)) for source in (small, large)]
    monkeypatch.setattr(token_cache, "IN_MEMORY", 0)
    streamed = [peak(lambda source=source: prepared(source)) for source in (small, large)]
    assert held[1] > 2.5 * held[0]
    assert streamed[1] - streamed[0] < (held[1] - held[0]) / 10
    assert streamed[1] < held[1] / 2


def test_only_so_many_texts_are_remembered(monkeypatch):
    monkeypatch.setattr(reference_cache, "MOST", 2)
    asked: list[int] = []

    def read(batch: Batch) -> Tokens:
        asked.append(len(batch))
        logp = -batch.input_ids[:, 1:].float()
        return Tokens(logp, torch.ones_like(logp, dtype=torch.bool))

    memory = reference_cache.ReferenceCache()
    ids = torch.arange(12).view(4, 3)
    batch = Batch(ids, torch.ones_like(ids), ids)
    for _ in range(2):
        assert torch.equal(memory.tokens(batch, read).logp, -ids[:, 1:].float())
    assert asked == [4, 2]
    assert len(memory.known) == 2


# --- Runs ----------------------------------------------------------------------------------------


def test_a_run_of_streamed_data_has_the_same_bytes_stopped_or_not(
    folder,
    cache,
    tmp_path,
    monkeypatch,
):
    """Five steps over files of four examples: into the third epoch; then an attack."""
    wanted = with_attacks(
        recipe(folder, "npo-ilu", steps=5), ["relearn"], Optim(lr=1e-3, steps=3), batch_size=2
    )
    whole = run(replace(wanted, keep_attacked=True), tmp_path / "whole")
    monkeypatch.setattr(token_cache, "IN_MEMORY", 0)
    streamed = run(replace(wanted, keep_attacked=True), tmp_path / "streamed")
    assert len(list(cache.iterdir())) == 3
    steps: list[int] = []
    stopped = Options(stop=lambda: len(steps) == 3, progress=lambda n, done, of: steps.append(done))
    with pytest.raises(Stopped):
        run(replace(wanted, keep_attacked=True), tmp_path / "cut", stopped)
    cut = run(replace(wanted, keep_attacked=True), tmp_path / "cut", Options(resume=True))
    for other in (streamed, cut):
        assert bytes_of(other.path) == bytes_of(whole.path)
        assert (other.path / "data.json").read_bytes() == (whole.path / "data.json").read_bytes()
        assert (other.path / "recipe.json").read_bytes() == (
            whole.path / "recipe.json"
        ).read_bytes()
