"""Settings of every recipe, except those of the training (``training.fit.Optim``)."""

from dataclasses import dataclass
from typing import Literal

from ilu.models.save_dtype import SaveDtype
from ilu.system.checks import check_at_least_one
from ilu.training.optim.settings import Keep

Reading = Literal["logits", "parameters", "tensors", "elementwise", "gradient"]


@dataclass(frozen=True, kw_only=True)
class Common:
    """Model, data, adapters, mask and seed.

    Args:
        model: folder, hub id, GGUF file, smollm2, or lab: the small model of the package, which
            has its own data.
        revision: branch, tag or commit of a model on the hub.
        forget: what to forget: JSONL, CSV or Parquet file, hub dataset ORG/NAME:CONFIG:SPLIT, or
            facts of the package, such as facts:elements; repeat the flag for several topics.
        retain: what to keep, of the same kinds; facts:rest is all facts but those to forget.
        environment: what someone may fine-tune on later: data of these kinds, or a task, such as
            gsm8k or ag_news; repeat the flag for several.
        forget_columns: names of columns that differ, as wanted=present, like text=body.
        retain_columns: the same for the retain set.
        environment_columns: the same for the environments.
        truncate: cut longer examples to this many tokens.
        batch_size: forget and retain examples per step.
        environment_batch_size: examples per step of each environment.
        lora_rank: train low-rank adapters of the linear layers (needs peft) and merge them in the
            end; 0 trains the weights themselves.
        lora_alpha: scale of the adapters times their rank; by default equal to the rank.
        quantise_base: 4 quantises the linear layers to 4 bits while their adapters are trained
            (QLoRA; needs torchao); the update is merged into the unquantised weights.
        mask: weights that may move: a file made by ilu mask, or SCORE:FRACTION to make one when
            the run begins, like wagle:0.9.
        held_out: share of a retain set of at least 100 examples that is not trained on; the loss on
            it is measured as well as that on the trained ones. None in published recipes.
        passes: passes over the forget examples that the training makes at least, by more steps if
            need be; it does nothing where `steps` is given.
        eval_every: measure every this many steps on validation data, which are no test questions:
            facts in the wordings of training, other data by the loss.
        keep: the weights to keep: last; best, those of the measured step that forgets most among
            those that keep 90 % of the retained validation data; or a number, those of the step
            whose forgotten share is nearest to it. By default measures every tenth of `steps`.
        save_dtype: precision of the saved model: own, that of the model that was loaded; or
            float32, bfloat16, float16. The weights are rounded to it before they are measured.
        limit: examples of each set on which the loss is measured before and after.
        seed: seed of the order of the data, and of the noise of -undo.
        published: keep to the published defaults; without it, those that were measured on real
            models replace them, and what depends on the model is chosen from it.
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
    held_out: float = 0.1
    passes: float | None = None
    eval_every: int | None = None
    keep: Keep = "last"
    save_dtype: SaveDtype = "own"
    limit: int = 200
    seed: int = 0
    published: bool = False

    def __post_init__(self) -> None:
        check_at_least_one("batch_size", self.batch_size)
        check_at_least_one("environment_batch_size", self.environment_batch_size)
        check_at_least_one("truncate", self.truncate)
        check_at_least_one("eval_every", self.eval_every)
        if not 0 <= self.held_out < 1:
            raise ValueError(f"`held_out` {self.held_out:g}: it must be at least 0 and below 1")
        if self.passes is not None and not self.passes > 0:
            raise ValueError(f"`passes` {self.passes:g}: it must be above 0, or left out")


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """The data of a stage that distils the unlearned model.

    Args:
        distil: general text to distil on, of the same kinds as `forget`, and none of what is to be
            forgotten; by default the retain data, and on the lab its pretraining corpus without the
            agents.
        distil_columns: names of columns that differ, as wanted=present, like text=body.
        distil_batch_size: examples per step of the distillation.
    """

    distil: str | None = None
    distil_columns: tuple[str, ...] = ()
    distil_batch_size: int = 16

    def __post_init__(self) -> None:
        check_at_least_one("distil_batch_size", self.distil_batch_size)


@dataclass(frozen=True)
class Invariance:
    """ILU's settings: ``lambda`` and what w multiplies (arXiv 2506.01339).

    Lambda is not published. The default 0.1 with scale_free is ours: the middle of the range that
    we searched on small models, untested at 7B. The lab's values were chosen on the lab.

    Args:
        strength: lambda, the weight of each environment's penalty.
        reading: what w multiplies; gradient penalises the norm of the full gradient.
        directions: what w scales: the weights, or the gradient of relearning the forget data.
        layerwise: give the gradients of all weight tensors comparable weight.
        strength_warmup: steps over which the strength grows from 0.
        scale_free: measure the strength in units of the forget term: at the first step the
            weighted penalty is the strength times the forget term, at any scale of both.
    """

    strength: float = 0.1
    reading: Reading = "gradient"
    directions: Literal["weights", "forget"] = "weights"
    layerwise: bool = False
    strength_warmup: int = 0
    scale_free: bool = True

    def __post_init__(self) -> None:
        if not self.strength >= 0:
            raise ValueError(f"`strength` {self.strength:g}: it must be at least 0")
        if self.strength_warmup < 0:
            raise ValueError(f"`strength_warmup` {self.strength_warmup}: it must be at least 0")
        if self.reading == "logits" and self.layerwise:
            raise ValueError("`layerwise`: the `reading` logits has no gradients of weights")
        if self.directions == "forget" and self.reading in ("logits", "gradient"):
            raise ValueError(
                f"`directions` forget: in the reading {self.reading} w scales no weights that a "
                "direction could stand for: choose parameters, tensors or elementwise"
            )


@dataclass(frozen=True, kw_only=True)
class AttackSettings:
    """The user's data, and the settings that all attacks of a run share.

    Args:
        attack_columns: renamed columns of the data that attacks train on, as standard=present.
        truncate: cut longer examples to this many tokens: those of the task, and of the suites
            likelihood, verbatim, membership and muse.
        forget: data with the documents of relearn, rtt and ablate; by default the lab's. rtt takes
            whole topics of facts, such as facts:elements, and rtt:years and rtt:random_birthdays.
        retain: the same for retained and ablate.
        unrelated: the same for unrelated.
        original: the model before unlearning, for interpolate and merge.
        batch_size: examples per step of the attacker.
        lora_rank: rank of the adapters of lora:TASK.
        eval_every: also measure every this many steps, for a denser curve.
        only_end: measure only at the end, not at a quarter and at half.
        seed: seed of the order of the data, and of noise.
    """

    attack_columns: tuple[str, ...] = ()
    truncate: int | None = None
    forget: str | None = None
    retain: str | None = None
    unrelated: str | None = None
    original: str | None = None
    batch_size: int = 16
    lora_rank: int = 16
    eval_every: int | None = None
    only_end: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least_one("batch_size", self.batch_size)
        check_at_least_one("truncate", self.truncate)
        check_at_least_one("eval_every", self.eval_every)
