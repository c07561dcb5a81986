"""A run on disk: JSON, JSON lines and safetensors, readable without the package or a GPU."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from ilu.evals.score import written
from ilu.runs.results.display import displayed
from ilu.runs.results.forget_metric import forget_metric
from ilu.system.atomic import inside, write_json, write_text
from ilu.system.leader import ONLY, Leader
from ilu.system.record import with_stable_names
from ilu.system.scores import STAGES, Score

MASK = "mask.safetensors"
"""File of the mask that a run made."""
DISTILLED = "undo"
"""Name of the training log of the distillation after the unlearning."""
VALIDATION = "validation"
"""Name of the log of what was measured during the unlearning."""
NOT_TERMS = {"step", "lr", "grad_norm"}
"""Columns of a training log that are no terms of the objective."""
PROBES = "probes"
"""Stage of the prompting attacks, once, after unlearning."""


@dataclass(frozen=True)
class RunDir:
    """The directory of a run. Files are written atomically and once, except ``cost.json``, to which
    every session adds; ``done.json`` is the last.

    recipe.json, environment.json, code.diff, data.json, train.jsonl, validation.jsonl (what was
    measured during the unlearning), undo.jsonl (of a distillation after it), cost.json, model/
    (unless the run leaves the model as it is), model.json (hashes of its weights), saving.json
    (its precision, and the relative change of the weights by rounding), scores/STAGE.json,
    examples/STAGE/METRIC.jsonl, samples/STAGE.jsonl with questions and answers,
    attacks/NAME/model/, curves/NAME.json where an attack was measured more often than at its
    stages, failures/NAME.json with the reason if it failed, vectors.json, done.json; failed.json if
    the run failed in a sweep.
    Of several processes only the first reads and writes files; the others receive its results.
    """

    path: Path
    ranks: Leader = ONLY

    @classmethod
    def finished(cls, path: Path) -> "RunDir":
        """Open a finished run for reading; ValueError for any other folder."""
        if not (path / "recipe.json").is_file():
            raise ValueError(f"{path} is not a run directory: it has no recipe.json")
        if not (path / "done.json").is_file():
            raise ValueError(
                f"{path} is not finished: continue it with the same command and `resume`"
            )
        return cls(path)

    @property
    def model(self) -> str:
        """The model that the run made: its folder, or the model it began with if it made none."""
        folder, recipe = self.path / "model", self.read("recipe")
        if folder.is_dir() or any(recipe.get(part) for part in ("objective", "edit", "undo")):
            return str(folder)
        return str(recipe["model"])

    @property
    def name(self) -> str:
        """The name of the recipe that was run."""
        return str(self.read("recipe")["name"])

    def file(self, name: str) -> Path:
        """Path of ``name``.json."""
        return inside(self.path, f"{name}.json")

    def log(self, name: str) -> Path:
        """Path of ``name``.jsonl."""
        return inside(self.path, f"{name}.jsonl")

    def has(self, name: str) -> bool:
        """Whether ``name``.json exists; it is then complete."""
        return self.ranks.first(self.file(name).is_file)

    def write(self, name: str, value: Any) -> None:
        """Write ``value`` as ``name``.json."""
        if self.ranks.leads:
            write_json(self.file(name), value)

    def read(self, name: str) -> Any:
        """Read ``name``.json."""
        text = self.ranks.first(lambda: self.file(name).read_text(encoding="utf-8"))
        return with_stable_names(json.loads(text))

    def append(self, name: str, row: Mapping[str, float]) -> None:
        """Append a line to ``name``.jsonl and flush it."""
        if not self.ranks.leads:
            return
        with self.log(name).open("a", encoding="utf-8") as f:
            f.write(json.dumps(row, allow_nan=False) + "\n")

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Read the lines of ``name``.jsonl; a truncated last line is left out."""
        path = self.log(name)
        if not path.is_file():
            return []
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def keep_rows(self, name: str, count: int) -> None:
        """Cut ``name``.jsonl after ``count`` lines: a resumed run writes the later ones again."""
        if not self.ranks.leads:
            return
        kept = self.rows(name)[:count]
        write_text(self.log(name), "".join(json.dumps(row) + "\n" for row in kept))

    def write_scores(self, stage: str, scores: Mapping[str, Score]) -> None:
        """Write the value of every item, then the means."""
        if not self.ranks.leads:
            return
        for metric, score in scores.items():
            lines = "".join(
                json.dumps({"item": i, "value": v}) + "\n" for i, v in enumerate(score.items)
            )
            write_text(self.log(f"examples/{stage}/{metric}"), lines)
        means = {m: without_items(s) for m, s in scores.items()}
        self.write(f"scores/{stage}", means)

    def write_samples(self, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the model's answers to a few questions; without rows no file is written."""
        if rows and self.ranks.leads:
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            write_text(self.log(f"samples/{stage}"), text)

    def scores(self, stage: str) -> dict[str, Score]:
        """What was measured at ``stage``: ``before``, ``after``, ``probes`` or ``ATTACK-STAGE``."""
        return {metric: Score(**s) for metric, s in self.read(f"scores/{stage}").items()}

    def _repr_html_(self) -> str:
        """The table of scores for a notebook."""
        stored = {stage: self.scores(stage) for stage in self.stages()}
        names = {metric for scores in stored.values() for metric in scores}
        forget = forget_metric(self.read("recipe"), names)
        stages = {stage: displayed(scores, forget) for stage, scores in stored.items()}
        head = "".join(f"<th>{escape(cell)}</th>" for cell in ("metric", *stages))
        rows = "".join(
            f"<tr><th>{escape(m)}</th>{''.join(cell(s.get(m)) for s in stages.values())}</tr>"
            for m in dict.fromkeys(metric for scores in stages.values() for metric in scores)
        )
        title = escape(f"{self.name}: {self.path}")
        return f"<table><caption>{title}</caption><tr>{head}</tr>{rows}</table>"

    def stages(self) -> list[str]:
        """Every stage that was measured, in the order of time."""
        found = {p.stem for p in (self.path / "scores").glob("*.json")}
        attacks = (f"{a}-{stage}" for a in self.read("recipe")["attacks"] for stage in STAGES)
        return [stage for stage in ("before", "after", PROBES, *attacks) if stage in found]

    def failures(self) -> dict[str, str]:
        """Attack -> why it failed."""
        files = sorted((self.path / "failures").glob("*.json"))
        return {file.stem: str(self.read(f"failures/{file.stem}")["error"]) for file in files}


def cell(score: Score | None) -> str:
    """A score in a table of HTML."""
    shown = "-" if score is None else written(score.value, score.stderr, score.n)
    return f"<td>{shown}</td>"


def without_items(score: Score) -> dict[str, float]:
    """A score as JSON without its items, which have their own file, and unknown ``chance``."""
    kept = {k: v for k, v in score._asdict().items() if k != "items"}
    return kept if score.chance is not None else {k: v for k, v in kept.items() if k != "chance"}
