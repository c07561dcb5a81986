"""Search for settings with Optuna; what is known of the trials lies in their run directories."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ilu.runs.run_dir import RunDir
from ilu.system.optional import need

ALIASES = {"lambda": "strength"}
"""What the paper calls a setting -> what it is called here."""
Goal = Mapping[tuple[str, str], float]
"""Metric and stage -> its weight in what is to be large."""


class Range(NamedTuple):
    """Where a setting may lie; ``whole`` for whole numbers."""

    low: float
    high: float
    log: bool
    whole: bool


def read_ranges(items: Sequence[str]) -> dict[str, Range]:
    """``KEY=LOW:HIGH`` or ``KEY=LOW:HIGH:log``; whole numbers if both bounds are written so."""
    found: dict[str, Range] = {}
    for item in items:
        number = r"([\d.]+(?:e[+-]?\d+)?)"
        match = re.fullmatch(rf"([\w-]+)={number}:{number}(:log)?", item)
        if match is None:
            raise ValueError(f"`search` {item!r}: write KEY=LOW:HIGH or KEY=LOW:HIGH:log")
        low, high = float(match[2]), float(match[3])
        if not low < high or (match[4] and low <= 0):
            raise ValueError(f"`search` {item!r}: LOW must be below HIGH, and above 0 with log")
        whole = match[2].isdigit() and match[3].isdigit()
        key = setting(match[1])
        if key in found:
            raise ValueError(f"`search` {item!r}: {key} is there twice")
        found[key] = Range(low, high, bool(match[4]), whole)
    return found


def setting(key: str) -> str:
    """The name here of a setting that the command line calls ``key``."""
    return ALIASES.get(key, key).replace("-", "_")


class Trial(NamedTuple):
    """Settings that were tried and how good they are; None where the run failed."""

    settings: Mapping[str, float]
    value: float | None


def ask(
    ranges: Mapping[str, Range], trials: Sequence[Trial], count: int, *, seed: int
) -> list[dict[str, float]]:
    """The next ``count`` settings to try, a function of the trials before them and of the seed.

    TPE of Optuna. The study is made anew from the trials each time, so that there is no state that
    could be lost: a search that was interrupted asks the same again.
    """
    need("optuna", "search", "`search`")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {key: distribution(each) for key, each in ranges.items()}
    sampler = optuna.samplers.TPESampler(seed=seed * 100_003 + len(trials), n_startup_trials=5)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    states = optuna.trial.TrialState
    for trial in trials:
        study.add_trial(
            optuna.trial.create_trial(
                state=states.FAIL if trial.value is None else states.COMPLETE,
                params=dict(trial.settings),
                distributions=space,
                value=trial.value,
            )
        )
    return [dict(study.ask(space).params) for _ in range(count)]


def distribution(wanted: Range) -> Any:
    """Optuna's description of a range."""
    from optuna.distributions import FloatDistribution, IntDistribution

    if wanted.whole:
        return IntDistribution(int(wanted.low), int(wanted.high), log=wanted.log)
    return FloatDistribution(wanted.low, wanted.high, log=wanted.log)


def value(run: RunDir, goal: Goal) -> float:
    """How good a finished trial is."""
    total = 0.0
    for (metric, stage), weight in goal.items():
        found = run.scores(stage) if stage in run.stages() else {}
        if metric not in found:
            raise ValueError(
                f"`goal` {metric}@{stage}: the run {run.path.name} has no such score; it has "
                f"{', '.join(f'{m}@{s}' for s in run.stages() for m in run.scores(s))}"
            )
        total += weight * found[metric].value
    return total


def best(trials: Sequence[Trial]) -> Mapping[str, float]:
    """The settings of the best trial."""
    good = [trial for trial in trials if trial.value is not None]
    if not good:
        raise ValueError("every trial of the search failed: ilu sweep status says why")
    return max(good, key=lambda trial: trial.value or 0.0).settings
