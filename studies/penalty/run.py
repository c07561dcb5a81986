"""What does the penalty do to a model? Its size, the temperature of predictions, what moves.

    python -m studies.penalty.run DIR    # 3 minutes on one core; writes results/penalty.json, .md

DIR is that of studies/ilu_vs_baselines, whose test runs are read; nothing is trained. Of every
variant: the penalty at the first and over the last ten steps, and its share of the forget term
then; on 200 examples of the environment `sums` and of the validation task `next` the likelihood of
answers and the entropy of predictions, whose difference is d/dw of the loss of w z, what the
reading `logits` squares; and how far each block of the model was moved.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ilu.data.stream import Feed, open_stream
from ilu.evals.score import mean
from ilu.lab.sources import TaskTrain
from ilu.methods.robust.ilu import token_scale_gradient
from ilu.models.forward import ModelForward
from ilu.models.load import load_model
from ilu.models.named import LAB
from ilu.models.token_math import masked_mean
from ilu.runs.run_dir import RunDir
from ilu.system.atomic import write_json, write_text
from ilu.system.provenance import environment
from ilu.types import LM
from studies.ilu_vs_baselines.choice import test_path
from studies.ilu_vs_baselines.table import ORIGINAL

RESULTS = Path(__file__).parents[2] / "results" / "penalty.json"
READINGS = ("logits", "parameters", "tensors", "elementwise")
VARIANTS = (
    ORIGINAL, "rmu 450 steps", "rmu-control 450 steps", *(f"rmu-ilu {w}" for w in READINGS),
    "rmu-ilu", "npo", "npo-control", *(f"npo-ilu {w}" for w in (*READINGS, "gradient")),
)  # fmt: skip
TASKS = ("sums", "next")
LAST = 10
"""Steps that the end of a training is averaged over."""


def penalty(run: RunDir) -> dict[str, float]:
    """Its value at first and at last, and the weighted value as a share of the forget term's."""
    log = run.rows("train")
    if not log or "invariance" not in log[0]:
        return {}
    term = run.read("recipe")["objective"]["invariance"]
    first = log[0]["invariance"]
    unit = log[0]["forget"] / first if term["relative_to"] else 1.0
    last = mean([row["invariance"] for row in log[-LAST:]])
    forget = mean([row["forget"] for row in log[-LAST:]])
    return {
        "penalty_left": last / first,
        "share_at_first": term["weight"] * unit * first / log[0]["forget"],
        "share_at_last": term["weight"] * unit * last / forget,
    }


@torch.no_grad()
def temperature(lm: LM, task: str) -> dict[str, float]:
    """Likelihood, entropy, and their difference, of answers to a task."""
    batch = open_stream(Feed(TaskTrain(task), 200), lm.tokenizer, limit=None, seed=1, name=task)(0)
    tokens = ModelForward(lm.model).tokens(batch, entropy=True)
    values = {
        "nll": -tokens.logp, "entropy": tokens.entropy, "slope": token_scale_gradient(tokens),
    }  # fmt: skip
    return {
        f"{task}_{name}": masked_mean(each, tokens.valid).mean().item()
        for name, each in values.items()
    }


def moved(lm: LM, start: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Change of each block, as a share of its norm."""
    blocks: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for name, now in lm.model.state_dict().items():
        found = re.search(r"layers\.(\d+)\.", name)
        block = f"block {found[1]}" if found else "embeddings, norm, head"
        blocks.setdefault(block, []).append((now - start[name], start[name]))
    return {
        block: (norm([d for d, _ in pairs]) / norm([w for _, w in pairs])).item()
        for block, pairs in sorted(blocks.items())
    }


def norm(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Euclidean norm of all together."""
    return torch.stack([t.norm() for t in tensors]).norm()


def shown(run: RunDir, start: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Everything about one run."""
    lm = load_model(str(run.path / "model"))
    heat = {key: value for task in TASKS for key, value in temperature(lm, task).items()}
    return {**penalty(run), **heat, **moved(lm, start)}


def row(out: Path, variant: str, seeds: int, start: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Means over the seeds."""
    runs = [RunDir(test_path(out, variant, seed)) for seed in range(1, seeds + 1)]
    found = [shown(run, start) for run in runs]
    commits = sorted({run.read("environment")["commit"] for run in runs})
    means = {key: mean([each[key] for each in found]) for key in found[0]}
    return {"method": variant, "seeds": seeds, "commits": commits, **means}


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows for readers."""
    keys = list(dict.fromkeys(k for r in rows for k, v in r.items() if isinstance(v, float)))
    lines = [
        f"| {r['method']} | {' | '.join(f'{r[k]:.3g}' if k in r else '' for k in keys)} |"
        for r in rows
    ]
    head = f"| variant | {' | '.join(key.replace('_', ' ') for key in keys)} |"
    return "\n".join([head, f"|{'---|' * (len(keys) + 1)}", *lines]) + "\n"


def main() -> None:
    """Read the runs and write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", type=Path, default=RESULTS)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    start = load_model(LAB).model.state_dict()
    rows = [row(wanted.out, variant, wanted.seeds, start) for variant in VARIANTS]
    record = {"command": "python -m studies.penalty.run DIR"}
    write_json(wanted.table, {**record, "environment": {**environment(), "argv": None},
                              "rows": rows})  # fmt: skip
    write_text(wanted.table.with_suffix(".md"), to_markdown(rows))


if __name__ == "__main__":
    main()
