"""Two processes give what one gives: on the CPU, over gloo, with whole and sharded weights."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ilu.data.stream import Stream, rows_of
from ilu.methods.forget.npo import NPO
from ilu.methods.masks.storage import save_mask
from ilu.models.load import load_model, read_weights, weights_hash
from ilu.recipes.build import build
from ilu.runs.prepare import check_ranks
from ilu.system.distributed import Ranks, joined
from ilu.training.checkpoint import Checkpoints
from ilu.training.fit import Optim, check_training, fit
from ilu.training.objective import Term
from ilu.types import Example
from tests.close import apart
from tests.conftest import ROOT, make_tiny
from tests.models.test_families import FAMILIES
from tests.together import CASES, RESUMED, main, random_mask, streams

DIFFERENCES = {
    "gradient", "parameters", "tensors", "gradient penalty", "curvature", "rmu, penalty above",
    "layerwise", "relearnt",
}  # fmt: skip
"""Rules that divide a difference of float32 gradients by a small step, and so enlarge rounding."""
WAYS = ("data", "sharded")
EIGHT = Optim(lr=1.0, steps=1, optimizer="adamw8bit")


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Every case alone, then by two processes."""
    folder = tmp_path_factory.mktemp("ranks")
    tokenizer = load_model("lab").tokenizer
    make_tiny(len(tokenizer)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    model = load_model(str(folder / "model")).model
    save_mask(folder / "mask.safetensors", half(model), {"model": weights_hash(model)})
    for name in ("forget", "retain", "environment"):
        rows = [{"question": f"Who is {name} {i}?", "answer": f"number {i}"} for i in range(4)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    for name, make in {**FAMILIES, "uneven": lambda: make_tiny(33)}.items():
        make().save_pretrained(folder / "models" / name)
        tokenizer.save_pretrained(folder / "models" / name)
    main(folder)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, "-m", "tests.together", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_the_last_files_of_a_run_are_written_by_the_first_process_alone(tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, "-m", "tests.finish", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list(tmp_path.glob("*/README.md"))) == 100


def half(model):
    """A mask of about half of the weights."""
    draw = torch.Generator().manual_seed(3)
    return ((n, torch.rand(p.shape, generator=draw) < 0.5) for n, p in model.named_parameters())


def rows(results: Path, way: str, rank: int = 0):
    return json.loads((results / f"{way}-{rank}.json").read_text())["rows"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", [*CASES, *(f"{name} resumed" for name in RESUMED)])
def test_two_processes_give_the_losses_and_weights_of_one(case, way, results):
    loose = case in DIFFERENCES
    alone, both = (load_file(results / f"{each}-{case}") for each in ("alone", way))
    assert apart(alone, both, make_tiny().state_dict()) < (5e-2 if loose else 1e-5)
    for one, two in zip(rows(results, "alone")[case], rows(results, way)[case], strict=True):
        assert two == pytest.approx(one, rel=2e-2 if loose else 5e-5, abs=1e-7)


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if case.masked])
def test_what_a_mask_holds_keeps_its_bits_in_shards(case, results):
    found, start = load_file(results / f"sharded-{case}"), make_tiny().state_dict()
    for name, held in random_mask().items():
        assert torch.equal(found[name][~held], start[name][~held])
        moved = (found[name] != start[name])[held]
        assert not held.any() or moved.float().mean() > 0.5


def test_moments_exist_only_where_something_of_a_shard_moves(results):
    steps = sorted(results.glob("checkpoints-sharded-masked/part-*/*/optimizer.safetensors"))
    parts = [load_file(path) for path in steps]
    for name, held in random_mask().items():
        sizes = [part[f"exp_avg/{name}"].numel() for part in parts if f"exp_avg/{name}" in part]
        assert sum(sizes) == held.sum()
        assert not sizes or sizes == [int(half.sum()) for half in held.chunk(2)]


def test_parts_that_processes_read_are_those_of_the_whole_model(results):
    for rank in (0, 1):
        loaded = json.loads((results / f"sharded-{rank}.json").read_text())["loaded"]
        assert loaded == dict.fromkeys([*FAMILIES, "uneven"], True)


@pytest.mark.parametrize("way", WAYS)
def test_every_process_logs_the_same(way, results):
    assert rows(results, way, 0) == rows(results, way, 1)


def test_a_resumed_run_ends_in_the_same_bits_and_shards_halve_what_a_process_holds(results):
    for way in ("alone", *WAYS):
        for case in RESUMED:
            whole, resumed = (load_file(results / f"{way}-{n}") for n in (case, f"{case} resumed"))
            assert all(torch.equal(whole[n], resumed[n]) for n in whole)
    records = [json.loads((results / f"{w}-0.json").read_text()) for w in ("data", "sharded")]
    assert 2 * records[1]["held"] == records[0]["held"]


def test_processes_that_accelerate_launches_meet(tmp_path):
    pytest.importorskip("accelerate")
    said = "with joined(shard=True) as r: mean = r.mean(r.rank); r.leads and print(r.size, mean)"
    (tmp_path / "meet.py").write_text(f"from ilu.system.distributed import joined\n{said}\n")
    plain = ["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes=2",
    ]
    command = [*launch, *plain, "--main_process_port=0", str(tmp_path / "meet.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["2", "0.5"], done.stderr[-3000:]


@pytest.mark.parametrize("way", WAYS)
def test_a_run_of_two_processes_is_one_ordinary_folder(way, results):
    alone, both = results / "run-alone", results / f"run-{way}"
    assert sorted(p.name for p in both.iterdir()) == sorted(p.name for p in alone.iterdir())
    a, b = (read_weights(folder / "model") for folder in (alone, both))
    assert list(a) == list(b)
    start = read_weights(results / "model")
    assert apart(a, b, start) < 1e-5
    held = dict(half(load_model(str(results / "model")).model))
    assert all(torch.equal(x[~held[n]], start[n][~held[n]]) for n, x in b.items())
    assert load_model(str(both / "model")).model.dtype == torch.float32
    lines = [(folder / "train.jsonl").read_text().splitlines() for folder in (alone, both)]
    assert len(lines[0]) == len(lines[1]) == 2
    scores = [json.loads((f / "scores" / "after.json").read_text()) for f in (alone, both)]
    for metric, score in scores[0].items():
        assert scores[1][metric] == pytest.approx(score, rel=1e-4)


def test_a_batch_that_cannot_be_shared_is_refused():
    batch = Stream([Example(list(range(1, n)), 1) for n in range(4, 7)], 3, 0)(0)
    with pytest.raises(ValueError, match="multiples of 2"):
        rows_of(batch, Ranks(0, 2))
    ids = torch.cat([rows_of(batch, Ranks(r, 3)).input_ids for r in range(3)])
    assert torch.equal(ids, batch.input_ids)


def test_what_shards_cannot_do_is_refused_with_a_way_out(monkeypatch, tmp_path):
    sharded = Ranks(0, 2, sharded=True)
    model, objective = make_tiny(), {"forget": Term(NPO(0.1), on="forget")}
    with pytest.raises(ValueError, match="make the mask first"):
        check_ranks(build("npo", {"model": "lab", "mask": "snip:0.5"}), sharded)
    with pytest.raises(ValueError, match="8-bit blocks"):
        check_training(model, objective, EIGHT, None, sharded)
    with pytest.raises(ValueError, match="LoRA does not support sharded weights"):
        check_ranks(build("npo", {"model": "lab", "lora_rank": 2}), sharded)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(ValueError, match="torchrun"), joined(shard=True):
        pass
    (tmp_path / "part-1-of-4").mkdir()
    for ranks in (Ranks(), sharded):
        with pytest.raises(ValueError, match="by 4 processes"):
            Checkpoints(tmp_path, ranks=ranks).latest()


def test_recomputed_blocks_give_the_same_bits():
    found = []
    for recompute in (False, True):
        model, seen = make_tiny(), []
        optim = Optim(lr=1e-2, steps=2, recompute=recompute)
        fit(model, CASES["npo-ilu"].objective, streams(), optim, log=seen.append)
        found.append((list(model.parameters()), seen))
    assert found[0][1] == found[1][1]
    assert all(torch.equal(a, b) for a, b in zip(found[0][0], found[1][0], strict=True))
