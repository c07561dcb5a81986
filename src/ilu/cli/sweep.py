"""``ilu sweep``: a grid of runs, carried out, looked at, continued and cancelled."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ilu.cli.arguments.sweep import Folder, Resume, Where, check
from ilu.cli.flags import as_flags, parse
from ilu.cli.signals import interruptible
from ilu.cli.sweep_flags import PROG, Wish, goal_of, planned, read, trial
from ilu.cli.sweep_results import show_results
from ilu.cli.sweep_status import following, show
from ilu.cli.terminal import console
from ilu.models.load import usable
from ilu.recipes.holdout import as_recorded
from ilu.runs.check import check_inputs
from ilu.runs.recipe import Recipe
from ilu.runs.run_dir import RunDir
from ilu.runs.sweep import local, optuna_search, ray_tasks, slurm
from ilu.runs.sweep.folder import (
    PLAN,
    cancel,
    cancel_file,
    place,
    read_plan,
    shared,
    statuses,
    write_plan,
)
from ilu.runs.sweep.grid import read_grid
from ilu.runs.sweep.worker import Conditions, Outcome, recorded
from ilu.system.atomic import write_json
from ilu.system.locks import alone


def main(argv: Sequence[str]) -> None:
    """Carry out the command."""
    check(argv)
    if argv[0] in SUBCOMMANDS:
        SUBCOMMANDS[argv[0]](argv[1:])
        return
    wish = read(argv[0], argv[1:])
    out = wish.flags.out
    check_runs(wish)
    with sweeping(out, wish.flags.where) as carry_out:
        best = searched(wish, carry_out) if wish.flags.search else None
        records = {name: recorded(each) for name, each in planned(wish, best).items()}
        write_plan(out, records, search=best is not None)
        errors = carry_out(records)
    show_results(out, records)
    ended(out, errors)


def check_runs(wish: Wish) -> None:
    """Raise ValueError for what cannot be, before anything is made; what runs share, once."""
    where = wish.flags.where
    if where.executor == "local":  # another machine may have other devices
        usable(where.device)
    check_inputs(list(planned(wish).values()))


CarryOut = Callable[[Mapping[str, Any]], dict[str, str]]
"""Carries out recorded recipes by name; returns why those that failed did."""


@contextmanager
def sweeping(out: Path, where: Where) -> Generator[CarryOut]:
    """Be the only command that carries out this sweep, which a signal can stop."""
    with (
        alone(out / PLAN),
        interruptible("the same command, or ilu sweep resume") as stop,
        following(out, where.workers) as tell,
    ):
        cancel_file(out).unlink(missing_ok=True)

        def carry_out(records: Mapping[str, Any]) -> dict[str, str]:
            jobs = {place(out, name): record for name, record in records.items()}
            errors: dict[str, str] = {}
            for one in executed(jobs, out, where, stop):
                tell(one.path.name, one.error)
                if one.error:
                    errors[one.path.name] = one.error
            return errors

        yield carry_out


def executed(
    jobs: Mapping[Path, Any], out: Path, where: Where, stop: Callable[[], bool]
) -> Iterator[Outcome]:
    """Carry out runs by the chosen executor."""
    conditions = Conditions(
        device=where.device,
        save_every=where.save_every,
        shared=shared(out).resolve(),
        cancel=cancel_file(out).resolve(),
    )
    jobs = {path.resolve(): record for path, record in jobs.items()}

    def stopping() -> bool:
        return stop() or conditions.cancelled()

    match where.executor:
        case "local":
            return local.carry_out_all(
                jobs, workers=where.workers, conditions=conditions, stop=stopping
            )
        case "ray":
            return ray_tasks.carry_out_all(
                jobs,
                resources=where.resources,
                conditions=conditions,
                stop=stopping,
                address=where.address,
            )
        case "slurm":
            return slurm.carry_out_all(
                jobs,
                resources=where.resources,
                conditions=conditions,
                stop=stopping,
                logs=out / "slurm",
            )


def searched(wish: Wish, carry_out: CarryOut) -> dict[str, Mapping[str, float]]:
    """The best settings of each recipe of the grid, each found in the same number of trials."""
    grid = read_grid(wish.flags.grid)
    ranges = optuna_search.read_ranges(wish.flags.search)
    if twice := sorted(ranges.keys() & grid.keys()):
        raise ValueError(f"{twice[0]} is in --grid and in --search: leave one out")
    found = {name: tried(wish, name, ranges, carry_out) for name in grid.get("recipe", [""])}
    best = {
        name or wish.make({}).name: optuna_search.best(trials) for name, trials in found.items()
    }
    by_recipe = {name: [each._asdict() for each in trials] for name, trials in found.items()}
    write_json(wish.flags.out / "search.json", {"best": best, "trials": by_recipe})
    for name, settings in best.items():
        values = ", ".join(f"{key} {value:.4g}" for key, value in settings.items())
        console.print(f"{name}: best of {wish.flags.trials} trials: {values}", markup=False)
    return {name: optuna_search.best(trials) for name, trials in found.items()}


def tried(
    wish: Wish, name: str, ranges: Mapping[str, optuna_search.Range], carry_out: CarryOut
) -> list[optuna_search.Trial]:
    """All trials of one recipe. A setting says how many are suggested at once."""
    out, goal = wish.flags.out, goal_of(wish)
    trials: list[optuna_search.Trial] = []
    while (left := wish.flags.trials - len(trials)) > 0:
        suggested = optuna_search.suggest(
            ranges, trials, min(left, wish.flags.trials_at_once), seed=0
        )
        made: list[tuple[str, Recipe]] = [trial(wish, name, settings) for settings in suggested]
        records = {run: recorded(recipe) for run, recipe in made}
        write_plan(out, records, search=True)
        failed = carry_out(records)
        for (run, _), settings in zip(made, suggested, strict=True):
            good = run not in failed
            value = (
                optuna_search.value(RunDir(place(out, run)), as_recorded(goal)) if good else None
            )
            trials.append(optuna_search.Trial(settings, value))
    return trials


def show_status(argv: Sequence[str]) -> None:
    """Carry out ``ilu sweep status``."""
    folder = parse(Folder, f"{PROG} status", argv).folder
    show(folder, Where().workers)
    show_results(folder, read_plan(folder)["runs"])


def resume(argv: Sequence[str]) -> None:
    """Carry out ``ilu sweep resume``."""
    wanted: Resume = parse(Resume, f"{PROG} resume", argv)
    plan = read_plan(wanted.folder)
    with sweeping(wanted.folder, wanted.where) as carry_out:
        errors = carry_out(plan["runs"])
    if plan["search"]:
        console.print("what was planned is done; a search goes on with its own command")
    show_results(wanted.folder, plan["runs"])
    ended(wanted.folder, errors)


def cancel_sweep(argv: Sequence[str]) -> None:
    """Carry out ``ilu sweep cancel``."""
    out = parse(Folder, f"{PROG} cancel", argv).folder
    cancel(out)
    running = sum(each.state == "running" for each in statuses(out).values())
    console.print(f"{running} runs are under way and stop after their step", markup=False)


SUBCOMMANDS = {"status": show_status, "resume": resume, "cancel": cancel_sweep}


def ended(out: Path, errors: Mapping[str, str]) -> None:
    """Say how a sweep came out; failures are an error, each with its reason.

    ``errors`` has that of runs whose process was lost and could write none.
    """
    found = statuses(out)
    left = {name: each for name, each in found.items() if each.state != "done"}
    for name, each in left.items():
        why = each.reason or errors.get(name, "")
        said = f"{each.state}: {name}: {why}" if why else f"{each.state}: {name}"
        console.print(as_flags(said), markup=False, soft_wrap=True)
    if left:
        raise ValueError(f"{len(left)} of {len(found)} runs are not done: see above")
    runs = out / "runs"
    console.print(f"{len(found)} runs: ilu report {runs} --out report.html", markup=False)
