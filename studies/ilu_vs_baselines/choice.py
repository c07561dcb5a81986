"""Which setting of a variant is kept, by the rule in run.py, and where the runs are stored."""

from pathlib import Path
from typing import NamedTuple

from ilu.evals.score import mean
from ilu.lab.tasks import VALIDATION
from ilu.runs.results.forget_metric import UTILITY
from ilu.runs.results.summary import forgotten_share
from ilu.runs.run_dir import RunDir
from ilu.system.scores import STAGES
from studies.ilu_vs_baselines.groups import VARIANTS, compared


def chosen_path(out: Path, name: str, choice: int) -> Path:
    """Folder of a validation run."""
    return out / "choice" / f"{name.replace(' ', '_')}_{choice}"


def test_path(out: Path, name: str, seed: int) -> Path:
    """Folder of a run of the table."""
    return out / "test" / f"{name.replace(' ', '_')}_seed{seed}"


class Validated(NamedTuple):
    """A setting on the validation task."""

    forgotten: float
    utility: float
    along: float


def validated(out: Path, name: str, i: int) -> Validated | None:
    """What a setting gave; None where training failed or has not ended."""
    run = RunDir(chosen_path(out, name, i))
    if not run.has("done"):
        return None
    along = mean([forgotten_share(run, f"{VALIDATION.name}-{stage}") for stage in STAGES])
    return Validated(forgotten_share(run, "after"), run.scores("after")[UTILITY].value, along)


def choice(out: Path, group: str, name: str) -> int:
    """Index of the setting to keep, by that rule."""
    found = {i: validated(out, name, i) for i in range(len(VARIANTS[group][name].choices))}
    valid = {i: v for i, v in found.items() if v is not None}
    if name == compared(group).base:
        return max(valid, key=lambda i: valid[i].along + valid[i].utility)
    far = {i: missing(out, group, v) for i, v in valid.items()}
    near = {i: v for i, v in valid.items() if far[i] == 0}
    if near:
        return max(near, key=lambda i: near[i].along)
    return min(far, key=lambda i: far[i])


def missing(out: Path, group: str, v: Validated) -> float:
    """How far a setting is from forgetting and keeping what the plain method does."""
    reference = compared(group)
    plain = validated(out, reference.base, choice(out, group, reference.base))
    assert plain is not None
    forgets = max(0.0, plain.forgotten - 0.05 - v.forgotten)
    return forgets + max(0.0, plain.utility - reference.slack - v.utility)
