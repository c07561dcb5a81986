"""Build a recipe from its name and the user's settings."""

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ilu.data.downstream import LabelledText
from ilu.data.facts.sources import FactDocuments
from ilu.data.splits import Trained
from ilu.data.stream import Feed, Role
from ilu.data.text import Dataset
from ilu.methods.ending import Ending
from ilu.methods.masks.make import Masking
from ilu.methods.method import Method, Setup
from ilu.methods.robust.undo import DISTIL, Undo
from ilu.methods.stage import Stage
from ilu.models.blocks import number_of_blocks
from ilu.models.lora import Lora
from ilu.models.named import LAB, full_name
from ilu.recipes import facts_data, free_text, lab, user_data
from ilu.recipes.masks import data_for, mask_setting
from ilu.recipes.names import ENVIRONMENT, Name, parse_name
from ilu.recipes.registry import endings, methods, stages
from ilu.recipes.robust import (
    fold_feeds,
    in_stages,
    with_control,
    with_invariance,
    with_robust,
    with_topics,
)
from ilu.recipes.settings import Common, Distilled, Invariance
from ilu.recipes.task_attack import KNOWN, downstream
from ilu.recipes.validation import validation
from ilu.runs.recipe import Recipe
from ilu.runs.results.forget_metric import FORGET
from ilu.system.errors import alternatives, similar
from ilu.training.fit import Optim
from ilu.training.objective import Objective
from ilu.types import Group, Metric, Source


def defaults(
    name: str, model: str, *, published: bool = False, adapters: bool = False
) -> dict[str, Any]:
    """The default of each setting: the lab's, a measured value, or the published one.

    ``published`` keeps to published values. ``adapters``: low-rank adapters will be trained.
    """
    parsed = parse_name(name)
    method, ending = methods()[parsed.method], ending_of(parsed)
    usual = {"steps": method.steps, "lr": method.lr, **arguments(method.recipe)}
    if model == LAB:
        return {**usual, **lab.settings(method, ending, parsed.environment, stage_of(parsed))}
    if published or method.settings:
        usual["held_out"] = 0.0
    if not published:
        usual |= measured_defaults(method, parsed, model, adapters)
    # A run without an environment does not load one.
    reads = parsed.environment or (ending and ending.environment)
    idle = [] if reads else ["environment", "environment_batch_size"]
    if ending and not ending.adapters:
        idle += ["lora_rank", "lora_alpha"]
    return {**usual, **{k: v for k, v in method.settings.items() if k not in idle}}


MEASURED_ENVIRONMENT = {"environment_batch_size": 4}
"""Replaces the published 48 examples, which need much memory and time: on SmolLM2 a step of NPO
takes more than twice as long with a penalty on 4 examples of 96 tokens."""


def measured_defaults(method: Method, name: Name, model: str, adapters: bool) -> dict[str, Any]:
    """The defaults that replace published ones for a model that no publication is about."""
    if not method.measured:
        return {}
    environment = {**MEASURED_ENVIRONMENT, **method.environment} if name.environment else {}
    depth = number_of_blocks(model) if model and method.by_depth else None
    by_depth = {k: rule(depth) for k, rule in method.by_depth.items()} if depth else {}
    return {**environment, **method.measured, **by_depth, **(method.adapters if adapters else {})}


def ending_of(name: Name) -> Ending | None:
    """The robust training in a recipe's name."""
    return endings()[name.robust] if name.robust else None


def stage_of(name: Name) -> Stage | None:
    """The stage after the unlearning in a recipe's name."""
    return stages()[name.stage] if name.stage else None


def arguments(recipe: Callable[..., Setup]) -> dict[str, Any]:
    """The settings of a method with their published values."""
    return {name: p.default for name, p in inspect.signature(recipe).parameters.items()}


def build(name: str, settings: Mapping[str, Any]) -> Recipe:
    """The recipe ``name`` with these settings.

    Missing settings have the value of ``defaults``. ValueError for an unknown setting.
    """
    parsed, settings = parse_name(name), renewed(settings)
    published, model = bool(settings.get("published")), settings.get("model", "")
    adapters = bool(settings.get("lora_rank"))
    known = defaults(str(parsed), model, published=published, adapters=adapters)
    check_names(parsed, settings)
    values = {**known, **settings}
    if "steps" in settings and "passes" not in settings:
        values["passes"] = None
    for key in REPEATABLE & values.keys():
        one = values[key] or ()
        values[key] = (one,) if isinstance(one, str) else tuple(one)
    recipe, ending = methods()[parsed.method].recipe, ending_of(parsed)
    setup = recipe(**take(values, arguments(recipe)))
    robust = ending.settings(**take(values, field_names(ending.settings))) if ending else None
    stage = stage_of(parsed)
    undo = stage.settings(**take(values, field_names(stage.settings))) if stage else None
    distilled = Distilled(**take(values, field_names(Distilled))) if stage else None
    ilu = Invariance(**take(values, field_names(Invariance)))
    warn_of_idle(parsed, ilu, settings)
    optim = Optim(**take(values, field_names(Optim)))
    common = with_named_facts(Common(**take(values, field_names(Common))))
    assert not values, f"settings of no part: {', '.join(values)}"
    made = assemble(parsed, common, optim, setup, ilu, ending, robust)
    return with_undo(made, undo, distilled, common) if undo and distilled else made


def check_names(name: Name, settings: Mapping[str, Any]) -> None:
    """ValueError for a setting that the recipe does not have, with those that are similar."""
    ending, stage = ending_of(name), stage_of(name)
    known = [*arguments(methods()[name.method].recipe), *field_names(Invariance, Optim, Common)]
    known += field_names(ending.settings) if ending else []
    known += field_names(stage.settings, Distilled) if stage else []
    for setting in settings:
        if setting not in known:
            near = similar(setting, known)
            hint = f"; did you mean {alternatives(near)}?" if near else ""
            raise ValueError(f"recipe {str(name)!r} has no setting {setting!r}{hint}")


def with_named_facts(common: Common) -> Common:
    """The settings with ``facts:rest`` written out, and of facts to keep the part to train on."""
    forget = common.forget
    environment = tuple(facts_data.written_out(name, forget) for name in common.environment)
    retain = facts_data.retain_name(common.retain, forget) if common.retain else None
    return replace(common, retain=retain, environment=environment)


def renewed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under their names of today."""
    for old in OLD_SETTINGS.keys() & settings.keys():
        warnings.warn(f"the setting {old} is called {OLD_SETTINGS[old]} now", stacklevel=3)
    return {OLD_SETTINGS.get(key, key): value for key, value in settings.items()}


def warn_of_idle(name: Name, penalty: Invariance, settings: Mapping[str, Any]) -> None:
    """Warn of settings of the penalty in a recipe without one."""
    if name.environment:
        return
    idle = [k for k in field_names(Invariance) if getattr(penalty, k) != getattr(Invariance(), k)]
    if idle or settings.get("strength"):
        what = ", ".join(idle or ["strength"])
        ilu = name._replace(environment=ENVIRONMENT[0])
        warnings.warn(f"{what} does nothing in {str(name)!r}: use {ilu}", stacklevel=3)


def reads_environment(name: Name) -> bool:
    """Whether a recipe trains on an environment."""
    ending = ending_of(name)
    return bool(name.environment or (ending and ending.environment))


def warn_of_environment(name: str) -> None:
    """Warn of an environment that is given to a recipe which does not train on it."""
    found = parse_name(name)
    if not reads_environment(found):
        ilu, control = (found._replace(environment=ending) for ending in ENVIRONMENT)
        warnings.warn(
            f"`environment` is only measured in {name!r}: use {ilu} or {control}",
            stacklevel=2,
        )


OLD_SETTINGS = {"reach": "perturbed", "ahead": "lookahead_step", "measured": "limit"}
"""Setting of an older version -> its name today."""
REPEATABLE = {"forget", "environment"}
"""Settings with several values; a single name is also accepted."""


def field_names(*kinds: type) -> list[str]:
    """The names of the fields of dataclasses."""
    return [f.name for kind in kinds for f in fields(kind)]


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
    """Combine data, objective, metrics and training into a recipe."""
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
    kept: list[str] = []
    if setup.folds:
        objective = in_stages(objective, topics, setup.folds, optim.steps)
        for n in topics:
            every |= fold_feeds(n, every[n], setup.folds)
        kept = topics  # checks and attacks read all that is forgotten
    return Recipe(
        name=str(name),
        model=model,
        data={n: every[n] for n in every if n in {*kept, *needed(objective, every, mask)}},
        objective=objective,
        edit=setup.edit,
        optim=optim,
        metrics=metrics(common, {**data, **environments}),
        slow_metrics={} if common.model == LAB else free_text.of_run(data, common.retain),
        lora=lora(common),
        mask=mask,
        passes=common.passes,
        validation=validation(common, every, optim.steps),
        revision=common.revision,
        save_dtype=common.save_dtype,
        seed=common.seed,
    )


def with_undo(recipe: Recipe, undo: Undo, distilled: Distilled, common: Common) -> Recipe:
    """Distil the unlearned model, by default on the retain data, or on the lab's corpus."""
    name, size = distilled.distil, distilled.distil_batch_size
    if name:
        written = facts_data.written_out(name, common.forget)
        chosen = source(written, distilled.distil_columns, common.truncate, "distil_columns")
        feed = Feed(chosen, size)
    elif common.model == LAB:
        feed = lab.general_text(size)
    elif common.retain:
        feed = Feed(streams(common)[0]["retain"].source, size)
    else:
        raise ValueError(f"`{DISTIL}` is missing: give general text to distil on, or `retain`")
    return replace(recipe, undo=undo, data={**recipe.data, DISTIL: feed})


def with_role(data: Mapping[str, Feed], role: Role) -> list[str]:
    """The names of the streams that have a role."""
    return [name for name, feed in data.items() if feed.role == role]


def check_environments(name: Name, ending: Ending, environments: Mapping[str, Feed]) -> None:
    """ValueError for environments that would be loaded but not used."""
    if ending.environment and len(environments) > 1:
        raise ValueError(
            f"-{name.robust} uses one environment, and {len(environments)} were given: give one"
        )


def lora(common: Common) -> Lora | None:
    """The adapters, or None; the default of alpha is the rank, as in arXiv 2106.09685."""
    if common.lora_rank == 0:
        if common.quantise_base:
            raise ValueError(
                f"`quantise_base` {common.quantise_base}: quantised weights cannot be trained, "
                "only adapters: set `lora_rank` as well"
            )
        return None
    alpha = common.lora_rank if common.lora_alpha is None else common.lora_alpha
    return Lora(common.lora_rank, float(alpha), base_bits=common.quantise_base or None)


def needed(
    objective: Objective, settings: Mapping[str, Feed], mask: str | Masking | None = None
) -> list[str]:
    """The streams that terms, their rules and the mask read; ValueError if one is missing."""
    read = [term.on for term in objective.values()]
    for term in objective.values():
        read += term.rule.reads()
    read += [n for need in data_for(mask) for n in with_role(settings, need) or [need]]
    for name in read:
        if name not in settings:
            raise ValueError(f"`{name}` is missing: give a file or hub dataset, or `model` lab")
    return [name for name in settings if name in read]


def metrics(common: Common, data: Mapping[str, Feed]) -> dict[str, Metric | Group]:
    """The lab's questions on the lab's model, and the loss on all data of the user.

    With a forget set of the user, the questions about the lab's agents are omitted. Facts have
    questions of their own, also about facts that are not trained on.
    """
    users = (Dataset, FactDocuments, LabelledText, Trained)
    given = {name: feed for name, feed in data.items() if isinstance(feed.source, users)}
    labs = lab.metrics() if common.model == LAB else {}
    of_lab = {name: m for name, m in labs.items() if name != FORGET or not common.forget}
    facts = facts_data.metrics(common.forget, common.retain, common.limit)
    return {**of_lab, **facts, **user_data.metrics(given, common.limit)}


def streams(common: Common) -> tuple[dict[str, Feed], dict[str, Feed]]:
    """Forget and retain data, and the environments. On the lab, missing data is the lab's."""
    size, environment_size, cut = (
        common.batch_size,
        common.environment_batch_size,
        common.truncate,
    )
    retain = (common.retain,) if common.retain else ()
    forget = feeds("forget", common.forget, common.forget_columns, size, cut)
    retained = feeds("retain", retain, common.retain_columns, size, cut)
    retain_feeds = {name: trained_part(feed, common.held_out) for name, feed in retained.items()}
    environments = feeds(
        "environment", common.environment, common.environment_columns, environment_size, cut
    )
    if common.model == LAB:
        from_lab = lab.data(size, environment_size)
        forget, retain_feeds, environments = (
            settings or {name: from_lab[name]}
            for name, settings in (
                ("forget", forget),
                ("retain", retain_feeds),
                ("environment", environments),
            )
        )
    return {**forget, **retain_feeds}, environments


def feeds(
    role: Role, places: Sequence[str], columns: Sequence[str], size: int, cut: int | None
) -> dict[str, Feed]:
    """The user's data at ``places``, called ``role``, ``role2``, ..."""
    return {
        f"{role}{i if i > 1 else ''}": Feed(
            source(place, columns, cut, f"{role}_columns"), size, role
        )
        for i, place in enumerate(places, start=1)
    }


def trained_part(feed: Feed, held_out: float) -> Feed:
    """The data without the part on which its loss is measured."""
    if not held_out or not isinstance(feed.source, Dataset):
        return feed
    return replace(feed, source=Trained(feed.source, held_out))


def source(name: str, columns: Sequence[str], cut: int | None, setting: str) -> Source:
    """The training data of a downstream task of the hub or the lab, or the user's data."""
    if name in KNOWN and not Path(name).exists():
        return downstream(name, columns, cut, setting)[0]
    if name in lab.TASK_NAMES and not Path(name).exists():
        return lab.task_source(name, columns, setting)
    return user_data.dataset(name, columns, cut)
