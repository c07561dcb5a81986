"""From a recipe's name and the user's settings to a recipe."""

import inspect
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from ilu.data.stream import Feed
from ilu.data.text import Dataset
from ilu.methods.masks.make import Masking
from ilu.methods.robust.lookahead import LookAhead
from ilu.models.load import LAB, full_name
from ilu.models.lora import Lora
from ilu.recipes import lab, user_data
from ilu.recipes.masks import data_for, mask_setting
from ilu.recipes.method import Plan
from ilu.recipes.names import ENVIRONMENT, Name, parse_name
from ilu.recipes.registry import METHODS
from ilu.recipes.robust import ROBUST, Averaging, Invariance, with_robust, with_topics
from ilu.recipes.settings import Common
from ilu.runs.recipe import Recipe
from ilu.runs.results.forget_metric import FORGET
from ilu.training.fit import Optim
from ilu.training.objective import Objective
from ilu.types import Metric


def defaults(name: str, model: str) -> dict[str, Any]:
    """What each setting is if the user does not say: the published value, or the lab's."""
    found = parse_name(name)
    method = METHODS[found.method]
    published = {"steps": method.steps, "lr": method.lr, **arguments(method.plan)}
    if model == LAB:
        return {**published, **lab.settings(*found)}
    robust = ROBUST.get(found.robust or "")
    # A run that is not about environments has none to load.
    reads = found.environment or robust is LookAhead
    idle = [] if reads else ["environment", "environment_batch_size"]
    if robust is Averaging:  # there is no mean of adapters
        idle += ["lora_rank", "lora_alpha"]
    return {**published, **{k: v for k, v in method.settings.items() if k not in idle}}


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
    for key in REPEATABLE & values.keys():
        one = values[key] or ()
        values[key] = (one,) if isinstance(one, str) else tuple(one)
    plan = METHODS[found.method].plan(**take(values, arguments(METHODS[found.method].plan)))
    kind = ROBUST.get(found.robust or "")
    robust = kind(**take(values, field_names(kind))) if kind else None
    ilu = Invariance(**take(values, field_names(Invariance)))
    idle = [k for k in field_names(Invariance) if getattr(ilu, k) != getattr(Invariance(), k)]
    if not found.environment and (idle or given.get("strength")):
        what = ", ".join(idle or ["strength"])
        warnings.warn(f"{what} does nothing in {name!r}: use {name}-ilu", stacklevel=2)
    common = Common(**take(values, field_names(Common)))
    if values:
        raise ValueError(f"recipe {name!r} has no setting {', '.join(values)}")
    return assemble(found, common, plan, ilu, robust)


REPEATABLE = {"forget", "environment"}
"""Settings of which there may be several; one name alone will do."""


def field_names(kind: type) -> list[str]:
    """The settings that a dataclass has."""
    return [f.name for f in fields(kind)]


def take(values: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Remove and return the values of these names."""
    return {name: values.pop(name) for name in names if name in values}


def assemble(name: Name, common: Common, plan: Plan, ilu: Invariance, robust: Any) -> Recipe:
    """Put data, objective, metrics and training together."""
    data, environments = streams(common)
    model = full_name(common.model)
    topics = [n for n in data if n.startswith("forget")]
    objective = with_topics(plan.objective, topics)
    if robust is not None:
        check_adversary(robust, environments)
        objective = with_robust(objective, robust)
    if name.environment:
        objective = ENVIRONMENT[name.environment](objective, ilu, list(environments))
    beside = {
        n: replace(data[n], source=plan.beside(data[n].source, model, common.revision))
        for n in topics
    }
    every = {**data, **environments, **beside}
    parameters = plan.parameters if common.parameters is None else common.parameters
    mask = mask_setting(common.mask, plan.objective, parameters=parameters, seed=common.seed)
    return Recipe(
        name=str(name),
        model=model,
        data={n: every[n] for n in needed(objective, every, mask)},
        objective=objective,
        edit=plan.edit,
        optim=reaching(averaged(optim(common, parameters), robust), robust),
        metrics=metrics(common, {**data, **environments}),
        lora=lora(common),
        mask=mask,
        revision=common.revision,
        seed=common.seed,
    )


def check_adversary(robust: Any, environments: Mapping[str, Feed]) -> None:
    """Refuse environments that would be loaded and never looked at."""
    if isinstance(robust, LookAhead) and len(environments) > 1:
        raise ValueError(
            f"-ahead looks along one environment, and {len(environments)} were given: give one"
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
        parameters=parameters,
        reach=common.reach,
        micro_batch=common.micro_batch,
        recompute=common.recompute,
        pack=common.pack,
        fused_backward=common.fused_backward,
        offload_reference=common.offload_reference,
        precision=common.precision,
        optimizer=common.optimizer,
        average_from=common.average_from,
        average_every=common.average_every,
    )


def lora(common: Common) -> Lora | None:
    """The adapters, if there are to be any; alpha is the rank, as in arXiv 2106.09685."""
    if common.lora_rank == 0:
        if common.quantise_base:
            raise ValueError(
                f"quantise_base {common.quantise_base}: rounded weights cannot be trained, only "
                "adapters of them: give --lora-rank as well"
            )
        return None
    alpha = common.lora_rank if common.lora_alpha is None else common.lora_alpha
    return Lora(common.lora_rank, float(alpha), base_bits=common.quantise_base or None)


def needed(
    objective: Objective, given: Mapping[str, Feed], mask: str | Masking | None = None
) -> list[str]:
    """The streams that terms, their rules and the mask read; an error if one was not brought."""
    read = [term.on for term in objective.values()]
    for term in objective.values():
        read += term.rule.reads()
    read += [n for need in data_for(mask) for n in alike(need, given)]
    for name in read:
        if name not in given:
            raise ValueError(f"--{name} is missing: give a file or hub dataset, or --model lab")
    return [name for name in given if name in read]


def alike(stream: str, given: Mapping[str, Feed]) -> list[str]:
    """A stream and its further topics: forget, forget2, ..."""
    return [n for n in given if re.fullmatch(rf"{stream}\d*", n)] or [stream]


def averaged(optim: Optim, robust: Any) -> Optim:
    """Average the last steps, if that is how the run is to be robust."""
    if not isinstance(robust, Averaging) or optim.average_from is not None:
        return optim
    return replace(optim, average_from=max(1, round((1 - robust.last) * optim.steps)))


def reaching(optim: Optim, robust: Any) -> Optim:
    """Look ahead over all weights unless told otherwise: someone fine-tunes all of them."""
    if not isinstance(robust, LookAhead) or optim.reach is not None:
        return optim
    return replace(optim, reach=".")


def metrics(common: Common, data: Mapping[str, Feed]) -> dict[str, Metric]:
    """The lab's questions on the lab's model, and the loss on all data that the user brought.

    Those about the lab's agents are left out where something else is forgotten.
    """
    given = {name: feed for name, feed in data.items() if isinstance(feed.source, Dataset)}
    labs = lab.metrics() if common.model == LAB else {}
    asked = {name: m for name, m in labs.items() if name != FORGET or not common.forget}
    return {**asked, **user_data.metrics(given, common.measured)}


def streams(common: Common) -> tuple[dict[str, Feed], dict[str, Feed]]:
    """Forget and retain data, and the environments. The lab fills in what is not given."""
    size, environment_size, cut = (
        common.batch_size,
        common.environment_batch_size,
        common.truncate,
    )
    retain = (common.retain,) if common.retain else ()
    forget = feeds("forget", common.forget, common.forget_columns, size, cut)
    kept = feeds("retain", retain, common.retain_columns, size, cut)
    environments = feeds(
        "environment", common.environment, common.environment_columns, environment_size, cut
    )
    if common.model == LAB:
        from_lab = lab.data(size, environment_size)
        forget, kept, environments = (
            given or {name: from_lab[name]}
            for name, given in (("forget", forget), ("retain", kept), ("environment", environments))
        )
    return {**forget, **kept}, environments


def feeds(
    name: str, places: Sequence[str], columns: Sequence[str], size: int, cut: int | None
) -> dict[str, Feed]:
    """The user's data at ``places``: ``name``, ``name2``, ..."""
    return {
        f"{name}{i if i > 1 else ''}": Feed(user_data.dataset(place, columns, cut), size)
        for i, place in enumerate(places, start=1)
    }
