"""Settings that every recipe has, besides those of the training (``training.fit.Optim``)."""

from dataclasses import dataclass
from typing import Literal

Reading = Literal["logits", "parameters", "tensors", "elementwise", "gradient"]


@dataclass(frozen=True, kw_only=True)
class Common:
    """Model, data, adapters, mask and seed.

    Args:
        model: folder, hub id, GGUF file, smollm2, or lab: the small model of the package, which
            brings its own data.
        revision: branch, tag or commit of a model on the hub.
        forget: what to forget: JSONL, CSV or Parquet file, or hub dataset ORG/NAME:CONFIG:SPLIT;
            repeat the flag for several topics.
        retain: what to keep, of the same kinds.
        environment: what someone may fine-tune on later; repeat the flag for several.
        forget_columns: names of columns that differ, as wanted=present, like text=body.
        retain_columns: the same for the retain set.
        environment_columns: the same for the environments.
        truncate: cut longer examples to this many tokens.
        batch_size: forget and retain examples per step.
        environment_batch_size: examples per step of each environment.
        lora_rank: train low-rank adapters of the linear layers (needs peft) and merge them in the
            end; 0 trains the weights themselves.
        lora_alpha: scale of the adapters times their rank; the rank itself if left out.
        quantise_base: 4 rounds the linear layers to 4 bits while their adapters are trained (QLoRA;
            needs torchao); the update is merged into the weights from before.
        mask: only some weights may move: a file that ilu mask has made, or SCORE:FRACTION to make
            one when the run begins, like wagle:0.9.
        measured: examples of each set on which the loss is measured before and after.
        seed: of the order of the data.
    """

    model: str
    revision: str | None = None
    forget: tuple[str, ...] = ()
    retain: str | None = None
    environment: tuple[str, ...] = ()
    forget_columns: tuple[str, ...] = ()
    retain_columns: tuple[str, ...] = ()
    environment_columns: tuple[str, ...] = ()
    truncate: int | None = None
    batch_size: int = 4
    environment_batch_size: int = 48
    lora_rank: int = 0
    lora_alpha: float | None = None
    quantise_base: int = 0
    mask: str | None = None
    measured: int = 200
    seed: int = 0


@dataclass(frozen=True)
class Invariance:
    """ILU's settings: ``lambda`` and what w multiplies (arXiv 2506.01339).

    Lambda is not published: 0.1 with scale_free is ours, the middle of what was searched on small
    models and untested at 7B; the lab has what was chosen there.

    Args:
        strength: lambda, the weight of each environment's penalty.
        reading: what w multiplies; gradient stands for the whole gradient.
        directions: what w scales: the weights, or the gradient that would learn the forget data.
        layerwise: let the gradient of every weight tensor count alike, however long it is.
        strength_warmup: steps in which the strength grows from 0.
        scale_free: measure the strength in units of the forget term: at the first step the
            penalty is the strength times as large, however small either happens to be.
    """

    strength: float = 0.1
    reading: Reading = "gradient"
    directions: Literal["weights", "forget"] = "weights"
    layerwise: bool = False
    strength_warmup: int = 0
    scale_free: bool = True

    def __post_init__(self) -> None:
        if not self.strength >= 0:
            raise ValueError(f"strength {self.strength:g}: it must be at least 0")
        if self.strength_warmup < 0:
            raise ValueError(f"strength_warmup {self.strength_warmup}: it must be at least 0")
        if self.reading == "logits" and self.layerwise:
            raise ValueError("layerwise: the reading logits has no gradients of weights to weigh")
        if self.directions == "forget" and self.reading in ("logits", "gradient"):
            raise ValueError(
                f"directions forget: in the reading {self.reading} w scales no weights that a "
                "direction could stand for: choose parameters, tensors or elementwise"
            )


@dataclass(frozen=True, kw_only=True)
class AttackSettings:
    """The data of the user, and what all attacks of a run have in common.

    Args:
        task_columns: names of columns that differ in the task, as wanted=present.
        truncate: cut longer examples to this many tokens: those of the task, and of the suites
            likelihood, verbatim, membership and muse.
        forget: data that relearn takes its documents from; the lab's if left out.
        retain: the same for retained.
        unrelated: the same for unrelated.
        original: the model that interpolate goes back to.
        batch_size: examples per step of the attacker.
        lora_rank: of the adapters of lora:TASK.
        every: measure also after each so many steps, for a denser curve.
        only_end: measure at the end only, not at a quarter and at half.
        seed: of the attacker's order of data, and of noise.
    """

    task_columns: tuple[str, ...] = ()
    truncate: int | None = None
    forget: str | None = None
    retain: str | None = None
    unrelated: str | None = None
    original: str | None = None
    batch_size: int = 16
    lora_rank: int = 16
    every: int | None = None
    only_end: bool = False
    seed: int = 0
