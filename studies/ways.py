"""The ways that studies/ilu_vs_baselines.py compares, by group, and the settings tried of each.

`all weights`: the rule or penalty sees weights that the method does not train. `readings` is RMU
with the penalty in each reading of w, over other environments, and with more weights trained;
`elementwise` goes on with the reading that gained most there; `batches` of the environment,
`strengths` and `steps` differ in that alone from the strength of 100 and the 450 steps that were
kept for `rmu-ilu`; `sam` adds the penalty, or the control, to SAM, and `radii` goes on from there
with larger ones; `adversaries` is LAT, TAR and looking ahead. Groups whose names begin with npo are
about NPO, all others about RMU.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ilu.lab.sources import Documents, TaskTrain
from ilu.models import LAB
from ilu.recipe import Recipe
from ilu.recipes import lab
from ilu.recipes.assemble import build
from ilu.types import Source

QUESTIONS, ENVIRONMENT = 240, 16
ALL: dict[str, Any] = {"reach": "."}
RMU_TRAINS = r"layers\.[123]\.mlp\.down_proj"
Settings = dict[str, Any]


class Way(NamedTuple):
    """A recipe and the settings that may be chosen.

    ``environments`` stand in place of sums; ``base`` is what its gain is over, where that is not
    the method alone.
    """

    recipe: str
    choices: Sequence[Settings]
    reading: str | None = None
    environments: Sequence[Source] = ()
    base: str | None = None

    def built(self, choice: int, seed: int) -> Recipe:
        """The recipe with a setting, and without attacks."""
        drawn = {"direction_seed": seed} if self.recipe.startswith("rmu") else {}
        given = {"model": LAB, "seed": seed, "environment_batch_size": ENVIRONMENT}
        made = build(self.recipe, {**given, **drawn, **self.choices[choice]})
        made = over_others(made, self.environments) if self.environments else made
        return replace(made, metrics=lab.metrics(QUESTIONS))


def over_others(made: Recipe, sources: Sequence[Source]) -> Recipe:
    """The recipe with a penalty over each of these environments."""
    feed, penalty = made.data["environment"], made.objective["invariance"]
    feeds = {f"environment{i}": replace(feed, source=s) for i, s in enumerate(sources, start=1)}
    penalties = {f"invariance{i}": replace(penalty, on=name) for i, name in enumerate(feeds, 1)}
    terms = {name: term for name, term in made.objective.items() if term is not penalty}
    data = {name: each for name, each in made.data.items() if each is not feed}
    return replace(made, data={**data, **feeds}, objective={**terms, **penalties})


def strengths(values: Sequence[float], **beside: Any) -> list[Settings]:
    """Lambda, with or without other settings."""
    return [{"strength": value, **beside} for value in values]


RMU = Way("rmu", [{"steps": n} for n in (200, 300, 450)])
RMU_CONTROL = Way("rmu-control", strengths((0.1, 1.0, 10.0), scale_free=True, steps=300))
RMU_ILU = Way("rmu-ilu", strengths((100.0, 300.0, 1000.0), steps=450), "gradient")
RMU_SAM = Way("rmu-sam", [{"rho": r} for r in (1.0, 2.0, 4.0)])
RMU_SAM_ALL = Way("rmu-sam", [{"rho": r, **ALL} for r in (0.25, 0.5, 1.0)])
NPO = Way("npo", [{"steps": n} for n in (60, 100, 150)])
NPO_SAM = Way("npo-sam", [{"rho": r} for r in (0.05, 0.1, 0.2)])
NPO_CONTROL = Way(
    "npo-control", strengths((0.1, 1.0, 10.0, 0.01, 0.001), scale_free=True, steps=100)
)
RMU_AHEAD = Way("rmu-ahead", [{"ahead": a} for a in (1e-3, 3e-3, 6e-3)])
SCALE_FREE = {"scale_free": True, "steps": 450}
ELEMENTWISE = {"reading": "elementwise", **SCALE_FREE}
READINGS = {
    f"rmu-ilu {w}": Way("rmu-ilu", strengths((0.01, 0.1, 1.0), reading=w, **SCALE_FREE), w)
    for w in ("logits", "parameters", "tensors", "elementwise")
}
LONGER = Way(
    "rmu-ilu",
    strengths((0.3, 1.0), reading="elementwise", scale_free=True, steps=700),
    "elementwise",
)
WIDE: dict[str, Any] = {"parameters": "", "lr": 3e-4}
WAYS: dict[str, dict[str, Way]] = {
    "rmu": {
        "rmu": RMU,
        "rmu-ahead": RMU_AHEAD,
        "rmu-control": RMU_CONTROL,
        "rmu-ilu": RMU_ILU,
        "rmu-ilu all weights": Way(
            "rmu-ilu", strengths((0.1, 1.0, 10.0), steps=300, **ALL), "gradient"
        ),
        "rmu-sam all weights": RMU_SAM_ALL,
        "rmu-sam": RMU_SAM,
        "rmu-ahead trained weights": Way(
            "rmu-ahead", [{"ahead": a, "reach": RMU_TRAINS} for a in (1e-3, 3e-3, 6e-3)]
        ),
        "rmu-rs all weights": Way(
            "rmu-rs", [{"sigma": s, "samples": 1, **ALL} for s in (1e-3, 3e-3, 1e-2)]
        ),
        "rmu-ahead-ilu": Way(
            "rmu-ahead-ilu", strengths((0.01, 0.1, 1.0), steps=300), "gradient"
        ),
    },
    "npo": {
        "npo": NPO,
        "npo-ahead": Way("npo-ahead", [{"ahead": a} for a in (3e-4, 1e-3, 3e-3)]),
        "npo-control": NPO_CONTROL,
        "npo-ilu": Way("npo-ilu", strengths((1e-3, 1e-2, 1e-1), steps=130), "gradient"),
        "npo-sam": NPO_SAM,
    },
    "readings": {
        "rmu": RMU,
        "rmu-control": RMU_CONTROL,
        **READINGS,
        "rmu-ilu": RMU_ILU,
        "rmu-ilu three environments": RMU_ILU._replace(
            choices=strengths((30.0, 100.0, 300.0), steps=450),
            environments=[TaskTrain(task) for task in ("sums", "mood", "entail")],
        ),
        "rmu-ilu related": RMU_ILU._replace(
            choices=strengths((0.01, 0.1, 1.0), **SCALE_FREE), environments=[Documents("people")]
        ),
        "rmu-ilu forget set": RMU_ILU._replace(
            choices=strengths((0.01, 0.1, 1.0), **SCALE_FREE), environments=[Documents("agents")]
        ),
        "rmu wide": Way("rmu", [{"steps": n, **WIDE} for n in (100, 200, 300)]),
        "rmu-ilu wide": Way(
            "rmu-ilu", strengths((0.01, 0.1, 1.0), scale_free=True, steps=300, **WIDE),
            "gradient", base="rmu wide",
        ),
    },
    "elementwise": {
        "rmu": RMU,
        "rmu-control": RMU_CONTROL,
        "rmu-ilu elementwise, longer": LONGER,
        "rmu-ilu elementwise, all weights": Way(
            "rmu-ilu", strengths((0.1, 1.0), **ELEMENTWISE, **ALL), "elementwise"
        ),
    },
    "adversaries": {
        "rmu": RMU,
        "rmu-control": RMU_CONTROL,
        "rmu-lat": Way("rmu-lat", [{"epsilon": e} for e in (0.25, 0.5, 1.0)]),
        "rmu-tar all weights": Way(
            "rmu-tar", [{"inner_lr": r, **ALL} for r in (3e-4, 1e-3, 3e-3)]
        ),
        "rmu-ahead": RMU_AHEAD,
    },
    "batches": {
        "rmu": RMU,
        "rmu-control": RMU_CONTROL,
        **{
            f"rmu-ilu batches of {n}": RMU_ILU._replace(
                choices=strengths((100.0,), steps=450, environment_batch_size=n)
            )
            for n in (4, 64)
        },
    },
    "strengths": {
        "rmu": RMU,
        "rmu-control": RMU_CONTROL,
        "rmu-ilu": RMU_ILU,
        **{
            f"rmu-ilu strength {x:g}": RMU_ILU._replace(choices=strengths((x,), steps=450))
            for x in (10.0, 30.0, 300.0, 1000.0)
        },
    },
    "steps": {
        "rmu": RMU,
        "rmu-control": RMU_CONTROL,
        **{f"rmu {n} steps": RMU._replace(choices=[{"steps": n}]) for n in (450, 700)},
        **{
            f"rmu-ilu {n} steps": RMU_ILU._replace(choices=strengths((100.0,), steps=n))
            for n in (150, 300, 700)
        },
        "rmu-ilu": RMU_ILU,
        "rmu-ilu elementwise": READINGS["rmu-ilu elementwise"],
        "rmu-ilu elementwise, longer": LONGER,
    },
    "sam": {
        "rmu": RMU,
        "rmu-control": RMU_CONTROL,
        "rmu-sam": RMU_SAM,
        "rmu-sam longer": Way("rmu-sam", [{"rho": r, "steps": 450} for r in (2.0, 4.0)]),
        "rmu-sam-control": Way(
            "rmu-sam-control", strengths((0.01, 0.1, 0.3), rho=2.0, **SCALE_FREE)
        ),
        "rmu-sam all weights": RMU_SAM_ALL,
        "rmu-sam all weights, longer": Way(
            "rmu-sam", [{"rho": r, "steps": 450, **ALL} for r in (0.25, 0.5)]
        ),
        "rmu-sam-control all weights": Way(
            "rmu-sam-control", strengths((0.01, 0.1), rho=0.5, **SCALE_FREE, **ALL)
        ),
        "rmu-sam-ilu": Way(
            "rmu-sam-ilu", strengths((0.1, 0.3, 1.0), rho=2.0, **ELEMENTWISE), "elementwise"
        ),
        "rmu-sam-ilu all weights": Way(
            "rmu-sam-ilu", strengths((0.03, 0.1, 0.3), rho=0.5, **ELEMENTWISE, **ALL),
            "elementwise",
        ),
    },
    "radii": {
        "rmu": RMU,
        "rmu-control": RMU_CONTROL,
        "rmu-sam-control radius 4": Way(
            "rmu-sam-control", strengths((0.003, 0.01, 0.03), rho=4.0, **SCALE_FREE)
        ),
        "rmu-sam-ilu radius 4": Way(
            "rmu-sam-ilu", strengths((0.3, 1.0, 3.0), rho=4.0, **ELEMENTWISE), "elementwise"
        ),
        "rmu-sam-ilu strength 3": Way(
            "rmu-sam-ilu", strengths((3.0,), rho=2.0, **ELEMENTWISE), "elementwise"
        ),
        "rmu-sam-control all weights, radius 1": Way(
            "rmu-sam-control", strengths((0.003, 0.01, 0.03), rho=1.0, **SCALE_FREE, **ALL)
        ),
        "rmu-sam-ilu all weights, radius 1": Way(
            "rmu-sam-ilu", strengths((0.01, 0.03, 0.1), rho=1.0, **ELEMENTWISE, **ALL),
            "elementwise",
        ),
    },
    "npo-readings": {
        "npo": NPO,
        "npo-control": NPO_CONTROL,
        **{
            f"npo-ilu {w}": Way(
                "npo-ilu",
                strengths((0.01, 0.1, 1.0), reading=w, scale_free=True, steps=130), w,
            )
            for w in ("logits", "parameters", "tensors", "elementwise", "gradient")
        },
    },
    "npo-sam": {
        "npo": NPO,
        "npo-control": NPO_CONTROL,
        "npo-sam": NPO_SAM,
        "npo-sam-ilu": Way(
            "npo-sam-ilu",
            strengths((0.03, 0.1, 0.3), rho=0.2, reading="elementwise", scale_free=True, steps=150),
            "elementwise",
        ),
        "npo-sam-control": Way(
            "npo-sam-control",
            strengths((0.001, 0.01, 0.1), rho=0.2, scale_free=True, steps=150),
        ),
        "npo-sam-ilu radius 0.1": Way(
            "npo-sam-ilu",
            strengths(
                (0.01, 0.03, 0.1), rho=0.1, reading="elementwise", scale_free=True, steps=130
            ),
            "elementwise",
        ),
    },
    "npo-adversaries": {
        "npo": NPO,
        "npo-control": NPO_CONTROL,
        "npo-lat": Way("npo-lat", [{"epsilon": e} for e in (0.25, 0.5, 1.0)]),
        "npo-tar all weights": Way(
            "npo-tar", [{"inner_lr": r, **ALL} for r in (1e-4, 3e-4, 1e-3)]
        ),
    },
}  # fmt: skip


def base(group: str) -> str:
    """The method that all ways of a group are compared with."""
    return "npo" if group.startswith("npo") else "rmu"


IMPLIED = (
    "reach", "scale_free", "samples", "reading", "parameters", "environment_batch_size",
)  # fmt: skip
"""Settings that the name of a row says, or that all rows of its kind share."""
