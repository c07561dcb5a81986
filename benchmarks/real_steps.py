"""Training steps on a real model: ours, the usual one, Transformers' Trainer, and products alone.

All sides share the weights and take turns in one process, so that a model of 135 M weights needs
about 6 GiB. The floor has the products of matrices of the linear layers with the shapes of the
step, forward and backward, and nothing else: no attention, no norms, no optimiser.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from measured import Step, alone, least_seconds, our_step, peak_mib, random_batch, trained_only
from peer import loss_at, peer_step, reference_of
from torch import Tensor, nn

from ilu.methods.forget.ascent import Ascent
from ilu.methods.forget.npo import NPO
from ilu.methods.forget.rmu import RMU
from ilu.methods.retain.likelihood import NLL
from ilu.methods.retain.states import States
from ilu.methods.robust.ilu import Penalty, ScaleGradient, Square
from ilu.models.blocks import blocks
from ilu.training.objective import Objective, Term
from ilu.types import IGNORE, Batch


@dataclass(frozen=True)
class Rows:
    """Sizes of the batches: those of TOFU in SmolLM2's tokens are the default."""

    forget: tuple[int, int] = (4, 54)
    retain: tuple[int, int] = (4, 45)
    prompt: int = 16

    def batches(self, vocabulary: int) -> dict[str, Batch]:
        """Forget and retain rows of random tokens, without padding."""
        shapes = {"forget": self.forget, "retain": self.retain}
        return {
            name: random_batch(
                rows=rows, tokens=tokens, prompt=self.prompt, vocabulary=vocabulary, seed=seed
            )
            for seed, (name, (rows, tokens)) in enumerate(shapes.items(), start=1)
        }


@dataclass(frozen=True)
class Setting:
    """What is trained on what; ``layer`` is the block that RMU reads."""

    model: nn.Module
    rows: Rows
    layer: int
    turns: int

    @property
    def batches(self) -> Mapping[str, Batch]:
        """Forget and retain."""
        whole: Any = self.model
        return self.rows.batches(whole.config.vocab_size)

    def pattern(self, method: str) -> str:
        """RMU trains three matrices as published, the others everything."""
        near = "|".join(str(self.layer - i) for i in (2, 1, 0))
        return rf"\.({near})\.mlp\.down_proj" if method == "rmu" else ""


def objective(method: str, layer: int) -> Objective:
    """The terms of a method."""
    retain = Term(NLL(), on="retain")
    npo = {"forget": Term(NPO(0.1), on="forget"), "retain": retain}
    every: dict[str, Objective] = {
        "graddiff": {"forget": Term(Ascent(), on="forget"), "retain": retain},
        "npo": npo,
        "npo-ilu logits": {
            **npo, "invariance": Term(ScaleGradient(), on="retain", weight=0.5, rule=Square()),
        },
        "npo-ilu gradient": {
            **npo, "invariance": Term(NLL(), on="retain", weight=1e-3, rule=Penalty()),
        },
        "rmu": {
            "forget": Term(RMU(layer=layer), on="forget"),
            "retain": Term(States(layer=layer), on="retain", weight=1200.0),
        },
    }  # fmt: skip
    return every[method]


def compare(method: str, setting: Setting) -> dict[str, Any]:
    """Least seconds of every side, after first steps whose losses agree."""
    model, batches, layer = setting.model, setting.batches, setting.layer
    start, pattern = weights(model), setting.pattern(method)
    trained = list(trained_only(model, pattern).values())

    def usual() -> Step:
        return peer_step(method, model, trained, *batches.values(), layer=layer)

    def ours() -> Step:
        return our_step(model, objective(method, layer), batches, pattern)

    steps, first = list[Step](), list[float]()
    for make in (ours, usual):
        put_back(model, start)
        steps.append(make())
        first.append(steps[-1]())
    if abs(first[0] - first[1]) > 1e-4 * max(1.0, abs(first[1])):
        raise RuntimeError(f"{method}: first losses {first} differ")
    floor = products([*products_of(method, setting)])
    floor()
    seconds = least_seconds([*steps, floor], setting.turns)
    put_back(model, start)
    library = trainer_seconds(method, setting, trained)
    names = ("seconds", "usual_seconds", "floor_seconds", "trainer_seconds")
    found = dict(zip(names, [*seconds, library], strict=True))
    print(f"{method:17}", *(f"{n[:-8] or 'ours'} {v:.2f} s" for n, v in found.items()), flush=True)
    return {**found, "first_losses": first}


def weights(model: nn.Module) -> list[Tensor]:
    """A copy of all weights."""
    return [p.detach().clone() for p in model.parameters()]


@torch.no_grad()
def put_back(model: nn.Module, start: Sequence[Tensor]) -> None:
    """Restore the weights."""
    for p, value in zip(model.parameters(), start, strict=True):
        p.copy_(value)


class Product(NamedTuple):
    """A linear layer, the rows that it multiplies, and which gradients are taken."""

    weight: Tensor
    rows: int
    of_input: bool
    of_weight: bool


def products_of(method: str, setting: Setting) -> Iterator[Product]:
    """The products that a step cannot do without; NPO's reference is cached."""
    whole, batches = setting.model, setting.batches
    if method != "rmu":
        for batch in batches.values():
            for layer in linears(blocks(whole)):
                yield Product(layer.weight, batch.input_ids.numel(), True, True)
            counted = int((batch.labels[:, 1:] != IGNORE).sum())
            head: Any = whole.get_output_embeddings()  # pyright: ignore[reportCallIssue]
            yield Product(head.weight, counted, True, True)
        return
    last, lowest = setting.layer, setting.layer - 2
    for i, one in enumerate(blocks(whole)[: last + 1]):
        for name, layer in one.named_modules():
            if not isinstance(layer, nn.Linear):
                continue
            for batch in batches.values():
                moved = i >= lowest and name.endswith("down_proj")
                yield Product(layer.weight, batch.input_ids.numel(), i > lowest, moved)
            yield Product(layer.weight, batches["retain"].input_ids.numel(), False, False)


def linears(part: nn.Module) -> list[nn.Linear]:
    """The linear layers of blocks."""
    return [m for m in part.modules() if isinstance(m, nn.Linear)]


@torch.no_grad()
def products(wanted: Sequence[Product]) -> Step:
    """A step that does only these products; equal shapes share memory."""
    made: dict[tuple[int, ...], Tensor] = {}

    def space(*shape: int) -> Tensor:
        if shape not in made:
            made[shape] = torch.randn(*shape)
        return made[shape]

    @torch.no_grad()
    def step() -> float:
        for weight, n, of_input, of_weight in wanted:
            high, wide = weight.shape
            x, y = space(n, wide), space(n, high)
            torch.mm(x, weight.T, out=y)
            if of_input:
                torch.mm(y, weight, out=x)
            if of_weight:
                torch.mm(y.T, x, out=space(high, wide))
        for each in made.values():
            each.fill_(1e-3)
        return 0.0

    return step


def trainer_seconds(method: str, setting: Setting, trained: Sequence[nn.Parameter]) -> float:
    """Least seconds of a step of Transformers' Trainer with the usual loss."""
    import tempfile

    from transformers import Trainer, TrainerCallback, TrainingArguments

    model, batches = setting.model, list(setting.batches.values())
    loss_of, reference = loss_at(method, setting.layer), reference_of(method, setting.model)
    began, took = [0.0], list[float]()

    def begin(*given: Any, **more: Any) -> None:
        began[0] = time.process_time()

    def end(*given: Any, **more: Any) -> None:
        took.append(time.process_time() - began[0])

    def compute_loss(model: Any, inputs: Any, *given: Any, **more: Any) -> Tensor:
        return loss_of(model, reference, *batches)

    steps = setting.turns + 1
    clock = TrainerCallback()
    clock.on_step_begin, clock.on_step_end = begin, end  # pyright: ignore
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=steps, per_device_train_batch_size=1, use_cpu=True,
            learning_rate=1e-5, weight_decay=0.0, max_grad_norm=1.0, optim="adamw_torch",
            lr_scheduler_type="constant", save_strategy="no", logging_strategy="no",
            report_to=[], disable_tqdm=True, remove_unused_columns=False,
        )  # fmt: skip
        trainer: Any = Trainer(
            model=model,
            args=arguments,
            train_dataset=[{"input_ids": torch.zeros(1)}] * steps,  # pyright: ignore
            callbacks=[clock],
        )
        trainer.compute_loss = compute_loss
        trainer.train()
    return min(took[1:])


def penalties(setting: Setting) -> dict[str, float]:
    """Least seconds of our NPO without a penalty and with two readings of it."""
    names: list[str] = ["npo", "npo-ilu logits", "npo-ilu gradient"]
    model, start, steps = setting.model, weights(setting.model), list[Step]()
    for name in names:
        put_back(model, start)
        steps.append(our_step(model, objective(name, setting.layer), setting.batches))
        steps[-1]()
    found = dict(zip(names, least_seconds(steps, setting.turns), strict=True))
    print(*(f"{name} {value:.2f} s" for name, value in found.items()), flush=True)
    return found


def peak(method: str, setting: Setting) -> float:
    """Peak of our step on a copy of the model, copy included, in MiB."""

    def make() -> Step:
        model = deepcopy(setting.model)
        terms = objective(method, setting.layer)
        return our_step(model, terms, setting.batches, setting.pattern(method))

    return peak_mib(make)


def measure(setting: Setting, run: Callable[..., Any] = alone) -> dict[str, Any]:
    """Everything; each comparison in a process of its own."""
    found: dict[str, Any] = {name: run(compare, name, setting) for name in ("npo", "rmu")}
    found["penalties"] = run(penalties, setting)
    found["graddiff"] = run(compare, "graddiff", setting)
    found["mib"] = {n: run(peak, n, setting) for n in ("npo", "npo-ilu gradient")}
    found["weights_mib"] = sum(4 * p.numel() for p in setting.model.parameters()) / 2**20
    return found


def ratios(found: Mapping[str, Any]) -> dict[str, float]:
    """The figures: above 1 ours is faster, over the floor it is slower by that factor."""
    made: dict[str, float] = {}
    for name in ("npo", "graddiff", "rmu"):
        row = found[name]
        made[f"{name}_speedup"] = row["usual_seconds"] / row["seconds"]
        made[f"{name}_speedup_trainer"] = row["trainer_seconds"] / row["seconds"]
        made[f"{name}_over_floor"] = row["seconds"] / row["floor_seconds"]
    took, mib = found["penalties"], found["mib"]
    for reading in ("logits", "gradient"):
        made[f"ilu_{reading}_over_npo"] = took[f"npo-ilu {reading}"] / took["npo"]
    beyond = mib["npo-ilu gradient"] - mib["npo"]
    made["ilu_gradient_extra_copies"] = beyond / found["weights_mib"]
    return made
