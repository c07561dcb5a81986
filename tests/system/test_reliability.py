"""What may go wrong on a machine: kills, full disks, damaged files, locks, clocks, threads."""

import errno
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ilu.cli.main import run as command
from ilu.data import hub
from ilu.data.readers import read_rows
from ilu.data.stream import Stream, collate, split
from ilu.evals.score import mean_score
from ilu.methods.masks.storage import MaskFile, load_mask, pack, save_mask, unpack
from ilu.models.load import load_model, read_weights
from ilu.models.save import save_model
from ilu.recipes.attacks import with_attacks
from ilu.runs.run import Options, run
from ilu.runs.run_dir import RunDir
from ilu.system.atomic import new_file, new_folder, write_json
from ilu.system.errors import Stopped
from ilu.system.locks import Busy, alone, lock_of, locked
from ilu.training.checkpoint import Checkpoints
from ilu.training.fit import Optim
from ilu.types import IGNORE, Example
from tests.conftest import make_tiny
from tests.runs.test_run import recipe
from tests.soak.memory import soak

# --- Locks -----------------------------------------------------------------------------------


def test_a_second_writer_is_refused_and_told_who_writes(folder, tmp_path):
    out = tmp_path / "runs" / "mit Leerzeichen é 模型"
    with alone(out), pytest.raises(Busy, match=f"process {os.getpid()} on "):
        run(recipe(folder, "npo"), out)
    assert list(out.parent.iterdir()) == []
    assert run(recipe(folder, "npo"), out).has("done")
    assert list(out.parent.iterdir()) == [out]


def test_a_lock_of_a_killed_process_is_no_obstacle(tmp_path):
    place = tmp_path / "run"
    code = (
        "import sys, time; from pathlib import Path; from ilu.system.locks import alone\n"
        "with alone(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(place)], stdout=subprocess.PIPE)
    assert other.stdout
    assert other.stdout.readline() == b"held\n"
    assert locked(place)
    with pytest.raises(Busy, match=f"process {other.pid}"), alone(place):
        pass
    other.kill()
    other.communicate()
    assert lock_of(place).exists()
    assert not locked(place)
    with alone(place):
        assert locked(place)
    assert not lock_of(place).exists()


def test_who_only_looks_is_no_obstacle(tmp_path):
    """A look takes the lock for a moment, shared; who comes to write in that moment tries again."""
    place = tmp_path / "run"
    looking = os.open(lock_of(place), os.O_RDWR | os.O_CREAT)
    fcntl.flock(looking, fcntl.LOCK_SH)
    assert not locked(place)
    threading.Timer(0.05, os.close, [looking]).start()
    with alone(place):
        assert locked(place)


def test_a_lock_whose_file_has_another_name_now_is_none(tmp_path):
    """NFS renames a file that is open somewhere in place of removing it: its link count stays 1."""
    place = tmp_path / "run"
    waiting, refused = threading.Event(), list[bool]()

    def wait():
        waiting.set()
        with alone(place, wait=True):
            try:
                with alone(place):
                    refused.append(False)
            except Busy:
                refused.append(True)

    with alone(place):
        other = threading.Thread(target=wait)
        other.start()
        waiting.wait()
        time.sleep(0.2)  # it has opened the file and waits for its lock
        os.rename(lock_of(place), tmp_path / ".nfs0001")
    other.join(10)
    assert refused == [True]


# --- Interruptions ---------------------------------------------------------------------------


def attacked(folder):
    once = with_attacks(recipe(folder, "npo"), ["relearn"], Optim(lr=1e-3, steps=8), batch_size=2)
    return replace(once, keep_attacked=True)


def bytes_of(path: Path) -> dict[str, bytes]:
    kept = [path / "train.jsonl", *path.rglob("*.safetensors"), *path.glob("scores/*.json")]
    return {str(p.relative_to(path)): p.read_bytes() for p in kept}


@pytest.mark.parametrize(("at", "every"), [(1, None), (4, None), (7, 3)])
def test_a_stopped_attack_goes_on_to_the_same_bytes(at, every, folder, tmp_path):
    wanted = attacked(folder)
    whole = run(wanted, tmp_path / "whole")
    seen: list[tuple[str, int]] = []

    def progress(name: str, done: int, total: int) -> None:
        seen.append((name, done))

    def stop() -> bool:
        return seen[-1:] == [("npo: relearn", at)]

    cut = tmp_path / "cut"
    with pytest.raises(Stopped):
        run(wanted, cut, Options(save_every=every, progress=progress, stop=stop))
    assert [p.name for p in (cut / "checkpoints/relearn").glob("0*")] == [f"{at:09d}"]
    seen.clear()
    run(wanted, cut, Options(resume=True, progress=progress))
    assert seen[0] == ("npo: relearn", at + 1)
    assert bytes_of(cut) == bytes_of(whole.path)
    assert len(bytes_of(cut)) == 8


def test_a_disk_that_fills_within_a_checkpoint_leaves_the_one_before(folder, tmp_path, monkeypatch):
    """ENOSPC at the second checkpoint; once there is space again the run ends in the same bytes."""
    whole = run(attacked(folder), tmp_path / "whole")
    calls: list[int] = []
    save = Checkpoints.save

    def full(self: Checkpoints, *rest: object) -> None:
        calls.append(1)
        if len(calls) == 2:
            with new_folder(self.path / "000000002") as half:
                (half / "weights.safetensors").write_bytes(b"half")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(self, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Checkpoints, "save", full)
    with pytest.raises(OSError, match="No space"):
        run(attacked(folder), tmp_path / "cut", Options(save_every=1))
    kept = tmp_path / "cut" / "checkpoints"
    assert [p.name for p in kept.iterdir()] == ["000000001"]
    out = run(attacked(folder), tmp_path / "cut", Options(save_every=1, resume=True))
    assert bytes_of(out.path) == bytes_of(whole.path)


@pytest.mark.parametrize("damage", ["truncate", "text", "nan"])
def test_damaged_weights_are_refused_and_nothing_is_written(damage, folder, tmp_path, capsys):
    from safetensors.torch import load_file, save_file

    model = tmp_path / "model"
    model.mkdir()
    for file in (folder / "model").iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    weights = model / "model.safetensors"
    if damage == "nan":
        tensors = load_file(weights)
        tensors["model.norm.weight"][0] = float("nan")
        save_file(tensors, weights, metadata={"format": "pt"})
    else:
        weights.write_bytes(weights.read_bytes()[:999] if damage == "truncate" else b"no weights")
    data = [f"--{n}={folder / n}.jsonl" for n in ("forget", "retain")]
    place = [f"--model={model}", f"--out={tmp_path / 'run'}", "--steps=2", "--batch-size=2"]
    assert command(["unlearn", "npo", *data, *place]) == 2
    said = capsys.readouterr().err.splitlines()[-1]  # behind the progress bars of a library
    assert said.startswith("error: "), said
    assert str(model) in said or "not a number" in said
    assert not (tmp_path / "run").exists()


LITTLE_MEMORY = """
import resource, sys, torch
from pathlib import Path
from ilu.cli.main import run

def limit(space):
    resource.setrlimit(resource.RLIMIT_AS, (space, resource.RLIM_INFINITY))

torch.set_num_threads(1)
unlearn, attack = (line.split("|") for line in sys.argv[1:])
small = [word for word in unlearn[:-1] if not word.startswith("--batch-size")]
run([*small, "--batch-size=2", f"{unlearn[-1]}-first"])  # imports all
run(["nothing"])
pages = int(Path("/proc/self/statm").read_text().split()[0])
for words in (unlearn, attack):
    limit(pages * resource.getpagesize() + 64 * 2**20)
    print(run(words), flush=True)
    limit(resource.RLIM_INFINITY)
    print(run([*words, "--resume"]), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit a process so")
def test_running_out_of_memory_says_what_to_lower_and_the_run_goes_on(folder, tmp_path):
    """64 MiB more than the process has, and a step that needs more than that."""
    rows = "".join(f'{{"text": "{"Tom knows that. " * 4} {i}"}}\n' for i in range(1800))
    (tmp_path / "many.jsonl").write_text(rows)
    many = f"{tmp_path}/many.jsonl"
    small = [f"--model={folder}/model", f"--retain={many}", f"--forget={many}"]
    sizes = ["--batch-size=1600", "--steps=1"]
    unlearn = ["unlearn", "graddiff", *small, *sizes, f"--out={tmp_path}/run"]
    last = ["--keep-models", f"--out={tmp_path}/attacked"]
    attack = ["attack", f"{folder}/model", f"--attack={many}", *sizes, *last]
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY, "|".join(unlearn), "|".join(attack)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.isdigit()] == ["2", "0", "2", "0"]
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3
    for error in errors[1:]:
        assert "out of memory: lower --micro-batch, --batch-size" in error
        assert "ilu plan" in error
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(
    ("offline", "why"), [(True, "HF_HUB_OFFLINE is set"), (False, "no answer")]
)
@pytest.mark.parametrize("what", ["model", "data"])
def test_a_hub_that_cannot_be_reached_is_said_at_once(
    what, offline, why, folder, tmp_path, monkeypatch, capsys
):  # fmt: skip
    """Offline, and at an address that refuses connections; a port that was just free is one."""
    import huggingface_hub
    from huggingface_hub import constants

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(time, "sleep", lambda seconds: waited.append(seconds))
    huggingface_hub.close_session()
    waited: list[float] = []
    model = "some-org/some-model" if what == "model" else f"{folder}/model"
    data = "some-org/some-data" if what == "data" else f"{folder}/forget.jsonl"
    place = [f"--model={model}", f"--forget={data}", f"--retain={data}", f"--out={tmp_path}/run"]
    assert command(["unlearn", "npo", *place, "--steps=1", "--batch-size=2"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: cannot load {'model ' * (what == 'model')}"), said
    assert "ILU_HUB" in said
    assert why in said
    assert sum(waited) < 1
    assert not (tmp_path / "run").exists()


def test_a_dataset_that_may_be_in_the_cache_is_left_to_the_library(tmp_path, monkeypatch):
    asked: list[str] = []
    silence = hub.Silence("no answer", OSError())
    monkeypatch.setattr(hub, "silent", lambda url: asked.append(url) or silence)
    name = hub.hub_name("Some-Org/Some-Data")
    for cache in (tmp_path / "none", tmp_path):
        with pytest.raises(ValueError, match="not in the cache and no answer"):
            hub.check_data_reachable(name, None, cache)
    (tmp_path / "some-org___some-data").mkdir()
    hub.check_data_reachable(name, None, tmp_path)
    assert len(asked) == 2
    assert all("/datasets/Some-Org/Some-Data/resolve/main/README.md" in url for url in asked)


@pytest.mark.parametrize("what", ["forget.jsonl", "model/model.safetensors", "task.jsonl"])
def test_a_file_that_vanishes_after_it_was_looked_at(what, folder, tmp_path, monkeypatch, capsys):
    """Data at its second look, weights when their folder is known, an attack's data at its turn.

    Once the file is back the run is carried out, or goes on.
    """
    place = shutil.copytree(folder, tmp_path / "é 模型")
    shutil.copy(place / "environment.jsonl", place / "task.jsonl")
    attack = what == "task.jsonl"
    files = [f"--forget={place}/forget.jsonl", f"--retain={place}/retain.jsonl"]
    words = [
        *(["attack", f"{place}/model", f"--attack={place}/task.jsonl", "--keep-models"]
          if attack else ["unlearn", "npo", f"--model={place}/model", *files]),
        f"--out={tmp_path}/run", "--steps=2", "--batch-size=2",
    ]  # fmt: skip
    gone = place / what

    def vanishing(call):  # type: ignore[no-untyped-def]
        def inside(*given, **more):
            if gone.exists():
                gone.rename(tmp_path / "elsewhere")
            return call(*given, **more)

        return inside

    with monkeypatch.context() as patch:
        module, name = {
            "forget.jsonl": ("ilu.data.readers", "iter_jsonl"),
            "model/model.safetensors": ("ilu.models.load", "check_name"),
            "task.jsonl": ("ilu.runs.attack_stage", "proceed"),
        }[what]
        patch.setattr(f"{module}.{name}", vanishing(getattr(sys.modules[module], name)))
        assert command(words) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: ")
    assert gone.name in said or str(place) in said
    assert (tmp_path / "run").exists() == attack
    assert not list(tmp_path.rglob("*.partial"))
    (tmp_path / "elsewhere").rename(gone)
    assert command([*words, *(["--resume"] if attack else [])]) == 0


def test_the_clock_may_go_backwards(folder, tmp_path, monkeypatch):
    now = iter(range(10**9, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    assert run(recipe(folder, "npo"), tmp_path / "run").read("done")["seconds"] >= 0


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(KeyError), new_file(tmp_path / "a.json") as half:
        half.write_text('{"new": ')
        raise KeyError
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", float("nan"))
    assert json.loads((tmp_path / "a.json").read_text()) == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_those_may_read_a_result_whom_the_system_lets(tmp_path):
    before = os.umask(0o027)  # the group, and nobody else
    try:
        save_mask(tmp_path / "mask.safetensors", [("w", torch.ones(2, dtype=torch.bool))], {})
        save_model(load_model("lab"), tmp_path / "model")
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert {path.stat().st_mode & 0o777 for path in files} == {0o640}


def test_many_attacks_in_one_process_leave_nothing_behind(tmp_path):
    found = soak(4, 15, tmp_path)
    assert found["open_files"][-1] == found["open_files"][1]
    assert found["resident_mib"][-1] < found["resident_mib"][1] + 20


# --- Properties ------------------------------------------------------------------------------

FEW = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
EXAMPLES = st.lists(
    st.lists(st.integers(1, 99), min_size=1, max_size=9).flatmap(
        lambda ids: st.integers(0, len(ids)).map(lambda prompt: Example(ids, prompt))
    ),
    min_size=1,
    max_size=6,
)


@FEW
@given(EXAMPLES)
def test_collation_keeps_every_token_and_labels_only_answers(examples):
    batch = collate(examples)
    for row, e in enumerate(examples):
        n = len(e.ids)
        assert batch.input_ids[row, :n].tolist() == e.ids
        assert batch.attention_mask[row].tolist() == [1] * n + [0] * (batch.input_ids.shape[1] - n)
        wanted = [IGNORE] * e.prompt + e.ids[e.prompt :] + [IGNORE] * (batch.input_ids.shape[1] - n)
        assert batch.labels[row].tolist() == wanted


@FEW
@given(EXAMPLES, st.integers(1, 7))
def test_micro_batches_are_the_batch(examples, size):
    parts = split(collate(examples), size)
    assert torch.equal(torch.cat([p.labels for p in parts]), collate(examples).labels)
    assert all(len(p) <= size for p in parts)


@FEW
@given(EXAMPLES, st.integers(1, 6), st.integers(0, 2**31), st.integers(0, 50))
def test_a_stream_is_a_function_of_the_batchs_number(examples, size, seed, k):
    if size <= len(examples):
        one, other = (Stream(examples, size, seed)(k) for _ in range(2))
        assert torch.equal(one.input_ids, other.input_ids)
        assert len(one) == size


@FEW
@given(st.lists(st.integers(0, 5), max_size=3), st.integers(0, 2**31))
def test_packing_a_mask_loses_no_bit(shape, seed):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    packed = pack(mask)
    assert packed.numel() == -(-mask.numel() // 8)
    assert torch.equal(unpack(packed, shape), mask)


@FEW
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_a_mean_lies_between_and_does_not_depend_on_order(values):
    score, turned = mean_score(values), mean_score(values[::-1])
    assert min(values) - 1e-6 <= score.value <= max(values) + 1e-6
    assert score.value == pytest.approx(turned.value, abs=1e-6)
    assert score.stderr >= 0
    assert score.n == len(values)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@FEW
@given(st.lists(st.fixed_dictionaries({"text": TEXTS, "é": TEXTS}), min_size=1, max_size=5))
def test_rows_come_back_from_every_format(tmp_path, rows):
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "d.jsonl").write_text(lines, encoding="utf-8", newline="")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "d.parquet")
    assert read_rows(tmp_path / "d.jsonl") == read_rows(tmp_path / "d.parquet") == rows


def valid(kind: str, place: Path) -> bytes:
    """A small file of a format that we read."""
    file = place / f"valid.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b"]}), file)
    elif kind == "safetensors":
        save_mask(file, [("a", torch.tensor([True, False]))], {"fraction": 0.5})
    else:
        file.write_text({"csv": 'text,b\n"a",1\n', "jsonl": '{"text": "a"}\n'}[kind])
    return file.read_bytes()


def mutated(whole: bytes, draw: torch.Generator) -> bytes:
    """The file cut short, or with a few bytes changed."""

    def number(below: int) -> int:
        return int(torch.randint(below, (1,), generator=draw))

    if number(3) == 0:
        return whole[: number(len(whole))]
    changed = bytearray(whole)
    for _ in range(1 + number(4)):
        changed[number(len(changed))] = number(256)
    return bytes(changed)


def fuzz(kind: str, tries: int, place: Path) -> int:
    """Read damaged files; return how many were refused by a ValueError that names the file.

    Any other exception ends the test.
    """
    whole, refused = valid(kind, place), 0
    for seed in range(tries):
        file = place / f"fuzzed.{kind}"
        file.write_bytes(mutated(whole, torch.Generator().manual_seed(seed)))
        try:
            if kind == "safetensors":
                load_mask(file, make_tiny())
            else:
                read_rows(file)
        except ValueError as error:
            refused += str(file) in str(error)
    return refused


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "safetensors"])
def test_damaged_files_are_refused_in_words(kind, tmp_path):
    assert fuzz(kind, int(os.environ.get("ILU_SOAK", "40")), tmp_path) > 0


def test_a_damaged_record_of_a_mask_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors", metadata={"ilu_mask": "{"})
    with pytest.raises(ValueError, match="damaged"):
        _ = MaskFile(tmp_path / "m.safetensors").record


# --- Determinism -----------------------------------------------------------------------------


def test_threads_change_a_run_by_no_more_than_rounding(folder, tmp_path):
    """Same bytes with as many threads; within 1e-5 with another number (docs/reliability.md)."""
    one = [run(recipe(folder, "npo-ilu"), tmp_path / n).path for n in ("a", "b")]
    torch.set_num_threads(2)
    try:
        two = run(recipe(folder, "npo-ilu"), tmp_path / "two").path
    finally:
        torch.set_num_threads(1)
    assert bytes_of(one[0]) == bytes_of(one[1])
    weights, other = read_weights(one[0] / "model"), read_weights(two / "model")
    assert max(float((weights[n] - other[n]).abs().max()) for n in weights) < 1e-5
    rows = zip(RunDir(one[0]).rows("train"), RunDir(two).rows("train"), strict=True)
    for first, second in rows:
        assert first == pytest.approx(second, rel=1e-4)
