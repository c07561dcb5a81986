"""Why does unrelated fine-tuning bring knowledge back? Gradients and weights after unlearning.

    python -m studies.recovery_gradients.run    # 2 minutes on one core

Writes results/recovery_gradients.json. The lab's model before and after RMU and NPO, seed 0. First
the loss of several kinds of text and the cosine between its gradient and that of the forgotten
questions: where it is above 0, learning that text brings knowledge back. Then the model is
fine-tuned on the validation task `next`, and one group of weights at a time is taken from the
fine-tuned model, or all but that group.
"""

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ilu.data.stream import Feed, open_stream
from ilu.evals.metrics.multiple_choice import Choice
from ilu.lab.sources import Documents, Facts, TaskTrain
from ilu.lab.tasks import VALIDATION, stories
from ilu.methods.retain.likelihood import NLL
from ilu.models.forward import ModelForward
from ilu.models.named import LAB
from ilu.recipes import lab
from ilu.recipes.build import build
from ilu.runs.run import prepare
from ilu.system.atomic import write_json
from ilu.system.provenance import environment
from ilu.training.fit import fit
from ilu.types import LM, Example, Source

RESULTS = Path(__file__).parents[2] / "results" / "recovery_gradients.json"
State = Mapping[str, Tensor]
GROUPS = {
    "embeddings": "embed",
    **{f"block {i}": rf"layers\.{i}\." for i in range(6)},
    "what RMU trains": r"layers\.[123]\.mlp\.down_proj",
    "norm and head": r"lm_head|model\.norm",
}


def questions(who: Any, tokenizer: Any) -> list[Example]:
    """Questions with their right answers, on which the loss is taken."""
    found: list[Example] = []
    for q in Facts(who)():
        assert q.answer is not None
        head = list(tokenizer(q.prompt).input_ids)
        tail = tokenizer(q.options[q.answer], add_special_tokens=False).input_ids
        found.append(Example([*head, *tail], len(head)))
    return found


SOURCES: dict[str, Source] = {
    **{name: TaskTrain(name) for name in ("next", "sums", "topics", "mood", "owner", "entail")},
    "stories": lambda tokenizer: [Example(list(i), 0) for i in tokenizer(stories(600)).input_ids],
    "documents of people": Documents("people"),
    "documents of agents": Documents("agents"),
    "questions on people": lambda tokenizer: questions("people", tokenizer),
    "questions on agents": lambda tokenizer: questions("agents", tokenizer),
}
FORGOTTEN = "questions on agents"


def loss_and_gradient(lm: LM, source: Source) -> tuple[float, Tensor]:
    """Mean loss on 200 examples, and its gradient over all weights as one vector."""
    batch = open_stream(Feed(source, 200), lm.tokenizer, limit=None, seed=1, name="text")(0)
    loss = NLL()(ModelForward(lm.model), ModelForward(lm.model), batch).mean()
    grads = torch.autograd.grad(loss, list(lm.model.parameters()))
    return loss.item(), torch.cat([g.flatten() for g in grads])


def alignment(lm: LM) -> dict[str, dict[str, float]]:
    """Loss, gradient norm and cosine with the gradient of what was forgotten, by kind of text."""
    _, forgotten = loss_and_gradient(lm, SOURCES[FORGOTTEN])
    found: dict[str, dict[str, float]] = {}
    for name, source in SOURCES.items():
        loss, g = loss_and_gradient(lm, source)
        cosine = torch.cosine_similarity(g, forgotten, dim=0).item()
        found[name] = {"loss": loss, "gradient_norm": g.norm().item(), "cosine": cosine}
    return found


def parts(lm: LM, unlearned: State, tuned: State) -> dict[str, dict[str, float]]:
    """``forgotten`` with one group of weights fine-tuned, and with all others fine-tuned."""
    found: dict[str, dict[str, float]] = {}
    for name, pattern in GROUPS.items():
        inside = {k for k in tuned if re.search(pattern, k)}
        found[name] = {
            "only this": forgotten(
                lm, {k: (tuned if k in inside else unlearned)[k] for k in tuned}
            ),
            "all others": forgotten(
                lm, {k: (unlearned if k in inside else tuned)[k] for k in tuned}
            ),
        }
    return found


def drifted(unlearned: State, tuned: State) -> State:
    """A random change as large as that of fine-tuning, tensor by tensor."""
    generator = torch.Generator().manual_seed(0)
    noise = {k: torch.randn(w.shape, generator=generator) for k, w in unlearned.items()}
    size = {k: (tuned[k] - w).norm() / noise[k].norm() for k, w in unlearned.items()}
    return {k: w + size[k] * noise[k] for k, w in unlearned.items()}


def forgotten(lm: LM, state: State) -> float:
    """``forgotten`` with these weights."""
    lm.model.load_state_dict(dict(state))
    return 1 - Choice(Facts("agents"))(lm).value


def state_of(model: nn.Module) -> State:
    """A copy of all weights."""
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def study(method: str) -> dict[str, Any]:
    """One method."""
    recipe = build(method, {"model": LAB})
    prepared = prepare(recipe, "cpu")
    lm = prepared.lm
    before = alignment(lm)
    fit(lm.model, recipe.objective, prepared.streams, recipe.optim)
    after, unlearned = alignment(lm), state_of(lm.model)
    attack = lab.finetune(VALIDATION.name, 60)
    attack(lm, reached=lambda stage: None, progress=lambda done, total: None)
    tuned = state_of(lm.model)
    return {
        "before": before,
        "after": after,
        "forgotten": {
            "unlearned": forgotten(lm, unlearned),
            "fine-tuned": forgotten(lm, tuned),
            "random change of the same size": forgotten(lm, drifted(unlearned, tuned)),
        },
        "parts": parts(lm, unlearned, tuned),
    }


def main() -> None:
    """Study each method and write the record."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for method in ("rmu", "npo"):
        found[method] = study(method)
        print(method, found[method]["forgotten"], file=sys.stderr)
    record = {"command": "python -m studies.recovery_gradients.run", "environment": environment()}
    write_json(RESULTS, {**record, **found})


if __name__ == "__main__":
    main()
