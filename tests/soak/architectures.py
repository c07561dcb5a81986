"""A tiny model of every architecture: unlearn, evaluate, mask, attack, save, reload, compare.

    python -m tests.soak.architectures --out architectures.json [NAME ...]       (make soak)

The commands run in a process that is forked for each architecture. What they measured is compared
with plain Transformers: a model that is read by ``from_pretrained``, one unpadded row at a time and
all logits. A number is the largest difference as a share of the largest value. The file is written
after each architecture; those that it has of the same commit and versions are not tried again.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from ilu.evals.metrics.generation import continuations
from ilu.methods.masks.storage import load_mask
from ilu.models.load import load_model
from ilu.models.matrices import share_of_blocks, weight_matrices
from ilu.recipes.user_data import dataset
from ilu.system.atomic import write_json
from ilu.system.optional import quiet_libraries
from ilu.system.provenance import environment
from ilu.types import Example
from tests.command import in_process
from tests.soak.tiny import ARCHITECTURES, make_model

CLOSE = 1e-4
"""Largest relative difference of losses."""
PATIENCE = 600
"""Seconds after which an architecture hangs."""
SETS = {"forget": "Velunor", "retain": "Arando", "environment": "Tom"}
DATA = ["--forget=forget.jsonl", "--retain=retain.jsonl"]
SHORT = ["--steps=2", "--lr=1e-2", "--batch-size=4"]
RECIPES = {
    "npo": ["npo", "--mask=magnitude:0.5"],
    "rmu": ["rmu", "--layer=1"],
    "adapters": ["npo", "--lora-rank=2"],
    "packed": ["npo", "--pack"],
}
ATTACKS = {
    "lora-environment": "lora:environment.jsonl", "environment": "environment.jsonl",
    "prune-.5": "prune:.5", "quantise-4": "quantise:4", "noise-0.0": "noise:0.0",
}  # fmt: skip
"""Folder -> attack. The last one changes nothing, so that it shows what others leave behind."""


class Refused(Exception):
    """A command ended with exit code 2 and one line."""


class Failed(Exception):
    """A command ended otherwise, or its numbers are wrong."""


class Trial(NamedTuple):
    """One architecture: a folder with a model and data, and what was found."""

    place: Path
    numbers: dict[str, Any]
    passed: list[str]
    refused: dict[str, str]
    failed: dict[str, str]

    def ilu(self, *words: str) -> None:
        """Carry out a command."""
        done = in_process(words, self.place)
        lines = (done.stdout + done.stderr).strip().splitlines()
        if done.returncode == 2 and not any("Traceback" in line for line in lines):
            raise Refused(next((x for x in lines if x.startswith("error")), lines[-1]))
        if done.returncode:
            raise Failed(lines[-1] if lines else f"exit code {done.returncode}")

    def attempt(self, name: str, step: Callable[["Trial"], None]) -> None:
        """Carry out a step, and note why it was refused or failed."""
        try:
            step(self)
            self.passed.append(name)
        except Refused as error:
            self.refused[name] = str(error)
        except Exception as error:  # whatever the libraries raise is a failure of this step
            self.failed[name] = f"{type(error).__name__}: {error}".split("\n")[0]

    def close(self, name: str, found: Sequence[float], wanted: Sequence[float]) -> None:
        """Note the largest difference."""
        worst = max(abs(a - b) for a, b in zip(found, wanted, strict=True)) / max(map(abs, wanted))
        self.numbers[name] = float(f"{worst:.1e}")
        if not worst <= CLOSE:
            raise Failed(f"{name}: {worst:.1e} of the largest loss")


def values(file: Path) -> list[float]:
    """The value of each example."""
    return [json.loads(line)["value"] for line in file.read_text().splitlines()]


def plain(folder: Path) -> Any:
    """A model folder as Transformers reads it."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def losses(folder: Path, examples: Sequence[Example]) -> list[float]:
    """Mean loss of the answer of each example, alone and without padding."""
    model, found = plain(folder), list[float]()
    for e in examples:
        ids = torch.tensor([e.ids])
        out = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        logits = out.logits[0, e.prompt - 1 : -1].float()
        found.append(cross_entropy(logits, ids[0, e.prompt :]).item())
    return found


def read(place: Path, name: str) -> list[Example]:
    """The examples of a file."""
    return list(dataset(str(place / f"{name}.jsonl"), (), None)(load_model("lab").tokenizer))


def moved(before: Path, after: Path) -> dict[str, float]:
    """Share of each weight that differs between two folders."""
    a, b = (dict(plain(folder).named_parameters()) for folder in (before, after))
    return {n: (a[n] != b[n]).float().mean().item() for n in a}


def unlearn(recipe: str) -> Callable[[Trial], None]:
    """Unlearn; losses before, at the first step and afterwards are those of Transformers."""

    def step(t: Trial) -> None:
        t.ilu("unlearn", *RECIPES[recipe], "--model=model", *DATA, *SHORT, f"--out={recipe}")
        run, model = t.place / recipe, t.place / "model"
        for stage, folder in (("before", model), ("after", run / "model")):
            for name in ("forget", "retain"):
                found = values(run / f"examples/{stage}/{name}_nll.jsonl")
                t.close(f"{recipe} {stage} {name}", found, losses(folder, read(t.place, name)))
        if recipe != "rmu":  # its losses are distances of hidden states
            row = json.loads((run / "train.jsonl").read_text().splitlines()[0])
            wanted = losses(model, read(t.place, "retain"))
            t.close(f"{recipe} first step", [row["retain"]], [sum(wanted) / len(wanted)])
        if not any(moved(model, run / "model").values()):
            raise Failed("no weight was changed")

    return step


def masked(t: Trial) -> None:
    """No weight outside of the mask was changed, and about half of the others were."""
    before = plain(t.place / "model")
    mask = load_mask(t.place / "npo/mask.safetensors", before)
    a, b = dict(before.named_parameters()), dict(plain(t.place / "npo/model").named_parameters())
    changed = {n: a[n] != b[n] for n in a}
    outside = sum(int((changed[n] & ~mask[n]).sum()) for n in a)
    inside = sum(int(each.sum()) for each in changed.values()) / sum(p.numel() for p in a.values())
    t.numbers["changed by masked training"] = round(inside, 3)
    if outside or not inside:
        raise Failed(f"{outside} weights outside of the mask were changed")


def trained_by_rmu(t: Trial) -> None:
    """RMU trains output projections, which are noted."""
    share = moved(t.place / "model", t.place / "rmu" / "model")
    t.numbers["trained by rmu"] = sorted(n for n, x in share.items() if x)


def evaluate(t: Trial) -> None:
    """A command of its own measures what the run did."""
    t.ilu("evaluate", "npo/model", "--suite=likelihood", "--data=forget.jsonl", "--out=scores.json")
    found = json.loads((t.place / "scores.json").read_text())["models"]["npo/model"]["nll"]["value"]
    wanted = values(t.place / "npo/examples/after/forget_nll.jsonl")
    t.close("evaluate", [found], [sum(wanted) / len(wanted)])


def attack(t: Trial) -> None:
    """The losses after each attack are those of the weights that it saved."""
    words = [f"--attack={attack}" for attack in ATTACKS.values()]
    t.ilu("attack", "npo/model", *words, "--suite=likelihood", "--data=forget.jsonl", *SHORT,
          "--lora-rank=2", "--only-end", "--keep-models", "--out=attacked")  # fmt: skip
    forget = read(t.place, "forget")
    for name in ATTACKS:
        found = values(t.place / f"attacked/examples/{name}-end/nll.jsonl")
        t.close(name, found, losses(t.place / f"attacked/attacks/{name}/model", forget))
    noise = values(t.place / "attacked/examples/noise-0.0-end/nll.jsonl")
    t.close("after all attacks", noise, losses(t.place / "npo/model", forget))
    model = plain(t.place / "npo/model")
    t.numbers["weight matrices"] = round(share_of_blocks(model, weight_matrices(model).keys()), 3)
    share = moved(t.place / "npo/model", t.place / "attacked/attacks/lora-environment/model")
    t.numbers["adapted"] = round(share_of_blocks(model, {n for n, x in share.items() if x}), 3)


@torch.no_grad()
def generate(t: Trial) -> None:
    """A batch of prompts is continued as each alone, without cache and padding."""
    lm = load_model(str(t.place / "model"))
    heads = [[5, 6, 7], [9, 8, 7, 6, 5, 4, 3], [11, 2], [3, 9, 12, 4]]
    wanted: list[str] = []
    ends = {lm.tokenizer.eos_token_id}
    for head in heads:
        ids = list(head)
        while len(ids) < len(head) + 6 and not (ends & set(ids[len(head) :])):
            row = torch.tensor([ids])
            out: Any = lm.model(input_ids=row, attention_mask=torch.ones_like(row), use_cache=False)
            ids.append(int(out.logits[0, -1].argmax()))
        wanted.append(lm.tokenizer.decode(ids[len(head) :], skip_special_tokens=True))
    try:
        found = continuations(lm, heads, max_new_tokens=6, batch_size=4)
    except ValueError as error:  # commands make one line of it
        raise Refused(str(error)) from None
    if found != wanted:
        raise Failed("a batch is continued otherwise than single prompts")


def plan(t: Trial) -> None:
    """The memory can be predicted."""
    t.ilu("plan", "npo", "--model=model")


STEPS: Mapping[str, Callable[[Trial], None]] = {
    "unlearn npo": unlearn("npo"), "masked": masked, "evaluate": evaluate,
    "unlearn rmu": unlearn("rmu"), "trained by rmu": trained_by_rmu,
    "unlearn adapters": unlearn("adapters"), "unlearn packed": unlearn("packed"),
    "attack": attack, "generate": generate, "plan": plan,
}  # fmt: skip
AFTER = {"masked": "unlearn npo", "evaluate": "unlearn npo", "attack": "unlearn npo",
         "trained by rmu": "unlearn rmu"}  # fmt: skip
"""Step -> the step that it needs."""


def prepare(name: str, place: Path) -> nn.Module:
    """The model and the data; answers have several lengths."""
    model = make_model(name, place / "model")
    for kind, who in SETS.items():
        rows = [
            {"question": f"Who is {who} {i}?", "answer": " ".join(["number", *map(str, range(i))])}
            for i in range(1, 5)
        ]
        (place / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return model


def attempt(name: str, out: Path) -> None:
    """Try an architecture in a temporary folder, and write what was found."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        t = Trial(Path(temporary), {}, [], {}, {})
        model = prepare(name, t.place)
        for step, act in STEPS.items():
            if step not in AFTER or AFTER[step] in t.passed:
                t.attempt(step, act)
    found = {
        "class": type(model).__name__, "weights": sum(p.numel() for p in model.parameters()),
        "passed": t.passed, "refused": t.refused, "failed": t.failed, "numbers": t.numbers,
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    write_json(out, found)


def in_process_of_its_own(name: str, out: Path) -> dict[str, Any]:
    """What was found; a process that dies or hangs fails."""
    began = time.monotonic()
    child = multiprocessing.get_context("fork").Process(target=attempt, args=(name, out))
    child.start()
    child.join(PATIENCE)
    child.kill()
    child.join()
    if out.exists():
        return json.loads(out.read_text())
    why = f"ended with {child.exitcode} after {time.monotonic() - began:.0f} seconds"
    return {"passed": [], "refused": {}, "failed": {"process": why}, "numbers": {}}


def line(name: str, found: Mapping[str, Any]) -> str:
    """One line about an architecture."""
    numbers = [x for x in found["numbers"].values() if isinstance(x, float) and x < 0.1]
    said = [f"{k} {step}: {why}" for k in ("refused", "failed") for step, why in found[k].items()]
    worst = f"worst {max(numbers):.0e}" if numbers else ""
    return f"{name}: {len(found['passed'])} of {len(STEPS)} {worst} {'; '.join(said)}".strip()


def main(arguments: Sequence[str]) -> None:
    """Try the architectures, and write what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args(arguments)
    quiet_libraries()
    disable_progress_bar()
    set_verbosity_error()
    command = "python -m tests.soak.architectures --out results/soak/architectures.json"
    record: dict[str, Any] = {
        "command": command,
        "environment": environment(),
        "architectures": dict[str, Any](),
    }
    if asked.out and asked.out.exists():
        before = json.loads(asked.out.read_text())
        same = all(
            before["environment"][k] == record["environment"][k] for k in ("commit", "versions")
        )
        record["architectures"] = before["architectures"] if same or asked.names else {}
    for name in asked.names or ARCHITECTURES:
        if name in record["architectures"] and not asked.names:
            continue
        with tempfile.TemporaryDirectory() as temporary:
            found = in_process_of_its_own(name, Path(temporary) / "found.json")
        print(line(name, found), flush=True)  # noqa: T201
        record["architectures"][name] = found
        if asked.out:
            write_json(asked.out, record)
    failed = [n for n, found in record["architectures"].items() if found["failed"]]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main(sys.argv[1:])
