"""From a recipe's name and the user's settings to a recipe."""

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from ilu.data.facts.sources import FactDocuments
from ilu.data.stream import Feed, Role
from ilu.data.text import Dataset
from ilu.methods.ending import Ending
from ilu.methods.masks.make import Masking
from ilu.methods.method import Setup
from ilu.models.lora import Lora
from ilu.models.named import LAB, full_name
from ilu.recipes import facts_data, lab, user_data
from ilu.recipes.masks import data_for, mask_setting
from ilu.recipes.names import Name, parse_name
from ilu.recipes.registry import endings, methods
from ilu.recipes.robust import with_control, with_invariance, with_robust, with_topics
from ilu.recipes.settings import Common, Invariance
from ilu.runs.recipe import Recipe
from ilu.runs.results.forget_metric import FORGET
from ilu.training.fit import Optim
from ilu.training.objective import Objective
from ilu.types import Metric


def defaults(name: str, model: str) -> dict[str, Any]:
    """What each setting is if the user does not say: the published value, or the lab's."""
    found = parse_name(name)
    method, ending = methods()[found.method], ending_of(found)
    published = {"steps": method.steps, "lr": method.lr, **arguments(method.recipe)}
    if model == LAB:
        return {**published, **lab.settings(method, ending, found.environment)}
    # A run that reads no environment loads none.
    reads = found.environment or (ending and ending.environment)
    idle = [] if reads else ["environment", "environment_batch_size"]
    if ending and not ending.adapters:
        idle += ["lora_rank", "lora_alpha"]
    return {**published, **{k: v for k, v in method.settings.items() if k not in idle}}


def ending_of(name: Name) -> Ending | None:
    """The robust training in a recipe's name."""
    return endings()[name.robust] if name.robust else None


def arguments(recipe: Callable[..., Setup]) -> dict[str, Any]:
    """A method's own settings with their published values."""
    return {name: p.default for name, p in inspect.signature(recipe).parameters.items()}


def build(name: str, given: Mapping[str, Any]) -> Recipe:
    """The recipe ``name`` with the settings ``given``.

    What is not given has the published value, or the lab's. A setting that the recipe does not
    have is an error.
    """
    found, given = parse_name(name), renewed(given)
    values = {**defaults(str(found), given.get("model", "")), **given}
    for key in REPEATABLE & values.keys():
        one = values[key] or ()
        values[key] = (one,) if isinstance(one, str) else tuple(one)
    recipe, ending = methods()[found.method].recipe, ending_of(found)
    setup = recipe(**take(values, arguments(recipe)))
    robust = ending.settings(**take(values, field_names(ending.settings))) if ending else None
    ilu = Invariance(**take(values, field_names(Invariance)))
    warn_of_idle(found, ilu, given)
    optim = Optim(**take(values, field_names(Optim)))
    common = with_named_facts(Common(**take(values, field_names(Common))))
    if values:
        raise ValueError(f"recipe {name!r} has no setting {', '.join(values)}")
    return assemble(found, common, optim, setup, ilu, ending, robust)


def with_named_facts(common: Common) -> Common:
    """The settings with ``facts:rest`` written out, and of facts to keep the part to train on."""
    forget = common.forget
    environment = tuple(facts_data.written_out(name, forget) for name in common.environment)
    retain = facts_data.retain_name(common.retain, forget) if common.retain else None
    return replace(common, retain=retain, environment=environment)


def renewed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under the names that they have today."""
    for old in OLD_SETTINGS.keys() & given.keys():
        warnings.warn(f"the setting {old} is called {OLD_SETTINGS[old]} now", stacklevel=3)
    return {OLD_SETTINGS.get(key, key): value for key, value in given.items()}


def warn_of_idle(name: Name, ilu: Invariance, given: Mapping[str, Any]) -> None:
    """Warn of settings of the penalty in a recipe that has none."""
    if name.environment:
        return
    idle = [k for k in field_names(Invariance) if getattr(ilu, k) != getattr(Invariance(), k)]
    if idle or given.get("strength"):
        what = ", ".join(idle or ["strength"])
        warnings.warn(f"{what} does nothing in {str(name)!r}: use {name}-ilu", stacklevel=3)


OLD_SETTINGS = {"reach": "perturbed", "ahead": "lookahead_step"}
"""Setting of an older version -> its name today."""
REPEATABLE = {"forget", "environment"}
"""Settings of which there may be several; one name alone will do."""


def field_names(kind: type) -> list[str]:
    """The settings that a dataclass has."""
    return [f.name for f in fields(kind)]


def take(values: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Remove and return the values of these names."""
    return {name: values.pop(name) for name in names if name in values}


def assemble(
    name: Name,
    common: Common,
    optim: Optim,
    setup: Setup,
    ilu: Invariance,
    ending: Ending | None,
    robust: Any,
) -> Recipe:
    """Put data, objective, metrics and training together."""
    data, environments = streams(common)
    model = full_name(common.model)
    topics = with_role(data, "forget")
    objective = with_topics(setup.objective, topics, setup.for_topic)
    optim = replace(optim, parameters=optim.parameters or setup.parameters)
    mask = mask_setting(common.mask, setup.objective, parameters=optim.parameters, seed=common.seed)
    if ending:
        check_environments(name, ending, environments)
        objective = with_robust(objective, ending, robust, topics)
        optim = ending.optim(optim, robust)
    if name.environment:
        added = with_invariance if name.environment == "ilu" else with_control
        objective = added(objective, ilu, list(environments), topics)
    paired = {
        n: replace(data[n], source=setup.pairing(data[n].source, model, common.revision))
        for n in topics
    }
    every = {**data, **environments, **paired}
    return Recipe(
        name=str(name),
        model=model,
        data={n: every[n] for n in needed(objective, every, mask)},
        objective=objective,
        edit=setup.edit,
        optim=optim,
        metrics=metrics(common, {**data, **environments}),
        lora=lora(common),
        mask=mask,
        revision=common.revision,
        seed=common.seed,
    )


def with_role(data: Mapping[str, Feed], role: Role) -> list[str]:
    """The names of the streams that have a role."""
    return [name for name, feed in data.items() if feed.role == role]


def check_environments(name: Name, ending: Ending, environments: Mapping[str, Feed]) -> None:
    """Refuse environments that would be loaded and not read."""
    if ending.environment and len(environments) > 1:
        raise ValueError(
            f"-{name.robust} looks along one environment, and {len(environments)} were given: "
            "give one"
        )


def lora(common: Common) -> Lora | None:
    """The adapters, if there are to be any; alpha is the rank, as in arXiv 2106.09685."""
    if common.lora_rank == 0:
        if common.quantise_base:
            raise ValueError(
                f"quantise_base {common.quantise_base}: rounded weights cannot be trained, only "
                "adapters of them: give `lora_rank` as well"
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
    read += [n for need in data_for(mask) for n in with_role(given, need) or [need]]
    for name in read:
        if name not in given:
            raise ValueError(f"`{name}` is missing: give a file or hub dataset, or `model` lab")
    return [name for name in given if name in read]


def metrics(common: Common, data: Mapping[str, Feed]) -> dict[str, Metric]:
    """The lab's questions on the lab's model, and the loss on all data that the user brought.

    Facts have questions of their own, also about those that are not trained on.
    Those about the lab's agents are left out where something else is forgotten.
    """
    users = (Dataset, FactDocuments)
    given = {name: feed for name, feed in data.items() if isinstance(feed.source, users)}
    labs = lab.metrics() if common.model == LAB else {}
    asked = {name: m for name, m in labs.items() if name != FORGET or not common.forget}
    facts = facts_data.metrics(common.forget, common.retain, common.measured)
    return {**asked, **facts, **user_data.metrics(given, common.measured)}


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
    role: Role, places: Sequence[str], columns: Sequence[str], size: int, cut: int | None
) -> dict[str, Feed]:
    """The user's data at ``places``, called ``role``, ``role2``, ..."""
    return {
        f"{role}{i if i > 1 else ''}": Feed(user_data.dataset(place, columns, cut), size, role)
        for i, place in enumerate(places, start=1)
    }
