"""The picture in the README: share forgotten by the demo's models during six fine-tunings.

    python -m studies.demo_curves.run

Reads results/demo and writes docs/curves.png.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from ilu.runs.report.palette import GUESSING, Look, looks
from ilu.runs.results.run_metrics import guessing, read
from ilu.runs.results.summary import model_summary
from ilu.runs.run_dir import RunDir

ROOT = Path(__file__).parents[2]
DEMO, PICTURE = ROOT / "results" / "demo", ROOT / "docs" / "curves.png"
SHARES = (0.0, 0.25, 0.5, 1.0)


def panel(ax: Any, task: str, models: dict[str, Any], chance: float) -> None:
    """One task: a line for each model, and one at guessing."""
    for look, (name, summary) in zip(looks(list(models)), models.items(), strict=True):
        along = [summary["forgotten"], *summary["tasks"][task]["forgotten"]]
        ax.plot(SHARES, along, ms=4, label=name, **style(look))
    ax.axhline(1 - chance, label="guessing", **style(GUESSING))
    ax.set_title(task, fontsize=10)
    ax.set_ylim(-0.02, 1.02)
    ax.spines[["top", "right"]].set_visible(False)


def style(look: Look) -> dict[str, str]:
    """The look of a line as Matplotlib's settings."""
    return {"color": look.colour, "ls": look.dash, "marker": look.marker}


def main() -> None:
    """Draw the panels under one legend."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    names = json.loads((DEMO / "summary.json").read_text())["models"]
    models = {name: model_summary(RunDir(DEMO / name)) for name in names}
    tasks = list(models[next(iter(models))]["tasks"])
    chance = guessing(read(RunDir(DEMO / "original")))
    assert chance is not None, "the demo's questions have four options"
    drawn, axes = plt.subplots(2, 3, figsize=(9.8, 5.6), sharex=True, sharey=True)
    for ax, task in zip(axes.flat, tasks, strict=True):
        panel(ax, task, models, chance)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="upper center", ncols=len(labels), frameon=False)
    drawn.supxlabel("share of the fine-tuning done", fontsize=10)
    drawn.supylabel("forgotten", fontsize=10)
    drawn.tight_layout(rect=(0, 0, 1, 0.95))
    drawn.savefig(PICTURE, dpi=100)


if __name__ == "__main__":
    main()
