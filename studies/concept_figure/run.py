"""What does the penalty of ILU measure? The loss of an environment when w scales all weights.

    python -m studies.concept_figure.run

Writes docs/concepts.svg and results/concept_figure.json. The lab's model, unlearned by NPO without
and with the penalty in the reading ``parameters``. The penalty is the square of the slope at w = 1.
One seed: it illustrates a definition and is not a finding.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

from ilu.evals.metrics.likelihood import AnswerNLL
from ilu.lab.sources import TaskTrain
from ilu.models.load import load_model
from ilu.recipes.build import build
from ilu.runs.report.palette import looks
from ilu.runs.report.svg import STYLE, inline
from ilu.runs.run import run
from ilu.system.atomic import write_json, write_text

ROOT = Path(__file__).parents[2]
WEIGHTS = [0.9 + 0.01 * i for i in range(21)]
RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "NPO": ("npo", {"steps": 130}),
    "NPO + ILU": ("npo-ilu", {"steps": 130, "reading": "parameters", "strength": 0.1}),
}


@torch.no_grad()
def losses(folder: str) -> list[float]:
    """Loss of the environment with every weight multiplied by w, for each w."""
    lm, metric = load_model(folder), AnswerNLL(TaskTrain("sums"), 96)
    start = [p.clone() for p in lm.model.parameters()]
    found: list[float] = []
    for w in WEIGHTS:
        for p, first in zip(lm.model.parameters(), start, strict=True):
            p.copy_(w * first)
        found.append(metric(lm).value)
    return found


def unlearned(name: str, settings: dict[str, Any]) -> list[float]:
    """The same after unlearning."""
    with tempfile.TemporaryDirectory() as folder:
        out = run(build(name, {"model": "lab", **settings}), Path(folder) / "run")
        return losses(str(out.path / "model"))


def draw(curves: dict[str, list[float]]) -> str:
    """The figure, whose lines carry their names."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        panel = Figure(figsize=(5.2, 2.8), layout="constrained")
        FigureCanvasSVG(panel)
        ax = panel.subplots()
        ax.axvline(1.0, color="#808080", lw=0.8, ls=":")
        names = [RECIPES[name][0] if name in RECIPES else name for name in curves]
        for look, (name, ys) in zip(looks(names), curves.items(), strict=True):
            ax.plot(WEIGHTS, ys, color=look.colour, ls=look.dash, lw=1.6)
            under = -4 if name == "original" else 4
            ax.annotate(name, (WEIGHTS[-1], ys[-1]), (4, under), textcoords="offset points",
                        color=look.colour, va="center")  # fmt: skip
        ax.set_xlim(WEIGHTS[0], WEIGHTS[-1] + 0.045)
        ax.set_xlabel("w, the factor on all weights")
        ax.set_ylabel("loss of the environment")
        return inline(panel).replace("<svg ", '<svg font-family="sans-serif" ', 1) + "\n"


def main() -> None:
    """Train, measure, draw, and keep the numbers."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    curves = {"original": losses("lab")} | {k: unlearned(*v) for k, v in RECIPES.items()}
    record = {"command": "python -m studies.concept_figure.run", "torch": torch.__version__}
    settings = {k: {"recipe": name, **given} for k, (name, given) in RECIPES.items()}
    slopes = {k: (ys[11] - ys[9]) / (WEIGHTS[11] - WEIGHTS[9]) for k, ys in curves.items()}
    write_json(
        ROOT / "results" / "concept_figure.json",
        {**record, "settings": settings, "w": WEIGHTS, "losses": curves, "slopes": slopes},
    )
    write_text(ROOT / "docs" / "concepts.svg", draw(curves))


if __name__ == "__main__":
    main()
