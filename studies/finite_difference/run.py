"""How far may `Penalty` step? Its gradient against exact double backward, on the lab's model.

    python -m studies.finite_difference.run      # a minute

Writes results/finite_difference.json. For each reading of w and each radius (relative to the norm
of the trained weights): relative error and cosine of the penalty's gradient on one environment
batch of 48, float32.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ilu.data.stream import open_stream
from ilu.methods.retain.likelihood import NLL
from ilu.methods.robust.ilu import Penalty, exact_penalty
from ilu.models.forward import Frozen, ModelForward
from ilu.models.load import load_model
from ilu.recipes.lab import data
from ilu.recipes.robust import READINGS
from ilu.system.atomic import write_json
from ilu.training.objective import Engine, Views
from ilu.types import Batch, Grads, Slope

RESULTS = Path(__file__).parents[2] / "results" / "finite_difference.json"
RADII = (1e-2, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 1e-6)


def flat(grads: Grads) -> Tensor:
    """One vector."""
    return torch.cat([g.flatten() for g in grads])


def compare(model: nn.Module, batch: Batch, reading: str) -> list[dict[str, float]]:
    """One row per radius."""
    params = list(model.parameters())
    views = Views(ModelForward(model), Frozen(model, None))
    with sdpa_kernel(SDPBackend.MATH):
        loss = NLL()(ModelForward(model, all_logits=True), Frozen(model, None), batch).mean()
        truth = flat(torch.autograd.grad(exact_penalty(READINGS[reading], params, loss), params))
    engine = Engine(views, views, params)

    def here(onto: Grads | None = None) -> Slope:
        return engine.slope(NLL(), batch, onto=onto)

    rows: list[dict[str, float]] = []
    for radius in RADII:
        rule = Penalty(READINGS[reading], radius)
        found = flat(rule(params, here, lambda loss, on: here(), 0).grads)
        error = ((found - truth).norm() / truth.norm()).item()
        cosine = torch.nn.functional.cosine_similarity(found, truth, dim=0).item()
        rows.append({"radius": radius, "relative_error": error, "cosine": cosine})
    return rows


def main() -> None:
    """Print the table and write it."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    lm = load_model("lab")
    feed = data(16, 48)["environment"]
    batch = open_stream(feed, lm.tokenizer, limit=None, seed=0, name="environment")(0)
    found = {reading: compare(lm.model, batch, reading) for reading in READINGS}
    print("reading      " + "".join(f"{r:>12.0e}" for r in RADII))
    for reading, rows in found.items():
        print(f"{reading:12} " + "".join(f"{row['relative_error']:12.1e}" for row in rows))
    record = {"command": "python -m studies.finite_difference.run", "torch": torch.__version__}
    write_json(RESULTS, {**record, "rows": found})


if __name__ == "__main__":
    main()
