"""Attacks that were run on their own, put with the run whose model they attacked."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ilu.runs.results.forget_metric import without_sizes
from ilu.runs.results.run_metrics import Measured
from ilu.runs.run_dir import PROBES
from ilu.types import STAGES


def join(runs: Sequence[Measured]) -> list[Measured]:
    """Add the attacks to the runs that made their model, known by its bytes; the rest stays."""
    made = {
        hashes: i
        for i, m in enumerate(runs)
        if m.recipe["objective"] and (hashes := key(m.records.get("model")))
    }
    found, attackers = list(runs), set[int]()
    for i, m in enumerate(runs):
        host = made.get(key(m.records["data"].get("model")) or "")
        unlearns_nothing = not m.recipe["objective"] and (m.attacks or PROBES in m.stages)
        if host is not None and unlearns_nothing and same_questions(found[host], m):
            found[host] = with_attacks(found[host], m)
            attackers.add(i)
    return [m for i, m in enumerate(found) if i not in attackers]


def key(model: Mapping[str, str] | None) -> str | None:
    """A model's hashes as one value, if they were recorded."""
    return json.dumps(model, sort_keys=True) if model else None


def same_questions(a: Measured, b: Measured) -> bool:
    """Whether what both call by the same name is the same, but for how much of it was asked.

    And whether forgetting is: a worst case is over the same questions.
    """
    ours, theirs = (without_sizes(m.recipe["metrics"]) for m in (a, b))
    if len({m.forget for m in (a, b) if m.forget}) > 1:
        return False
    return all(ours[name] == theirs[name] for name in ours if name in theirs)


def with_attacks(host: Measured, m: Measured) -> Measured:
    """The run as if it had carried out the attacks of ``m`` itself, and measured what ``m`` did.

    What ``m`` measured before its attacks is about the same weights, and so about the host's after.
    """
    taken = host.recipe["attacks"]
    names = {a: f"{a} ({m.run.path.name})" if a in taken else a for a in m.attacks}
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
            "attacks": {**taken, **attacks},
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
