"""From a recipe's name and the user's settings to a recipe."""

import difflib
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ilu.data import Feed
from ilu.models import LAB, full_name
from ilu.recipe import Recipe
from ilu.recipes import lab, own
from ilu.recipes.methods import METHODS, Plan
from ilu.recipes.variants import Invariance, with_invariance, with_sam
from ilu.robust.rules import SAM
from ilu.sources.text import Dataset
from ilu.train import Optim
from ilu.types import Metric


@dataclass(frozen=True, kw_only=True)
class Common:
    """Settings that every recipe has.

    Args:
        model: folder, hub id, or lab: the small model of the package, which brings its own data.
        forget: what to forget: JSONL, CSV or Parquet file, or hub dataset ORG/NAME:CONFIG:SPLIT.
        retain: what to keep, of the same kinds.
        environment: what someone may fine-tune on later; repeat the flag for several.
        forget_columns: names of columns that differ, as wanted=present, like text=body.
        retain_columns: the same for the retain set.
        environment_columns: the same for the environments.
        truncate: cut longer examples to this many tokens.
        steps: optimiser steps.
        lr: peak learning rate.
        batch_size: forget and retain examples per step.
        environment_batch_size: examples per step of each environment.
        micro_batch: examples per forward pass; lower it to save memory, results stay the same.
        warmup: steps of linear warm-up.
        schedule: learning rate after the warm-up.
        weight_decay: AdamW's, on the weights that may move.
        clip: largest gradient norm.
        precision: of the forward pass; the weights are float32 in any case.
        mask: safetensors file of booleans: only weights marked true may move.
        parameters: regular expression: train the weights whose name matches, instead of the
            recipe's own choice.
        measured: examples of each set on which the loss is measured before and after.
        seed: of the order of the data.
    """

    model: str
    forget: str | None = None
    retain: str | None = None
    environment: tuple[str, ...] = ()
    forget_columns: tuple[str, ...] = ()
    retain_columns: tuple[str, ...] = ()
    environment_columns: tuple[str, ...] = ()
    truncate: int | None = None
    steps: int
    lr: float
    batch_size: int = 4
    environment_batch_size: int = 48
    micro_batch: int | None = None
    warmup: int = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    weight_decay: float = 0.0
    clip: float = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"
    mask: str | None = None
    parameters: str | None = None
    measured: int = 200
    seed: int = 0


class Name(NamedTuple):
    """A recipe's name taken apart."""

    method: str
    sam: bool
    ilu: bool


def parse_name(name: str) -> Name:
    """Take ``METHOD[-sam][-ilu]`` apart, or say what was perhaps meant."""
    method = name.removesuffix("-ilu").removesuffix("-sam")
    if method not in METHODS:
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"unknown recipe {name!r}{hint} Recipes: {', '.join(METHODS)}, each also with "
            "-ilu, -sam or -sam-ilu behind it"
        )
    return Name(method, sam="-sam" in name, ilu=name.endswith("-ilu"))


def names() -> list[str]:
    """Every recipe name."""
    return [f"{m}{ending}" for m in METHODS for ending in ("", "-ilu", "-sam", "-sam-ilu")]


def defaults(name: str, model: str) -> dict[str, Any]:
    """What each setting is if the user does not say: the published value, or the lab's."""
    method = METHODS[parse_name(name).method]
    published = {"steps": method.steps, "lr": method.lr, **arguments(method.plan)}
    return {**published, **(lab.SETTINGS.get(name.replace("-sam", ""), {}) if model == LAB else {})}


def arguments(plan: Callable[..., Plan]) -> dict[str, Any]:
    """A method's own settings with their published values."""
    return {name: p.default for name, p in inspect.signature(plan).parameters.items()}


def build(name: str, given: Mapping[str, Any]) -> Recipe:
    """The recipe ``name`` with the settings ``given``, called as on the command line.

    What is not given has the published value, or the lab's. A setting that the recipe does not
    have is an error.
    """
    found = parse_name(name)
    values = {**defaults(name, given.get("model", "")), **given}
    plan = METHODS[found.method].plan(**take(values, arguments(METHODS[found.method].plan)))
    sam = SAM(**take(values, field_names(SAM))) if found.sam else None
    ilu = Invariance(**take(values, field_names(Invariance)))
    if not found.ilu and given.get("strength"):
        warnings.warn(f"strength does nothing in {name!r}: use {name}-ilu", stacklevel=2)
    common = Common(**take(values, field_names(Common)))
    if values:
        raise ValueError(f"recipe {name!r} has no setting {', '.join(values)}")
    return assemble(name, common, plan, ilu if found.ilu else None, sam)


def field_names(kind: type) -> list[str]:
    """The settings that a dataclass has."""
    return [f.name for f in fields(kind)]


def take(values: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Remove and return the values of these names."""
    return {name: values.pop(name) for name in names if name in values}


def assemble(
    name: str, common: Common, plan: Plan, ilu: Invariance | None, sam: SAM | None
) -> Recipe:
    """Put data, objective, metrics and training together."""
    data, environments = streams(common)
    objective = plan.objective if sam is None else with_sam(plan.objective, sam)
    if ilu is not None:
        objective = with_invariance(objective, ilu, list(environments))
    return Recipe(
        name=name,
        model=full_name(common.model),
        data=data if ilu is None else {**data, **environments},
        objective=objective,
        optim=optim(common, plan.parameters),
        metrics=metrics(common, {**data, **environments}),
        mask=str(Path(common.mask).resolve()) if common.mask else None,
        seed=common.seed,
    )


def optim(common: Common, parameters: str) -> Optim:
    """How to train."""
    return Optim(
        lr=common.lr,
        steps=common.steps,
        warmup=common.warmup,
        schedule=common.schedule,
        weight_decay=common.weight_decay,
        clip=common.clip,
        parameters=parameters if common.parameters is None else common.parameters,
        micro_batch=common.micro_batch,
        precision=common.precision,
    )


def metrics(common: Common, data: Mapping[str, Feed]) -> dict[str, Metric]:
    """The lab's questions on the lab's model, and the loss on all data that the user brought."""
    given = {name: feed for name, feed in data.items() if isinstance(feed.source, Dataset)}
    return {**(lab.metrics() if common.model == LAB else {}), **own.metrics(given, common.measured)}


def streams(common: Common) -> tuple[dict[str, Feed], dict[str, Feed]]:
    """Forget and retain data, and the environments. The lab fills in what is not given."""
    given = {
        "forget": own_feed(common.forget, common.forget_columns, common),
        "retain": own_feed(common.retain, common.retain_columns, common),
    }
    data = {name: feed for name, feed in given.items() if feed is not None}
    environments = environment_feeds(common)
    if common.model == LAB:
        from_lab = lab.data(common.batch_size, common.environment_batch_size)
        environments = environments or {"environment": from_lab["environment"]}
        data = {name: data.get(name, from_lab[name]) for name in given}
    missing = [f"--{name}" for name in given if name not in data]
    if missing:
        raise ValueError(f"{missing[0]} is missing: give a file or hub dataset, or --model lab")
    return data, environments


def own_feed(place: str | None, columns: Sequence[str], common: Common) -> Feed | None:
    """The user's data at ``place``, if a place was given."""
    if place is None:
        return None
    return Feed(own.dataset(place, columns, common.truncate), common.batch_size)


def environment_feeds(common: Common) -> dict[str, Feed]:
    """The user's environments: ``environment``, ``environment2``, ..."""
    return {
        f"environment{i if i > 1 else ''}": Feed(
            own.dataset(place, common.environment_columns, common.truncate),
            common.environment_batch_size,
        )
        for i, place in enumerate(common.environment, start=1)
    }
