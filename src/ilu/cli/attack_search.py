"""``ilu attack --search``: the settings at which each attack brings back most."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ilu.attacks.registry import label
from ilu.cli.arguments.attack import Attack
from ilu.cli.carry_out import carry_out
from ilu.cli.terminal import console, number, table
from ilu.recipes.attacks import check_labels
from ilu.runs.attack_stage import check_failures
from ilu.runs.check import check_inputs
from ilu.runs.recipe import Recipe
from ilu.runs.results.run_metrics import read, worst_usable_case
from ilu.runs.run_dir import RunDir
from ilu.runs.sweep.folder import place
from ilu.runs.sweep.optuna_search import Range, Trial, read_ranges, suggest
from ilu.runs.sweep.worker import finished, recorded
from ilu.system.atomic import json_hash, write_json

SEARCHED = ("lr", "steps", "batch_size", "lora_rank")
"""Settings of an attacker that can be searched."""
NOTHING = -2.0
"""The value of a trial that leaves no usable model; a usable one has -1 to 0."""
Settings = Mapping[str, float]
Make = Callable[[Attack, str], Recipe]
"""From the flags and the name of an attack to its recipe."""


class Strongest(NamedTuple):
    """The best trial of an attack: its settings, and ``forgotten``, or None if none is usable."""

    attack: str
    settings: Settings
    forgotten: float | None


def search_attacks(wanted: Attack, make: Make) -> None:
    """Search the settings of every attack in the same number of trials, and show the strongest."""
    ranges = ranges_of(wanted)
    names = list(dict.fromkeys(wanted.attack))
    check_labels(names)
    check_inputs([make(with_settings(wanted, lowest(ranges)), name) for name in names])
    found = [strongest_found(wanted, name, ranges, make) for name in names]
    found.sort(key=lambda each: (each.forgotten is None, each.forgotten))
    write_json(wanted.place.out / "search.json", {"strongest": [e._asdict() for e in found]})
    rows = [(e.attack, written(e.settings), number(e.forgotten)) for e in found]
    title = f"the strongest of {wanted.trials} trials that keeps {wanted.usable:g} of the utility"
    table(title, ("attack", "settings", "forgotten"), rows)
    console.print(f"all trials: {wanted.place.out / 'runs'}", markup=False, soft_wrap=True)


def ranges_of(wanted: Attack) -> dict[str, Range]:
    """The ranges of the search; ValueError for what cannot be searched."""
    ranges = read_ranges(wanted.search)
    if other := [key for key in ranges if key not in SEARCHED]:
        raise ValueError(f"`search` {other[0]}: choose {', '.join(SEARCHED)}")
    if not wanted.attack or wanted.probe or wanted.keep_models:
        raise ValueError(
            "`search` is for attacks that train: give `attack`, no `probe` and no `keep_models`"
        )
    if wanted.trials < 1 or not 0 <= wanted.usable <= 1:
        raise ValueError(
            f"`trials` {wanted.trials}, `usable` {wanted.usable:g}: trials must be at least 1, and "
            "the share from 0 to 1"
        )
    return ranges


def lowest(ranges: Mapping[str, Range]) -> dict[str, float]:
    """The smallest settings, to check recipes with."""
    return {key: each.low for key, each in ranges.items()}


def with_settings(wanted: Attack, settings: Settings) -> Attack:
    """The flags with these settings of the attacker."""
    typed: dict[str, Any] = {k: v if k == "lr" else round(v) for k, v in settings.items()}
    own = {k: v for k, v in typed.items() if k in ("lr", "steps")}
    shared = {k: v for k, v in typed.items() if k not in own}
    return replace(wanted, **own, settings=replace(wanted.settings, **shared))


def strongest_found(
    wanted: Attack, name: str, ranges: Mapping[str, Range], make: Make
) -> Strongest:
    """The trial that brings back most while the model is usable; the first of several."""
    trials: list[Trial] = []
    while len(trials) < wanted.trials:
        (settings,) = suggest(ranges, trials, 1, seed=wanted.settings.seed)
        recipe = make(with_settings(wanted, settings), name)
        path = carried_out(wanted, name, settings, recipe)
        trials.append(Trial(settings, value(RunDir(path), wanted.usable)))
    best = max(trials, key=lambda trial: NOTHING if trial.value is None else trial.value)
    unusable = best.value is None or best.value == NOTHING
    return Strongest(name, best.settings, None if unusable else abs(best.value or 0.0))


def carried_out(wanted: Attack, name: str, settings: Settings, recipe: Recipe) -> Path:
    """The folder of a trial, which is not done again if it is finished."""
    varied = "-".join(f"{key}={value:.4g}" for key, value in settings.items())
    record = recorded(recipe)
    path = place(wanted.place.out, f"{label(name)}-{varied}-{json_hash(record)[:10]}")
    if not finished(path, record):
        where = replace(wanted.place, out=path, resume=path.exists())
        check_failures(carry_out(recipe, where, shared=wanted.cache))
    return path


def value(run: RunDir, usable: float) -> float:
    """Minus ``forgotten`` in the worst usable case; ValueError if forgetting was not measured.

    Usable is relative to the attacked model.
    """
    m = read(run)
    if m.forget is None:
        raise ValueError(
            f"the search needs questions on what was forgotten, and {run.path.name} measured none: "
            "choose another `suite`, such as lab or facts"
        )
    found = worst_usable_case(m, usable)
    return NOTHING if found is None else -found[1].value


def written(settings: Settings) -> str:
    """Settings in a line."""
    return ", ".join(f"{key} {value:.4g}" for key, value in settings.items())
