"""Configurations of the original code of WAGLE and ILU as commands of this package."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

Values = dict[str, Any]
"""Settings of the original by their dotted names; translated ones are removed."""

METHODS = {
    "FT": "finetune", "l1_sparse": "l1-sparse", "GA": "ascent", "GA+FT": "graddiff", "GA+KL": "kl",
    "NPO+FT": "token-npo", "KL": "divergence", "CL": "po", "CL+FT": "po", "CL+KL": "po",
    "RL": "random-labels",
}  # fmt: skip
"""``unlearn.unlearn_method`` -> recipe."""
FIXED_FLAGS = {"NPO+FT": (("--beta", 0.1),), "CL+KL": (("--retain-loss", "kl"),)}
"""Flags that a method always has."""
REMARKS = {
    "GA+KL": "gamma GA + (1 - gamma) KL, here divided by gamma; its KL is a cross-entropy",
    "KL": "gamma times the forget term plus the retain term, here divided by gamma",
    "CL+KL": "the original's KL is a cross-entropy, here it is a KL",
    "NPO+FT": "its ratio is that of the batch's token means, which token-npo is nearest to",
    "RL": "the original learns answers of the retain set, here they are random tokens",
}
SCORES = {
    "snip_advanced": "wagle", "snip_advanced_CL": "wagle", "snip_advanced_gn": "fisher-wagle",
    "gradient": "gradient", "weight": "magnitude", "random": "random", "wanda": "wanda",
}  # fmt: skip
"""Folder of a mask, which names its score, -> score here."""
FORGET = {
    "SafePku": ("pku:unsafe",), "HP": ("files/data/hp/hp_qa.jsonl",),
    "WMDPCyber": ("wmdp:cyber-forget",), "WMDPBio": ("wmdp:bio-forget",),
    "WMDPALL": ("wmdp:cyber-forget", "wmdp:bio-forget"),
}  # fmt: skip
RETAIN = {
    "SafePku": "pku:unsafe", "WMDPCyber": "wmdp:cyber-retain", "WMDPBio": "wmdp:bio-retain",
    "WMDPALL": "wmdp:bio-retain", "C4": "c4", "wikitext": "wikitext",
}  # fmt: skip
LENGTHS = {"WMDPCyber": 2000, "WMDPBio": 1024, "WMDPALL": 1024, "HP": 1024}
SIZES = {"Tofu_forget01": 40, "Tofu_forget05": 200, "Tofu_forget10": 400}
SUITES = {"tofu": "tofu", "wmdp": "wmdp", "copyright": "verbatim", "toxic": "toxicity"}
NOTHING = {
    "overall.logger": "every run is recorded as JSON",
    "overall.cache_dir": "set the environment variable HF_HOME",
    "unlearn.p": "without effect in the original but for the name of a folder",
    "unlearn.q": "without effect in the original but for the name of a folder",
    "unlearn.mu": "here mu gives both terms of the score the same size; the original's is "
    "ilu mask wagle --mu X --reduction sum",
    "unlearn.sophia_params.betas_low": "the published betas and rho are used; the original never "
    "updated its Hessian",
    "unlearn.sophia_params.betas_high": "as betas_low",
    "unlearn.sophia_params.rho": "as betas_low",
    "unlearn.resume_path": "it evaluates a model: ilu evaluate PATH",
    "dataset.dataset_seed": "it draws the subset of forget_ratio: write the rows to a file",
}
"""Settings that have no flag here, and why."""


class Translation(NamedTuple):
    """A command, notes about it, and keys that the original does not know either."""

    command: list[str]
    notes: list[str]
    unknown: list[str]


def translate(config: Mapping[str, Any]) -> Translation:
    """The command that is equivalent to a configuration of the original."""
    left = dict(flat(config))
    notes: list[str] = []
    method = str(left.pop("unlearn.unlearn_method", "origin"))
    name = METHODS.get(method, "RECIPE")
    if name == "RECIPE":
        notes.append(f"unlearn.unlearn_method: {method!r} trains nothing or is unknown")
    flags = [
        *model(left, notes),
        *weights(method, left, notes),
        *data(left, notes),
        *masking(left, notes),
        *training(left, notes),
    ]
    notes += [f"{k}: no flag; {why}" for k, why in NOTHING.items() if left.pop(k, None) is not None]
    command = ["ilu", "unlearn", name, *(str(part) for flag in flags for part in flag)]
    return Translation(command, notes, sorted(left))


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested sections as dotted names."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def number(left: Values, key: str, default: float) -> float:
    """A numeric setting; ValueError for any other value."""
    value = left.pop(key, None)
    try:
        return default if value is None else float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{key} is {value!r}: it must be a number") from None


def model(left: Values, notes: list[str]) -> Iterator[tuple[Any, ...]]:
    """The model, the seed and the folder of the run."""
    yield "--model", left.pop("overall.model_name", "MODEL")
    seed = number(left, "overall.seed", 0)
    yield "--seed", int(seed)
    notes.append("overall.seed: the original trains with seed 42 whatever is given")
    root, name = left.pop("logger.json.root", "files/logs"), left.pop("logger.name", None)
    yield "--out", PurePosixPath(root, name) if name else PurePosixPath(root, "run")
    task = left.pop("unlearn.task_name", None)
    if task in SUITES:
        notes.append(f"unlearn.task_name: afterwards ilu evaluate OUT/model --suite {SUITES[task]}")
    elif task is not None:
        notes.append(f"unlearn.task_name: {task!r} is unknown")


def weights(method: str, left: Values, notes: list[str]) -> Iterator[tuple[Any, ...]]:
    """Weights of the terms, whose defaults are 0 in the original."""
    gamma = number(left, f"unlearn.{method}.gamma", 1.0 if method == "CL+FT" else 0.0)
    drop_other_methods(method, left, notes)
    match method:
        case "l1_sparse":
            yield "--l1", number(left, "unlearn.l1_sparse.alpha", 0.0)
        case "GA+KL" | "KL" if gamma <= 0:
            notes.append(
                f"unlearn.{method}.gamma: {gamma:g} leaves no forget term; gamma 1 is used"
            )
        case "GA+KL":
            yield "--gamma", f"{(1 - gamma) / gamma:g}"
        case "KL":
            yield "--gamma", f"{1 / gamma:g}"
        case "GA+FT" | "NPO+FT" | "CL+FT" | "CL+KL" | "CL" | "RL":
            yield "--gamma", f"{gamma:g}"
        case _:
            pass
    yield from FIXED_FLAGS.get(method, ())
    if method in REMARKS:
        notes.append(f"{method}: {REMARKS[method]}")


def drop_other_methods(method: str, left: Values, notes: list[str]) -> None:
    """Remove the weights of other methods, which have no effect."""
    for key in [k for k in left if re.fullmatch(r"unlearn\.[^.]+\.(gamma|alpha)", k)]:
        if not key.startswith(f"unlearn.{method}."):
            notes.append(f"{key}: of another method than {method}")
            del left[key]


def data(left: Values, notes: list[str]) -> Iterator[tuple[Any, ...]]:
    """Both data sets."""
    forget = str(left.pop("dataset.forget_dataset_name", "SafePku"))
    retain = str(left.pop("dataset.retain_dataset_name", "TruthfulQA"))
    for name in places(forget, FORGET, "dataset.forget_dataset_name", notes):
        yield "--forget", name
    if forget == "HP":
        yield "--forget-columns", "completion=response"
    for name in places(retain, RETAIN, "dataset.retain_dataset_name", notes):
        yield "--retain", name
    if retain == "WMDPALL":
        notes.append("dataset.retain_dataset_name: WMDPALL has two sets, biology's is used")
    if forget in LENGTHS:
        yield "--truncate", LENGTHS[forget]
    if int(number(left, "dataset.self_retain", 0)):
        notes.append("dataset.self_retain: not translated; write the two parts to files")
    ratio = left.get("dataset.forget_ratio", 200)
    if ratio not in (1, SIZES.get(forget)):
        whose = "" if "dataset.forget_ratio" in left else ", the original's default,"
        notes.append(
            f"dataset.forget_ratio: {ratio}{whose} is not translated; write the rows to a file"
        )


def places(
    name: str, known: Mapping[str, str | tuple[str, ...]], key: str, notes: list[str]
) -> Sequence[str]:
    """Names in this package of a dataset of the original."""
    if name.startswith("Tofu_"):
        return (f"tofu:{name.removeprefix('Tofu_')}",)
    if name not in known:
        notes.append(f"{key}: {name!r} is not translated; give a file or hub dataset")
        return ()
    translated = known[name]
    return (translated,) if isinstance(translated, str) else translated


def training(left: Values, notes: list[str]) -> Iterator[tuple[Any, ...]]:
    """Learning rate, steps and batches. The original always has 10 % warm-up and linear decay."""
    yield "--lr", f"{number(left, 'unlearn.lr', 1e-4):g}"
    yield "--weight-decay", f"{number(left, 'unlearn.weight_decay', 0):g}"
    size = int(number(left, "dataset.batch_size", 16))
    parts = int(number(left, "unlearn.gradient_accumulation_steps", 1))
    yield "--batch-size", size * parts
    yield "--micro-batch", size
    steps = step_count(left, size * parts, notes)
    yield "--schedule", "linear"
    if steps:
        yield "--steps", steps
        yield "--warmup", max(1, steps // 10)
    if int(number(left, "unlearn.sophia", 0)):
        yield "--optimizer", "sophia"
    if int(number(left, "unlearn.use_lora", 0)):
        yield from (("--lora-rank", 8), ("--lora-alpha", 32), ("--parameters", "(q|v)_proj"))
        notes.append("unlearn.use_lora: here without dropout")


def step_count(left: Values, batch: int, notes: list[str]) -> int | None:
    """Optimiser steps, computed from epochs if the size of the forget set is known."""
    steps = int(number(left, "unlearn.max_steps", -1))
    epochs = int(number(left, "unlearn.num_epochs", 1))
    ratio = number(left, "dataset.forget_ratio", 200)
    if steps > 0:
        return steps
    if ratio > 1:
        return max(1, int(epochs * ratio) // batch)
    notes.append("unlearn.num_epochs: steps are epochs times examples over the batch: --steps N")
    return None


def masking(left: Values, notes: list[str]) -> Iterator[tuple[Any, ...]]:
    """The mask; the original encodes its score and fraction in the path."""
    path = left.pop("unlearn.mask_path", None)
    if path in (None, "None", ""):
        return
    if number({**left}, "unlearn.use_lora", 0):
        notes.append("unlearn.mask_path: left out, since adapters (use_lora) have no mask here")
        return
    match = re.search(r"_([\d.]+)\.pt$", str(path))
    if match is None:
        notes.append(f"unlearn.mask_path: {path} names no fraction; ilu mask convert reads it")
        return
    folder = PurePosixPath(path).parent.name
    if folder not in SCORES:
        others = ", ".join(dict.fromkeys(SCORES.values()))
        notes.append(
            f"unlearn.mask_path: the folder {folder!r} names no score that is known here; wagle "
            f"is taken, others are {others}"
        )
    yield "--mask", f"{SCORES.get(folder, 'wagle')}:{match[1]}"
    notes.append(
        f"unlearn.mask_path: the mask is made anew; to use the file itself: ilu mask convert {path}"
        " --model MODEL --out mask.safetensors, then --mask mask.safetensors"
    )
