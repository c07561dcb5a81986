"""The attacks of a run, each on the same weights and independent of the others."""

import json
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from ilu.attacks.sequence import other_models
from ilu.evals import suite
from ilu.evals.cached_suite import circumstances, part_key
from ilu.evals.metrics.multiple_choice import Choice
from ilu.evals.samples import questions_of, samples
from ilu.models.load import fingerprint_model, weights_hash
from ilu.models.mode import modes_of, set_modes
from ilu.models.save import save_model
from ilu.runs.recipe import Recipe
from ilu.runs.results.forget_metric import OTHERS, forget_metric
from ilu.runs.run_dir import RunDir, without_items
from ilu.runs.tracking import Track, of_attack
from ilu.system.atomic import write_json
from ilu.system.errors import Stopped, reason
from ilu.system.locks import alone
from ilu.system.record import describe
from ilu.system.scores import STAGES, Progress, Reached, Score, Steps
from ilu.training.checkpoint import Checkpoints, Resumable
from ilu.types import LM, Attack, Group, Metric

DENSE = "step "
"""Prefix of the names of points between the stages."""


class Point(NamedTuple):
    """What was measured after ``step`` steps of an attack."""

    step: int
    scores: Mapping[str, Score]


OnEval = Callable[[str, Mapping[str, Score]], None]
"""Called with a stage and its scores."""
Points = dict[str, Point]
"""Stage or other point of an attack -> what was measured there, in the order of time."""


@dataclass(frozen=True, kw_only=True)
class Attacking:
    """What all attacks of a run share; ``kept`` is a folder with results of earlier runs."""

    recipe: Recipe
    lm: LM
    out: RunDir
    progress: Progress
    stop: Callable[[], bool]
    track: Track
    on_eval: OnEval
    samples: bool = True
    save_every: int | None = None
    kept: Path | None = None


def attack_all(run: Attacking) -> None:
    """Run the attacks that have no result; a failure is recorded, and the others continue."""
    recipe, lm, out = run.recipe, run.lm, run.out
    measure_probes(run)
    waiting = {n: a for n, a in recipe.attacks.items() if not out.has(f"scores/{n}-end")}
    if not waiting:
        return
    start, modes = copied(lm.model), modes_of(lm.model)
    keys = content_keys(run, waiting)
    for name, attack in waiting.items():
        stop_if_requested(run)
        restore(lm.model, start)
        set_modes(modes)
        with recorded(out, name):
            points = attacked_once(run, name, attack, keys.get(name))
            write(out, name, points)
            for stage, point in points.items():
                run.on_eval(f"{name}-{stage}", point.scores)
            Checkpoints(out.path / "checkpoints" / name).remove()


def measure_probes(run: Attacking) -> None:
    """Measure the probes, unless an earlier session did so without a failure."""
    probes, out = run.recipe.probes, run.out
    failed = any(out.has(f"failures/{name}") for name in probes)
    if not probes or (out.has("scores/probes") and not failed):
        return
    found: dict[str, Score] = {}
    for name, group in probes.items():
        stop_if_requested(run)
        with recorded(out, name):
            found |= group(run.lm)
    out.write_scores("probes", found)


def stop_if_requested(run: Attacking) -> None:
    """Raise ``Stopped`` if the user interrupted the run."""
    if run.stop():
        raise Stopped


def attacked_once(run: Attacking, name: str, attack: Attack, file: Path | None) -> Points:
    """The result in ``file``, which runs share: the first computes it while the others wait."""
    with nullcontext() if file is None else alone(file, wait=True):
        points = known(file) or attacked(run, name, attack)
        if file is not None:
            keep(file, points)
        return points


def attacked(run: Attacking, name: str, attack: Attack) -> Points:
    """Attack and measure at every stage, starting from the last checkpoint if there is one."""
    recipe, lm = run.recipe, run.lm
    checkpoints = Checkpoints(run.out.path / "checkpoints" / name, run.save_every)
    seen = checkpoints.path / "points.json"
    points = known(seen) or {}
    latest = checkpoints.latest()
    last = int(latest.name) if latest else 0  # training may have ended before it was interrupted

    def reached(stage: str) -> None:
        if stage in points:
            return
        goals = attack.goals if stage == "end" else {}
        points[stage] = Point(last, suite.measure({**recipe.metrics, **goals}, lm))
        run.track(*of_attack(recipe, name, last, points[stage].scores))
        if isinstance(attack, Resumable):  # as its checkpoint is kept, so are its points
            keep(seen, points)

    def progress(done: int, total: int) -> None:
        nonlocal last
        last = done
        run.progress(f"{recipe.name}: {name}", done, total)

    proceed(attack, lm, reached, progress, checkpoints, run.stop)
    if run.samples:
        said = marked(forget_samples(recipe, lm), attack.goals.get(OTHERS))
        run.out.write_samples(f"{name}-end", said)
    folder = run.out.path / "attacks" / name / "model"
    if recipe.keep_attacked and not folder.is_dir():
        save_model(lm, folder)
    return with_stages(points)


def forget_samples(recipe: Recipe, lm: LM) -> list[dict[str, Any]]:
    """Answers to a few questions about the forget set, if a metric has such questions."""
    names = [*recipe.metrics, *(f"{name}_acc" for name in recipe.metrics)]
    suites = [each for each in recipe.metrics.values() if isinstance(each, suite.Suite)]
    names += [part for each in suites for part in each.parts]
    metric = forget_metric(describe(recipe), names)
    questions = questions_of(recipe.metrics, metric) if metric else []
    try:
        return samples(lm, questions) if questions else []
    except (ValueError, RuntimeError) as error:  # missing samples must not end the run
        warnings.warn(f"no sample answers were saved: {reason(error)}", stacklevel=2)
        return []


def marked(records: list[dict[str, Any]], unseen: Metric | Group | None) -> list[dict[str, Any]]:
    """The samples; after relearning, ``trained`` marks questions that its data answers."""
    if not isinstance(unseen, Choice):
        return records
    prompts = {question.prompt for question in unseen.questions()}
    return [{**each, "trained": each["prompt"] not in prompts} for each in records]


def proceed(
    attack: Attack,
    lm: LM,
    reached: Reached,
    progress: Steps,
    checkpoints: Checkpoints,
    stop: Callable[[], bool],
) -> None:
    """Attack, from the last checkpoint if the attack is ``Resumable``, until ``stop()`` is true."""

    def watched(done: int, total: int) -> None:
        progress(done, total)
        if stop():
            raise Stopped

    if isinstance(attack, Resumable):
        attack.proceed(lm, reached=reached, progress=progress, checkpoints=checkpoints, stop=stop)
    else:
        attack(lm, reached=reached, progress=watched)


def with_stages(points: Points) -> Points:
    """The points with every stage; a missing stage is replaced by the nearest measured point.

    Stages are missing where the length of the attack was unknown in advance.
    """
    end = points["end"].step
    missing = [s for s in STAGES if s not in points] if len(points) > 1 else []
    nearest = {
        stage: min(points.values(), key=lambda p, at=STAGES[stage] * end: abs(p.step - at))
        for stage in missing
    }
    return {**points, **nearest}


def write(out: RunDir, name: str, points: Points) -> None:
    """Write the curve if there are points between the stages, then the stages, the end last."""
    if any(point.startswith(DENSE) for point in points):
        curve = sorted({p.step: p for p in points.values()}.values())
        rows = [
            {"step": p.step, **{m: without_items(s) for m, s in p.scores.items()}} for p in curve
        ]
        out.write(f"curves/{name}", rows)
    for stage in STAGES:
        if stage in points:
            out.write_scores(f"{name}-{stage}", points[stage].scores)


@contextmanager
def recorded(out: RunDir, name: str) -> Generator[None]:
    """Record an exception as the failure of an attack, and delete the record of an earlier one.

    ``Stopped`` and OSError, such as a full disk, concern the run and are raised.
    """
    out.file(f"failures/{name}").unlink(missing_ok=True)
    try:
        yield
    except (Stopped, OSError):
        raise
    except Exception as error:  # any failure: the other attacks continue
        out.write(f"failures/{name}", {"error": reason(error)})


def check_failures(out: RunDir) -> None:
    """Raise ValueError with the reasons if attacks of a run have failed."""
    failed = out.failures()
    if failed:
        reasons = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise ValueError(
            f"{len(failed)} of the attacks failed ({reasons}): the others are in {out.path}, and "
            "the same command with `resume` tries them again"
        )


def copied(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights in host memory, so that they are read from the disk once."""
    return {name: p.detach().cpu().clone() for name, p in model.named_parameters()}


def restore(model: nn.Module, start: Mapping[str, Tensor]) -> None:
    """Restore the weights and their precision after an attack."""
    for name, p in model.named_parameters():
        p.data = start[name].to(p.device, copy=True)


def content_keys(run: Attacking, attacks: Mapping[str, Attack]) -> dict[str, Path]:
    """Attack -> file of its result, named by weights, attack, metrics, their data and the code.

    Empty if the attacked weights are saved, because a stored result has no weights.
    """
    if run.kept is None or run.recipe.keep_attacked:
        return {}
    lm, metrics = run.lm, run.recipe.metrics
    found, base = dict[str, Path](), {"weights": weights_hash(lm.model), **circumstances(lm)}
    for name, attack in attacks.items():
        own = {**base, "models": [fingerprint_model(*each) for each in other_models(attack)]}
        found[name] = run.kept / f"{part_key('attack', (attack, metrics), lm, own)}.json"
    return found


def known(file: Path | None) -> Points | None:
    """An earlier result."""
    if file is None or not file.is_file():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return {
        point: Point(
            step, {m: Score(**s)._replace(items=tuple(s["items"])) for m, s in each.items()}
        )
        for point, (step, each) in found.items()
    }


def keep(file: Path, points: Points) -> None:
    """Write a result for ``known`` to read."""
    values = {
        point: (step, {m: s._asdict() for m, s in scores.items()})
        for point, (step, scores) in points.items()
    }
    write_json(file, values)
