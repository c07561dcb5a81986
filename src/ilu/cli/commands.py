"""The smaller commands: one typed settings class and one function each."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ilu.catalogue import entries
from ilu.cli.interrupt import interruptible
from ilu.cli.parse import parse
from ilu.cli.show import console, number, progress, table
from ilu.cli.unlearn import Place
from ilu.cli.unlearn import summarise as summarise_run
from ilu.files import write_json, write_text
from ilu.models import load_model, model_path, read_weights
from ilu.recipe import restore
from ilu.recipes.measure import Suite, suite_metrics
from ilu.recipes.tuning import tuned
from ilu.report import markdown, write_report
from ilu.run import run
from ilu.rundir import RunDir
from ilu.vectors import by_module, cosine, length, task_vector

Positional = tyro.conf.Positional


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure what models know.

    Example: ilu evaluate lab runs/first/model --suite lab
    Example: ilu evaluate ./my-model --suite likelihood --data held-out.jsonl --out scores.json

    Args:
        models: folders, hub ids, or lab.
        suite: lab: the lab's questions and tasks; likelihood: loss per answer token on --data;
            choice: multiple choice on --data with columns question, choices, answer.
        data: file or hub dataset for the suites likelihood and choice.
        columns: names of columns that differ, as wanted=present.
        truncate: cut longer examples to this many tokens.
        limit: use the first so many items.
        out: write the scores to this JSON file.
        device: cpu, cuda, mps.
    """

    models: Positional[tuple[str, ...]]
    suite: Suite = "likelihood"
    data: str | None = None
    columns: tuple[str, ...] = ()
    truncate: int | None = None
    limit: int | None = None
    out: Path | None = None
    device: str = "cpu"


def evaluate(argv: Sequence[str]) -> None:
    """Carry out ``ilu evaluate``."""
    wanted: Evaluate = parse(Evaluate, "ilu evaluate", argv)
    metrics = suite_metrics(
        wanted.suite, wanted.data, wanted.columns, wanted.truncate, wanted.limit
    )
    found: dict[str, Any] = {}
    for name in wanted.models:
        lm = load_model(name, device=wanted.device)
        scores = {k: metric(lm) for k, metric in metrics.items()}
        found[name] = {
            k: {"value": s.value, "stderr": s.stderr, "n": s.n} for k, s in scores.items()
        }
        rows = [(k, number(s.value), number(s.stderr), str(s.n)) for k, s in scores.items()]
        table(name, ("metric", "value", "± s.e.", "n"), rows)
    if wanted.out:
        write_json(wanted.out, {"suite": wanted.suite, "data": wanted.data, "models": found})


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Fine-tune a model on a task and measure what comes back on the way.

    Example: ilu attack runs/first/model --task mood --suite lab --out runs/mood
    Example: ilu attack ./unlearned --task gsm8k --suite likelihood --data forget.jsonl --out runs/g

    Args:
        model: folder, hub id, or lab.
        task: gsm8k, a task of the lab (sums, topics, mood, owner, entail, same), relearn (the
            lab's), or a file or hub dataset.
        task_columns: names of columns that differ in the task, as wanted=present.
        suite: what is measured before, at a quarter, at half and at the end.
        data: file or hub dataset for the suites likelihood and choice.
        columns: names of columns that differ in the data, as wanted=present.
        truncate: cut longer examples to this many tokens.
        limit: measure on the first so many items.
        steps: optimiser steps of the attacker.
        lr: learning rate of the attacker.
        batch_size: examples per step of the attacker.
        seed: of the attacker's order of data.
    """

    model: Positional[str]
    task: str
    task_columns: tuple[str, ...] = ()
    suite: Suite = "likelihood"
    data: str | None = None
    columns: tuple[str, ...] = ()
    truncate: int | None = None
    limit: int | None = 200
    steps: int = 100
    lr: float = 1e-5
    batch_size: int = 16
    seed: int = 0
    place: Annotated[Place, tyro.conf.arg(name="")]


def attack(argv: Sequence[str]) -> None:
    """Carry out ``ilu attack``."""
    wanted: Attack = parse(Attack, "ilu attack", argv)
    recipe = tuned(
        wanted.model,
        wanted.task,
        task_columns=wanted.task_columns,
        truncate=wanted.truncate,
        metrics=suite_metrics(
            wanted.suite, wanted.data, wanted.columns, wanted.truncate, wanted.limit
        ),
        steps=wanted.steps,
        lr=wanted.lr,
        batch_size=wanted.batch_size,
        seed=wanted.seed,
    )
    with interruptible() as stop, progress() as shown:
        out = run(recipe, wanted.place.out, wanted.place.options(shown, stop))
    show_stages(out)


def show_stages(out: RunDir) -> None:
    """Every metric along the attack."""
    stages = [s for s in out.stages() if s != "after"]
    metrics = dict.fromkeys(m for stage in stages for m in out.scores(stage))
    cells = {stage: out.scores(stage) for stage in stages}
    rows = [
        (m, *(number(cells[s][m].value if m in cells[s] else None) for s in stages))
        for m in metrics
    ]
    table(out.name, ("metric", *stages), rows)
    console.print(f"run: {out.path}", markup=False, soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Angles between task vectors of one model: unlearning, and fine-tuning after it.

    Example: ilu vectors lab runs/first/model runs/mood/attacks/mood/model

    Args:
        original: folder of the model before unlearning, or lab.
        unlearned: folder of the unlearned model.
        finetuned: folder of the unlearned model after fine-tuning.
        tuned_original: folder of the original after the same fine-tuning, for two more cosines.
        json: print JSON.
    """

    original: Positional[str]
    unlearned: Positional[str]
    finetuned: Positional[str]
    tuned_original: str | None = None
    json: bool = False


def vectors(argv: Sequence[str]) -> None:
    """Carry out ``ilu vectors``."""
    wanted: Vectors = parse(Vectors, "ilu vectors", argv)
    o, u, f = (weights(n) for n in (wanted.original, wanted.unlearned, wanted.finetuned))
    tau_u, after = task_vector(o, u), task_vector(u, f)
    found: dict[str, Any] = {
        "norms": {"u": length(tau_u), "ft_after_u": length(after)},
        "cosines": {"ft_after_u__u": cosine(after, tau_u)},
        "norms_by_module": {"u": by_module(tau_u), "ft_after_u": by_module(after)},
    }
    if wanted.tuned_original:
        tau_ft = task_vector(o, weights(wanted.tuned_original))
        found["norms"]["ft"] = length(tau_ft)
        found["cosines"]["ft_after_u__ft"] = cosine(after, tau_ft)
        found["cosines"]["u__ft"] = cosine(tau_u, tau_ft)
    if wanted.json:
        print_json(found)
        return
    rows = [
        (f"{kind[:-1]} {k}", number(v))
        for kind in ("norms", "cosines")
        for k, v in found[kind].items()
    ]
    table("task vectors", ("", "value"), rows)
    moved = found["norms_by_module"]
    rows = [(k, number(v), number(moved["ft_after_u"][k])) for k, v in moved["u"].items()]
    table("norms by module", ("module", "u", "ft_after_u"), rows)


def weights(name: str) -> Any:
    """Weights of a model folder."""
    folder = Path(model_path(name))
    if not folder.is_dir():
        raise ValueError(f"{name!r} is not a model folder")
    return read_weights(folder)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write one self-contained page from run directories; needs no model and no network.

    Example: ilu report runs/first runs/second --out report.html

    Args:
        runs: run directories.
        out: the page; an ending .md gives a Markdown table.
    """

    runs: Positional[tuple[Path, ...]]
    out: Path = Path("report.html")


def report(argv: Sequence[str]) -> None:
    """Carry out ``ilu report``."""
    wanted: Report = parse(Report, "ilu report", argv)
    if not wanted.runs:
        raise ValueError("ilu report needs at least one run directory")
    runs = [RunDir.finished(path) for path in wanted.runs]
    if wanted.out.suffix == ".md":
        write_text(wanted.out, markdown(runs))
    else:
        write_report(runs, wanted.out)
    console.print(f"report: {wanted.out}", markup=False, soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class Methods:
    """List every loss, rule, mask, attack, metric and recipe with its paper.

    Example: ilu methods --json

    Args:
        json: print JSON.
    """

    json: bool = False


def methods(argv: Sequence[str]) -> None:
    """Carry out ``ilu methods``."""
    wanted: Methods = parse(Methods, "ilu methods", argv)
    found = entries()
    if wanted.json:
        print_json([e._asdict() for e in found])
        return
    rows = [(e.name, e.kind, f"arXiv {e.paper}" if e.paper else "", e.summary) for e in found]
    shown = [(name, kind, paper, text) for name, kind, paper, text in rows]
    table("methods", ("name", "kind", "paper", "what it does"), shown)


@dataclass(frozen=True, kw_only=True)
class Rerun:
    """Repeat a run from its recipe.json; the same machine gives the same bytes.

    Example: ilu rerun runs/first --out runs/again

    Args:
        source: run directory to repeat.
    """

    source: Positional[Path]
    place: Annotated[Place, tyro.conf.arg(name="")]


def rerun(argv: Sequence[str]) -> None:
    """Carry out ``ilu rerun``."""
    wanted: Rerun = parse(Rerun, "ilu rerun", argv)
    record = wanted.source / "recipe.json"
    if not record.is_file():
        raise ValueError(f"{wanted.source} is not a run directory: it has no recipe.json")
    recipe = restore(json.loads(record.read_text(encoding="utf-8")))
    with interruptible() as stop, progress() as shown:
        out = run(recipe, wanted.place.out, wanted.place.options(shown, stop))
    summarise_run(out)


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Say what is installed, what the machine has, and whether the hub can be reached.

    Example: ilu doctor
    """


def doctor(argv: Sequence[str]) -> None:
    """Carry out ``ilu doctor``."""
    from ilu.cli.doctor import findings

    parse(Doctor, "ilu doctor", argv)
    table("ilu doctor", ("what", "found"), list(findings().items()))


def print_json(value: Any) -> None:
    """JSON on standard output, for programs."""
    console.print(json.dumps(value, indent=2), markup=False, soft_wrap=True)
