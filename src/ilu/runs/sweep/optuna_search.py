"""Search for settings with Optuna; the trials are stored as run directories."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ilu.runs.run_dir import RunDir
from ilu.system.optional import need

ALIASES = {"lambda": "strength"}
"""Name of a setting in the paper -> its name here."""
Goal = Mapping[tuple[str, str], float]
"""Metric and stage -> its weight in the sum that is maximised."""


class Range(NamedTuple):
    """The range of a setting; ``integer`` for integers."""

    low: float
    high: float
    log: bool
    integer: bool


def read_ranges(items: Sequence[str]) -> dict[str, Range]:
    """``KEY=LOW:HIGH`` or ``KEY=LOW:HIGH:log``; of integers if both bounds are integers."""
    found: dict[str, Range] = {}
    for item in items:
        number = r"([\d.]+(?:e[+-]?\d+)?)"
        match = re.fullmatch(rf"([\w-]+)={number}:{number}(:log)?", item)
        if match is None:
            raise ValueError(f"`search` {item!r}: write KEY=LOW:HIGH or KEY=LOW:HIGH:log")
        low, high = float(match[2]), float(match[3])
        if not low < high or (match[4] and low <= 0):
            raise ValueError(f"`search` {item!r}: LOW must be below HIGH, and above 0 with log")
        integer = match[2].isdigit() and match[3].isdigit()
        key = setting(match[1])
        if key in found:
            raise ValueError(f"`search` {item!r}: {key} is given twice")
        found[key] = Range(low, high, bool(match[4]), integer)
    return found


def setting(key: str) -> str:
    """The name of the setting that the command line calls ``key``."""
    return ALIASES.get(key, key).replace("-", "_")


class Trial(NamedTuple):
    """Settings and their value; None if the run failed."""

    settings: Mapping[str, float]
    value: float | None


def suggest(
    ranges: Mapping[str, Range], trials: Sequence[Trial], count: int, *, seed: int
) -> list[dict[str, float]]:
    """The next ``count`` settings to try, by Optuna's TPE.

    A function of the earlier trials and the seed: the study is rebuilt from the trials each time,
    so an interrupted search continues with the same settings.
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

    if wanted.integer:
        return IntDistribution(int(wanted.low), int(wanted.high), log=wanted.log)
    return FloatDistribution(wanted.low, wanted.high, log=wanted.log)


def value(run: RunDir, goal: Goal) -> float:
    """The value of a finished trial."""
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
