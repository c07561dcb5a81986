"""Measure validation data during training, and keep the weights of a chosen step."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ilu.evals.metrics.likelihood import AnswerNLL
from ilu.runs.results.outcome import lost_above_guessing
from ilu.runs.run_dir import VALIDATION, RunDir, without_items
from ilu.system.atomic import new_file
from ilu.system.scores import Score
from ilu.training.checkpoint import save_tensors
from ilu.training.optim.settings import Keep
from ilu.types import LM, Metric, Weights

ENOUGH = 0.9
"""Share of the retained data that the best step keeps at least."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What is measured every ``every`` steps, and which step's weights are kept.

    ``forget`` and ``retain`` are accuracies or ``AnswerNLL`` losses, never on test questions.
    ``keep``: ``last``; ``best``, the step that forgets most among those that keep 90 % of what is
    retained, or else the one that keeps most; a number, the step whose forgotten share is nearest.
    """

    every: int
    forget: Metric
    retain: Metric | None = None
    keep: Keep = "last"

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"`eval_every` {self.every}: it must be at least 1")
        if isinstance(self.keep, float) and not 0 < self.keep <= 1:
            raise ValueError(
                f"`keep` {self.keep:g}: give last, best, or the share to forget, above 0 and at "
                "most 1"
            )


def lost(metric: Metric, before: Score, now: Score) -> float:
    """The share that is lost of an accuracy above guessing, or of the probability of a token.

    Of a loss, the probability is the geometric mean over tokens.
    """
    if isinstance(metric, AnswerNLL):
        return 1 - math.exp(before.value - now.value)
    return lost_above_guessing(before, now)


def chosen_step(rows: Sequence[Mapping[str, Any]], keep: Keep) -> int:
    """The step whose weights are kept, of rows with ``step``, ``forgotten`` and ``kept``.

    The first row, before training, is never chosen. Of equal steps the earliest is.
    """
    trained = rows[1:]
    if keep == "last":
        return int(trained[-1]["step"])
    if keep == "best":
        enough = [row for row in trained if row.get("kept", 1.0) >= ENOUGH]
        by = "forgotten" if enough else "kept"
        return int(max(enough or trained, key=lambda row: row[by])["step"])
    return int(min(trained, key=lambda row: abs(row["forgotten"] - keep))["step"])


def recorded(score: Mapping[str, Any]) -> Score:
    """A score as it was written."""
    return Score(**score)


@dataclass(frozen=True)
class Watch:
    """The validation of a run under way; the weights of the best step so far are in ``file``."""

    validation: Validation
    lm: LM
    out: RunDir
    file: Path
    trained: Weights
    steps: int

    def __call__(self, step: int) -> None:
        """Measure after ``step`` steps if it is due, and write a row."""
        if step % self.validation.every and step != self.steps:
            return
        rows = self.out.rows(VALIDATION)
        rows.append(self.measured(step, rows[0] if rows else None))
        self.out.append(VALIDATION, rows[-1])
        if step and self.keeps and chosen_step(rows, self.validation.keep) == step:
            with new_file(self.file) as file:
                save_tensors(self.trained, file)

    @property
    def keeps(self) -> bool:
        """Whether the weights of another step than the last may be kept."""
        return self.validation.keep != "last"

    def measured(self, step: int, first: Mapping[str, Any] | None) -> dict[str, Any]:
        """Both scores, and what was forgotten and kept relative to the ``first`` row."""
        metrics = {"forget": self.validation.forget, "retain": self.validation.retain}
        scores = {role: metric(self.lm) for role, metric in metrics.items() if metric}
        now = {role: without_items(score) for role, score in scores.items()}
        shares = {
            role: lost(metric, recorded(first[role]) if first else scores[role], scores[role])
            for role, metric in metrics.items()
            if metric
        }
        kept = {"kept": min(1.0, 1 - shares["retain"])} if "retain" in shares else {}
        return {"step": step, "forgotten": shares["forget"], **kept, **now}

    @torch.no_grad()
    def put(self) -> str:
        """Give the model the weights of the chosen step; return a sentence that says which."""
        if not self.keeps:
            return ""
        rows = self.out.rows(VALIDATION)
        step = chosen_step(rows, self.validation.keep)
        saved = load_file(self.file)
        for name, p in self.trained.items():
            p.copy_(saved[name])
        row = next(row for row in rows if row["step"] == step)
        kept = f", {row['kept']:.2f} kept" if "kept" in row else ""
        return (
            f"kept the weights after step {step} of {self.steps} "
            f"(validation: {row['forgotten']:.2f} forgotten{kept})"
        )
