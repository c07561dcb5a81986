"""Kill commands at random moments, repeat them until they are done, compare with one left alone.

    python -m tests.soak.kill --kills 50 --out soak.json        (make soak)

Each command runs in a process that is forked from one that has loaded everything, so that a trial
takes as long as the work and not as its imports. A moment is drawn uniformly over the time that the
command takes undisturbed; a command that is killed is begun again with --resume, and killed again,
until it ends by itself. Then its results are compared byte by byte, and before that, after every
kill, all files that a later command would accept are read.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from safetensors import safe_open

from ilu.system.atomic import write_json
from tests.conftest import make_tiny

TIMES = {"seconds", "peak_memory_bytes"}
"""Entries of records that say how long something took."""


class Command(NamedTuple):
    """A command line without its output, its output, what is compared, and how it is continued."""

    words: Sequence[str]
    flag: str
    out: str
    same: Sequence[str]
    again: Sequence[str] = ()


def commands(place: Path) -> dict[str, Command]:
    """The five commands on a tiny model."""
    model, data = str(place / "model"), [f"--forget={place}/forget.jsonl"]
    data.append(f"--retain={place}/retain.jsonl")
    small = ["--batch-size=2", "--lr=1e-3"]
    weights = "model/model.safetensors"
    return {
        "unlearn": Command(
            ["unlearn", "npo-ilu", f"--model={model}", *data, *small, "--steps=30",
             "--save-every=3", f"--environment={place}/environment.jsonl", "--limit=4",
             "--environment-batch-size=2", "--mask=wagle:0.5"],
            "--out", "run", ("train.jsonl", weights, "scores/after.json", "mask.safetensors"),
            ("--resume",),
        ),
        "attack": Command(
            ["attack", model, f"--attack={place}/environment.jsonl", "--keep-models", *small,
             "--steps=40", "--save-every=3", f"--data={place}/forget.jsonl"],
            "--out", "attacked", ("scores/environment-end.json", "scores/environment-half.json",
                                  "attacks/environment/model/model.safetensors"),
            ("--resume",),
        ),
        "mask": Command(
            ["mask", "wagle", f"--model={model}", *data, "--fraction=0.5"],
            "--out", "mask.safetensors", ("",),
        ),
        "evaluate": Command(
            ["evaluate", model, str(place / "other"), "--suite=likelihood",
             f"--data={place}/retain.jsonl"],
            "--out", "scores.json", ("",),
        ),
        "report": Command(["report", str(place / "finished")], "--out", "report.html", ("",)),
    }  # fmt: skip


def prepare(place: Path) -> None:
    """A tiny model with the lab's tokenizer, three small files, and a finished run to report."""
    from ilu.models.load import load_model

    tokenizer = load_model("lab").tokenizer
    for name in ("model", "other"):
        make_tiny(len(tokenizer)).save_pretrained(place / name)
        tokenizer.save_pretrained(place / name)
    for name, who in (("forget", "Velunor"), ("retain", "Arando"), ("environment", "Tom")):
        rows = [{"question": f"Who is {who} {i}?", "answer": f"number {i}"} for i in range(4)]
        (place / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


def fork(words: Sequence[str], folder: Path) -> int:
    """Begin a command in ``folder``; return the process."""
    sys.stdout.flush()
    if process := os.fork():
        return process
    os.chdir(folder)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    from ilu.cli.main import run

    os._exit(run(list(words)))


def finish(words: Sequence[str], folder: Path) -> float:
    """Carry out a command to its end; return the seconds that it took."""
    began = time.monotonic()
    _, status = os.waitpid(fork(words, folder), 0)
    if status:
        raise SystemExit(f"failed with {os.waitstatus_to_exitcode(status)}: {' '.join(words)}")
    return time.monotonic() - began


def killed(words: Sequence[str], folder: Path, seconds: float) -> bool:
    """Whether SIGKILL came before the end."""
    process = fork(words, folder)
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"refused to continue: {' '.join(words)}")
    return os.WIFSIGNALED(status)


def check_whole(folder: Path) -> int:
    """Read every file that is not marked as half-made; return how many there are."""
    count = 0
    for file in folder.rglob("*"):
        if file.is_dir() or any(p.endswith(".partial") for p in file.parts):
            continue
        count += 1
        if file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))
        if file.suffix == ".jsonl":
            for line in file.read_text(encoding="utf-8").split("\n")[:-1]:
                json.loads(line)
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118, not a dict
                    tensors.get_tensor(name)
    return count


def content(out: Path, names: Sequence[str]) -> list[object]:
    """What is compared: bytes, and JSON without the entries that say how long something took."""
    return [read(out / name if name else out) for name in names]


def read(file: Path) -> object:
    """A file for comparison."""
    if file.name.startswith("mask") and file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as tensors:  # its record says how long it took
            return {name: tensors.get_tensor(name).tolist() for name in tensors.keys()}  # noqa: SIM118
    return file.read_bytes()


class Result(NamedTuple):
    """Kills of a command, how often it was repeated to its end, files read, where it was killed."""

    kills: int
    completed: int
    files_read: int
    seconds_undisturbed: float
    leftovers: int


def soak(command: Command, kills: int, draw: random.Random, place: Path) -> Result:
    """Kill a command ``kills`` times, repeating it until it is done each time it is."""
    line = [*command.words, command.flag, command.out]
    whole = place / "whole"
    whole.mkdir()
    seconds = finish(line, whole)
    wanted = content(whole / command.out, command.same)
    done, count, files, folder = 0, 0, 0, place / "killed"
    while done < kills:
        folder.mkdir()
        alive = True
        while alive and done < kills:
            begun = (folder / command.out).exists()
            again = [*line, *(command.again if begun else ())]
            alive = killed(again, folder, draw.uniform(0, 1.1 * seconds))
            done += alive
            files += check_whole(folder)
            if not command.again and (folder / command.out).exists():
                break  # killed after it was done: complete, or it would not be there
        if alive and (command.again or not (folder / command.out).exists()):
            begun = (folder / command.out).exists()
            finish([*line, *(command.again if begun else ())], folder)
        if content(folder / command.out, command.same) != wanted:
            raise SystemExit(f"other bytes after {done} kills: {' '.join(line)}")
        leftovers = sum(1 for p in folder.rglob("*") if p.suffix in (".partial", ".lock"))
        count += 1
        shutil.rmtree(folder)
    shutil.rmtree(whole)
    return Result(done, count, files, round(seconds, 2), leftovers)


def main(arguments: Sequence[str], tell: Callable[[str], None] = print) -> dict[str, Result]:
    """Soak every command; write what was done."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args(arguments)
    found: dict[str, Result] = {}
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        prepare(place)
        every = commands(place)
        first = every["unlearn"]
        finish([*first.words, "--out", str(place / "finished")], place)
        for name in asked.only or every:
            began = time.monotonic()
            found[name] = soak(every[name], asked.kills, random.Random(asked.seed), place)
            tell(f"{name}: {found[name]._asdict()} in {time.monotonic() - began:.0f} s")
            if asked.out:  # after each command, because all take long
                write_json(asked.out, {name: each._asdict() for name, each in found.items()})
    return found


if __name__ == "__main__":
    import torch
    import transformers  # noqa: F401, loaded once for all that is forked

    import ilu.cli.main

    torch.set_num_threads(1)
    ilu.cli.main.commands()
    main(sys.argv[1:])
