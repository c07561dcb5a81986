"""Join runs of ``ilu attack`` with the run that made the attacked model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ilu.runs.results.forget_metric import without_sizes
from ilu.runs.results.run_metrics import Measured
from ilu.runs.run_dir import PROBES
from ilu.system.scores import STAGES


def join(runs: Sequence[Measured]) -> list[Measured]:
    """Add attack runs to the runs that made their model, matched by its hashes."""
    makers = {
        hashes: i
        for i, m in enumerate(runs)
        if m.recipe["objective"] and (hashes := model_key(m.records.get("model")))
    }
    joined, attackers = list(runs), set[int]()
    for i, m in enumerate(runs):
        host = makers.get(model_key(m.records["data"].get("model")) or "")
        only_attacks = not m.recipe["objective"] and (m.attacks or PROBES in m.stages)
        if host is not None and only_attacks and same_questions(joined[host], m):
            joined[host] = with_attacks(joined[host], m)
            attackers.add(i)
    return [m for i, m in enumerate(joined) if i not in attackers]


def model_key(model: Mapping[str, str] | None) -> str | None:
    """The hashes of a model as one string, if they were recorded."""
    return json.dumps(model, sort_keys=True) if model else None


def same_questions(a: Measured, b: Measured) -> bool:
    """Whether metrics of the same name use the same questions; their number may differ.

    The forget metric must also be the same one: a worst case is over one set of questions.
    """
    ours, theirs = (without_sizes(m.recipe["metrics"]) for m in (a, b))
    if len({m.forget for m in (a, b) if m.forget}) > 1:
        return False
    return all(ours[name] == theirs[name] for name in ours if name in theirs)


def with_attacks(host: Measured, m: Measured) -> Measured:
    """``host`` with the attacks and measurements of ``m``.

    What ``m`` measured before its attacks is a measurement of the host's unlearned model.
    """
    own = host.recipe["attacks"]
    names = {a: f"{a} ({m.run.path.name})" if a in own else a for a in m.attacks}
    stages = {
        f"{name}-{stage}": old
        for a, name in names.items()
        for stage, old in {"start": "after", **{s: f"{a}-{s}" for s in STAGES}}.items()
        if old in m.stages
    }
    if PROBES in m.stages and PROBES not in host.stages:
        stages[PROBES] = PROBES
    attacks = {name: m.recipe["attacks"][a] for a, name in names.items()}
    curves = {names[a]: rows for a, rows in m.records["curves"].items()}
    data: dict[str, Any] = {
        f"attack {name}": m.records["data"].get(f"attack {a}") for a, name in names.items()
    }
    return replace(
        host,
        recipe={
            **host.recipe,
            "metrics": {**m.recipe["metrics"], **host.recipe["metrics"]},
            "attacks": {**own, **attacks},
            PROBES: host.recipe.get(PROBES) or m.recipe.get(PROBES) or {},
        },
        stages={
            **host.stages,
            "after": {**m.stages.get("after", {}), **host.stages.get("after", {})},
            **{new: m.stages[old] for new, old in stages.items()},
        },
        places={**host.places, **{new: m.places[old] for new, old in stages.items()}},
        records={
            **host.records,
            "data": {**host.records["data"], **data},
            "curves": {**host.records["curves"], **curves},
        },
        attackers=(*host.attackers, m),
    )
