"""Settings of every recipe, except those of the training (``training.fit.Optim``)."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Common:
    """Model, data, adapters, mask and seed.

    Args:
        model: folder, hub id, or lab: the small model of the package, with its own data.
        revision: branch, tag or commit of a model on the hub.
        forget: what to forget: JSONL, CSV or Parquet file, or hub dataset ORG/NAME:CONFIG:SPLIT;
            repeat the flag for several topics.
        retain: what to keep, of the same kinds.
        environment: data that others may fine-tune on later; repeat the flag for several.
        forget_columns: renamed columns, as standard=present, like text=body.
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
        measured: examples of each set on which the loss is measured before and after.
        seed: seed of the order of the data.
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
