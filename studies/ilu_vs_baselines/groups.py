"""The variants of unlearning that this study compares, by group.

`all weights`: the rule or penalty sees weights that the method does not train. `readings` is RMU
with the penalty in each reading of w, over other environments, and with more weights trained;
`elementwise` goes on with the reading that gained most there; `batches` of the environment,
`strengths` and `steps` differ in that alone from the strength of 100 and the 450 steps that were
kept for `rmu-ilu`; `sam` adds the penalty, or the control, to SAM, and `equal` goes on from there
against an RMU and a control of as many steps, though TAR has 300; `directions` has, as long, the
penalty with layer-wise weights, and along what would teach the forget set again; `adversaries` is
LAT, TAR and looking ahead (rows `ahead`, as the record names them). Groups whose names begin with
npo are about NPO, all others about RMU.
"""

from typing import NamedTuple

from ilu.lab.sources import Documents, TaskTrain
from studies.ilu_vs_baselines.perturbed import PerturbedTexts
from studies.ilu_vs_baselines.variants import Settings, Variant, around, forward, strengths

ALL: Settings = {"perturbed": "."}
RMU_TRAINS = r"layers\.[123]\.mlp\.down_proj"
RMU = Variant("rmu", [{"steps": n} for n in (200, 300, 450)])
RMU_450 = RMU._replace(choices=[{"steps": 450}])
RMU_CONTROL = Variant("rmu-control", strengths((0.1, 1.0, 10.0), scale_free=True, steps=300))
RMU_ILU = Variant("rmu-ilu", strengths((100.0, 300.0, 1000.0), steps=450), "gradient")
RMU_SAM = Variant("rmu-sam", [{"rho": r} for r in (1.0, 2.0, 4.0)])
RMU_SAM_ALL = Variant("rmu-sam", [{"rho": r, **ALL} for r in (0.25, 0.5, 1.0)])
NPO = Variant("npo", [{"steps": n} for n in (60, 100, 150)])
NPO_SAM = Variant("npo-sam", [{"rho": r} for r in (0.05, 0.1, 0.2)])
NPO_CONTROL = Variant(
    "npo-control", strengths((0.1, 1.0, 10.0, 0.01, 0.001), scale_free=True, steps=100)
)
RMU_TAR_ALL = Variant("rmu-tar", [{"inner_lr": r, **ALL} for r in (3e-4, 1e-3, 3e-3)])
TAR: Settings = {"inner_lr": 3e-4, "steps": 300}
RMU_AHEAD = Variant("rmu-lookahead", [{"lookahead_step": a} for a in (1e-3, 3e-3, 6e-3)])
SCALE_FREE: Settings = {"scale_free": True, "steps": 450}
ELEMENTWISE: Settings = {"reading": "elementwise", **SCALE_FREE}
RMU_CONTROL_450 = Variant("rmu-control", strengths((0.01, 0.1, 1.0), **SCALE_FREE))
PLAIN = {
    "rmu": RMU,
    "rmu 450 steps": RMU_450,
    "rmu-control": RMU_CONTROL,
    "rmu-control 450 steps": RMU_CONTROL_450,
}
READINGS = {
    f"rmu-ilu {w}": Variant("rmu-ilu", strengths((0.01, 0.1, 1.0), reading=w, **SCALE_FREE), w)
    for w in ("logits", "parameters", "tensors", "elementwise")
}
LONGER = Variant(
    "rmu-ilu",
    strengths((0.3, 1.0), reading="elementwise", scale_free=True, steps=700),
    "elementwise",
)
WIDE: Settings = {"parameters": "", "lr": 3e-4}
VARIANTS: dict[str, dict[str, Variant]] = {
    "rmu": {
        "rmu": RMU,
        "rmu-ahead": RMU_AHEAD,
        "rmu-control": RMU_CONTROL,
        "rmu-ilu": RMU_ILU,
        "rmu-ilu all weights": Variant(
            "rmu-ilu", strengths((0.1, 1.0, 10.0), steps=300, **ALL), "gradient"
        ),
        "rmu-sam all weights": RMU_SAM_ALL,
        "rmu-sam": RMU_SAM,
        "rmu-ahead trained weights": Variant(
            "rmu-lookahead",
            [{"lookahead_step": a, "perturbed": RMU_TRAINS} for a in (1e-3, 3e-3, 6e-3)],
        ),
        "rmu-rs all weights": Variant(
            "rmu-rs", [{"sigma": s, "samples": 1, **ALL} for s in (1e-3, 3e-3, 1e-2)]
        ),
        "rmu-ahead-ilu": Variant(
            "rmu-lookahead-ilu", strengths((0.01, 0.1, 1.0), steps=300), "gradient"
        ),
    },
    "npo": {
        "npo": NPO,
        "npo-ahead": Variant("npo-lookahead", [{"lookahead_step": a} for a in (3e-4, 1e-3, 3e-3)]),
        "npo-control": NPO_CONTROL,
        "npo-ilu": Variant("npo-ilu", strengths((1e-3, 1e-2, 1e-1), steps=130), "gradient"),
        "npo-sam": NPO_SAM,
    },
    "readings": {
        **PLAIN,
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
        "rmu wide": Variant("rmu", [{"steps": n, **WIDE} for n in (100, 200, 300)]),
        "rmu-ilu wide": Variant(
            "rmu-ilu", strengths((0.01, 0.1, 1.0), scale_free=True, steps=300, **WIDE),
            "gradient", base="rmu wide",
        ),
    },
    "elementwise": {
        **PLAIN,
        "rmu-ilu elementwise, longer": LONGER,
        "rmu-ilu elementwise, all weights": Variant(
            "rmu-ilu", strengths((0.1, 1.0), **ELEMENTWISE, **ALL), "elementwise"
        ),
    },
    "adversaries": {
        **PLAIN,
        "rmu-lat": Variant("rmu-lat", [{"epsilon": e} for e in (0.25, 0.5, 1.0)]),
        "rmu-tar all weights": RMU_TAR_ALL,
        "rmu-ahead": RMU_AHEAD,
    },
    "batches": {
        **PLAIN,
        **{
            f"rmu-ilu batches of {n}": RMU_ILU._replace(
                choices=strengths((100.0,), steps=450, environment_batch_size=n)
            )
            for n in (4, 64)
        },
    },
    "strengths": {
        **PLAIN,
        "rmu-ilu": RMU_ILU,
        **{
            f"rmu-ilu strength {x:g}": RMU_ILU._replace(choices=strengths((x,), steps=450))
            for x in (10.0, 30.0, 300.0, 1000.0)
        },
    },
    "steps": {
        **PLAIN,
        "rmu 700 steps": RMU._replace(choices=[{"steps": 700}]),
        **{
            f"rmu-ilu {n} steps": RMU_ILU._replace(choices=strengths((100.0,), steps=n))
            for n in (150, 300, 700)
        },
        "rmu-ilu": RMU_ILU,
        "rmu-ilu elementwise": READINGS["rmu-ilu elementwise"],
        "rmu-ilu elementwise, longer": LONGER,
    },
    "sam": {
        **PLAIN,
        "rmu-sam": RMU_SAM,
        "rmu-sam longer": Variant("rmu-sam", [{"rho": r, "steps": 450} for r in (2.0, 4.0)]),
        "rmu-sam-control": Variant(
            "rmu-sam-control", strengths((0.01, 0.1, 0.3), rho=2.0, **SCALE_FREE)
        ),
        "rmu-sam all weights": RMU_SAM_ALL,
        "rmu-sam all weights, longer": Variant(
            "rmu-sam", [{"rho": r, "steps": 450, **ALL} for r in (0.25, 0.5)]
        ),
        "rmu-sam-control all weights": Variant(
            "rmu-sam-control", strengths((0.01, 0.1), rho=0.5, **SCALE_FREE, **ALL)
        ),
        "rmu-sam-ilu": Variant(
            "rmu-sam-ilu", strengths((0.1, 0.3, 1.0), rho=2.0, **ELEMENTWISE), "elementwise"
        ),
        "rmu-sam-ilu all weights": Variant(
            "rmu-sam-ilu", strengths((0.03, 0.1, 0.3), rho=0.5, **ELEMENTWISE, **ALL),
            "elementwise",
        ),
    },
    "equal": {
        "rmu 450 steps": RMU_450,
        "rmu-control 450 steps": RMU_CONTROL_450,
        "rmu 450 steps, alpha 10": Variant("rmu", [{"steps": 450, "alpha": 10.0}]),
        "rmu-control 450 steps, alpha 10": Variant(
            "rmu-control", strengths((0.01, 0.1), alpha=10.0, **SCALE_FREE)
        ),
        "rmu-sam 450 steps": Variant("rmu-sam", around(1.0, steps=450)),
        "rmu-sam all weights, 450 steps": Variant("rmu-sam", around(0.25, steps=450, **ALL)),
        "rmu-sam-control 450 steps": Variant(
            "rmu-sam-control", around(1.0, strength=0.01, **SCALE_FREE)
        ),
        "rmu-sam-ilu 450 steps": Variant(
            "rmu-sam-ilu", around(1.0, strength=1.0, **ELEMENTWISE), "elementwise"
        ),
        "rmu-sam-control all weights, 450 steps": Variant(
            "rmu-sam-control", around(0.25, strength=0.01, **SCALE_FREE, **ALL)
        ),
        "rmu-sam-ilu all weights, 450 steps": Variant(
            "rmu-sam-ilu", around(0.25, strength=0.03, **ELEMENTWISE, **ALL), "elementwise"
        ),
        "rmu-ahead 450 steps": Variant("rmu-lookahead", forward(steps=450)),
        "rmu-ahead-control 450 steps": Variant(
            "rmu-lookahead-control", forward(strength=0.01, **SCALE_FREE)
        ),
        "rmu-ahead-ilu 450 steps": Variant(
            "rmu-lookahead-ilu", forward(strength=0.03, **ELEMENTWISE), "elementwise"
        ),
        "rmu-tar all weights": RMU_TAR_ALL,
        "rmu-tar-control all weights": Variant(
            "rmu-tar-control", strengths((0.01, 0.1), scale_free=True, **TAR, **ALL)
        ),
        "rmu-tar-ilu all weights": Variant(
            "rmu-tar-ilu",
            strengths((0.03, 0.1), reading="elementwise", scale_free=True, **TAR, **ALL),
            "elementwise",
        ),
    },
    "directions": {
        "rmu 450 steps": RMU_450,
        "rmu-control 450 steps": RMU_CONTROL_450,
        **{
            f"rmu-ilu {w}, layerwise": Variant(
                "rmu-ilu",
                strengths((0.01, 0.1, 1.0), reading=w, layerwise=True, **SCALE_FREE, **ALL), w,
            )
            for w in ("gradient", "elementwise")
        },
        "rmu-ilu gradient, layerwise, alpha 10": Variant(
            "rmu-ilu",
            strengths((0.03, 0.1), layerwise=True, alpha=10.0, **SCALE_FREE, **ALL), "gradient",
        ),
        "rmu-sam-ilu gradient, layerwise": Variant(
            "rmu-sam-ilu",
            [
                {"strength": x, "alpha": a, "rho": 0.25, "layerwise": True, **SCALE_FREE, **ALL}
                for x, a in ((0.03, 10.0), (0.01, 5.0), (0.01, 10.0))
            ],
            "gradient",
        ),
        "rmu-ilu gradient, layerwise, three perturbed": Variant(
            "rmu-ilu",
            strengths((0.003, 0.01), layerwise=True, **SCALE_FREE, **ALL), "gradient",
            environments=[PerturbedTexts(TaskTrain("sums"), 0.2, seed) for seed in (1, 2, 3)],
        ),
        **{
            f"rmu-ilu {w}, forget directions": Variant(
                "rmu-ilu",
                strengths((0.01, 0.1, 1e-3), reading=w, directions="forget", **SCALE_FREE, **ALL),
                w,
            )
            for w in ("parameters", "tensors", "elementwise")
        },
    },
    "npo-readings": {
        "npo": NPO,
        "npo-control": NPO_CONTROL,
        **{
            f"npo-ilu {w}": Variant(
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
        "npo-sam-ilu": Variant(
            "npo-sam-ilu",
            strengths((0.03, 0.1, 0.3), rho=0.2, reading="elementwise", scale_free=True, steps=150),
            "elementwise",
        ),
        "npo-sam-control": Variant(
            "npo-sam-control",
            strengths((0.001, 0.01, 0.1), rho=0.2, scale_free=True, steps=150),
        ),
        "npo-sam-ilu radius 0.1": Variant(
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
        "npo-lat": Variant("npo-lat", [{"epsilon": e} for e in (0.25, 0.5, 1.0)]),
        "npo-tar all weights": Variant(
            "npo-tar", [{"inner_lr": r, **ALL} for r in (1e-4, 3e-4, 1e-3)]
        ),
    },
}  # fmt: skip


class Compared(NamedTuple):
    """What a group is compared with, and how far below its utility a setting may be.

    Gains are over ``over`` and ``control``: RMU forgets more durably the longer it is trained, and
    what is compared with it is trained for longer than suits it.
    """

    base: str
    over: str
    control: str
    slack: float = 0.03


def compared(group: str) -> Compared:
    """All groups but two are compared with the method at the number of steps that suits it."""
    if group in ("equal", "directions"):
        return Compared("rmu 450 steps", "rmu 450 steps", "rmu-control 450 steps", 0.02)
    if group.startswith("npo"):
        return Compared("npo", "npo", "npo-control")
    if group == "rmu":
        return Compared("rmu", "rmu", "rmu-control")
    return Compared("rmu", "rmu 450 steps", "rmu-control 450 steps")
