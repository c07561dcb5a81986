"""Settings that every recipe has, besides those of the training (``training.fit.Optim``)."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Common:
    """Model, data, adapters, mask and seed.

    Args:
        model: folder, hub id, GGUF file, smollm2, or lab: the small model of the package, which
            brings its own data.
        revision: branch, tag or commit of a model on the hub.
        forget: what to forget: JSONL, CSV or Parquet file, hub dataset ORG/NAME:CONFIG:SPLIT, or
            facts of the package, such as facts:elements; repeat the flag for several topics.
        retain: what to keep, of the same kinds; facts:rest is all facts but those to forget.
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
