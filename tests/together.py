"""What the processes of ``test_ranks`` do; started by torchrun, or alone for comparison."""

import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ilu.methods.forget.npo import NPO
from ilu.methods.forget.rmu import RMU
from ilu.methods.masks.storage import fitted
from ilu.methods.retain.likelihood import KL, NLL
from ilu.methods.retain.states import States
from ilu.methods.robust.adversary import TAR, DisruptionMasking
from ilu.methods.robust.flatness import CurvaturePenalty, GradientPenalty
from ilu.methods.robust.ilu import Layerwise, Penalty, ScaleGradient, Square, parameters, tensors
from ilu.methods.robust.l1 import L1
from ilu.methods.robust.lookahead import LookAhead
from ilu.methods.robust.sam import SAM
from ilu.methods.robust.smoothing import RandomSmoothing
from ilu.models.fsdp import shard, whole_weights
from ilu.models.load import load_model
from ilu.models.load_sharded import load_sharded
from ilu.recipes.build import build
from ilu.runs.run import Options, run
from ilu.system.distributed import Ranks, joined
from ilu.system.errors import Stopped
from ilu.training.checkpoint import Checkpoints
from ilu.training.fit import Optim, fit
from ilu.training.objective import Term
from tests.conftest import make_tiny
from tests.training.test_fit import EXAMPLES, Stream

RETAIN = Term(NLL(), on="retain", weight=0.7)
OPTIM = Optim(lr=3e-3, steps=2, clip=0.5, weight_decay=0.1, warmup=2)


@dataclass(frozen=True)
class Case:
    """One training."""

    objective: dict[str, Term]
    optim: dict[str, Any] = field(default_factory=dict)
    masked: bool = False


def ruled(rule):
    return Case({"forget": Term(NPO(0.1), on="forget", weight=0.3, rule=rule), "retain": RETAIN})


CASES = {
    "npo-ilu": Case(
        {
            "forget": Term(NPO(0.1), on="forget"),
            "retain": RETAIN,
            "invariance": Term(ScaleGradient(), on="environment", weight=0.5, rule=Square()),
        },
        {"micro_batch": 1, "recompute": True},
    ),
    "kl, averaged": Case(
        {"forget": Term(NPO(0.1), on="forget"), "retain": Term(KL(), on="retain")},
        {"average_from": 1, "average_every": 1},
    ),
    "rmu": Case(
        {"forget": Term(RMU(layer=0, coefficient=2.0), on="forget")}, {"parameters": "layers"}
    ),
    "rmu ahead": Case(
        {
            "forget": Term(RMU(layer=0, coefficient=2.0), on="forget", rule=LookAhead(1e-2)),
            "retain": Term(States(layer=0), on="retain"),
        },
        {"parameters": r"layers\.0\.mlp|embed", "perturbed": "."},
    ),
    "rmu, penalty above": Case(
        {
            "forget": Term(RMU(layer=0, coefficient=2.0), on="forget"),
            "invariance": Term(NLL(), on="environment", weight=0.5, rule=Penalty()),
        },
        {"parameters": r"layers\.0\.mlp", "perturbed": r"layers\.1"},
    ),
    "sophia": Case({"retain": RETAIN}, {"optimizer": "sophia"}),
    "gradient": ruled(Penalty()),
    "parameters": ruled(Penalty(parameters)),
    "tensors": ruled(Penalty(tensors)),
    "layerwise": ruled(Penalty(Layerwise())),
    "relearnt": ruled(Penalty(tensors, adversaries=("forget",))),
    "sam": ruled(SAM(0.05)),
    "smoothing": ruled(RandomSmoothing(1e-2)),
    "gradient penalty": ruled(GradientPenalty(0.1)),
    "curvature": ruled(CurvaturePenalty(0.1)),
    "l1": ruled(L1(1e-3)),
    "tar": ruled(TAR(inner_steps=2, inner_every=1, inner_lr=1e-3)),
    "mudman": ruled(DisruptionMasking(adversary_steps=1)),
}


CASES["packed"] = replace(CASES["kl, averaged"], optim={"pack": True})
CASES["masked"] = replace(CASES["npo-ilu"], masked=True)
CASES["masked averaged"] = replace(
    CASES["sam"], optim={"average_from": 1, "average_every": 1}, masked=True
)
CASES["masked sophia"] = replace(CASES["sophia"], masked=True)
RESUMED = ("npo-ilu", "masked", "masked averaged")


def random_mask() -> dict[str, torch.Tensor]:
    """Half of the entries of most weights; all, none, and those of a single row of some."""
    draw = torch.Generator().manual_seed(5)
    mask = {n: torch.rand(p.shape, generator=draw) < 0.5 for n, p in make_tiny().named_parameters()}
    mask["model.norm.weight"][:] = True
    mask["lm_head.weight"][:] = False
    mask["model.layers.0.mlp.up_proj.weight"][1:] = False  # nothing of the second process moves
    return mask


def streams():
    names = ("forget", "retain", "environment")
    return {n: Stream(EXAMPLES[i:], 4, 0) for i, n in enumerate(names)}


def train(case: Case, ranks: Ranks, **given):
    """Weights, rows, and the bytes of weights that this process holds."""
    model, rows = make_tiny(), []
    if ranks.sharded:
        shard(model, ranks)
    held = sum(p.to_local().nbytes if ranks.sharded else p.nbytes for p in model.parameters())
    mask = fitted(random_mask().items(), model, "mask") if case.masked else None
    fit(model, case.objective, streams(), replace(OPTIM, **case.optim), mask=mask, log=rows.append,
        ranks=ranks, **given)  # fmt: skip
    weights = whole_weights(model) or model.state_dict()
    return {n: w.clone() for n, w in weights.items()}, rows, held


def stopped_and_resumed(case: Case, ranks: Ranks, folder: Path):
    """The same in two goes; one process is asked to stop, and both do."""
    points = Checkpoints(folder, every=1, ranks=ranks)
    asked = ranks.rank == ranks.size - 1
    with pytest.raises(Stopped):
        train(case, ranks, checkpoints=points, stop=lambda: asked)
    return train(case, ranks, checkpoints=points)


def whole_run(ranks: Ranks, folder: Path, out: Path):
    """A recipe from data files to a model folder."""
    data = {n: str(folder / f"{n}.jsonl") for n in ("forget", "retain", "environment")}
    sizes = {"batch_size": 2, "environment_batch_size": 2, "limit": 2}
    given = {**data, **sizes, "steps": 2, "lr": 1e-3, "reading": "logits", "strength": 1.0,
             "scale_free": False}  # fmt: skip
    mask = {"mask": str(folder / "mask.safetensors")}
    recipe = build("npo-ilu", {"model": str(folder / "model"), **given, **mask})
    options = Options(ranks=ranks, resume=True)
    run(recipe, out, options)
    run(recipe, out, options)  # finds it finished


def load_parts(folder: Path, ranks: Ranks) -> dict[str, bool]:
    """Of each saved model, whether its parts have the weights, buffers and logits of the whole."""
    found: dict[str, bool] = {}
    for path in sorted(folder.iterdir()):
        whole, parts = load_model(str(path)).model, load_sharded(str(path), ranks).model
        inputs = {"input_ids": torch.tensor([[1, 2, 3, 4]])}
        with torch.no_grad():
            same = torch.equal(whole(**inputs).logits, parts(**inputs).logits)
        weights = whole_weights(parts) or whole.state_dict()
        equal = (torch.equal(x, weights[n]) for n, x in whole.state_dict().items())
        shared = len(list(whole.parameters())) == len(list(parts.parameters()))
        found[path.name] = same and shared and all(equal)
    return found


def main(folder: Path) -> None:
    """Train every case in both ways, or alone; write weights, rows and bytes held."""
    torch.set_num_threads(1)
    with joined(shard=False) as ranks:
        ways = {"data": ranks, "sharded": replace(ranks, sharded=True)}
        for way, how in ways.items() if ranks.size > 1 else [("alone", ranks)]:
            found = {name: train(case, how) for name, case in CASES.items()}
            for name in RESUMED:
                place = folder / f"checkpoints-{way}-{name}"
                found[f"{name} resumed"] = stopped_and_resumed(CASES[name], how, place)
            whole_run(how, folder, folder / f"run-{way}")
            held = max(held for _, _, held in found.values())
            record = {"rows": {n: r for n, (_, r, _) in found.items()}, "held": held}
            if how.sharded:
                record["loaded"] = load_parts(folder / "models", how)
            (folder / f"{way}-{ranks.rank}.json").write_text(json.dumps(record))
            if ranks.leads:
                for name, (weights, _, _) in found.items():
                    save_file(
                        {n: w.contiguous() for n, w in weights.items()}, folder / f"{way}-{name}"
                    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
