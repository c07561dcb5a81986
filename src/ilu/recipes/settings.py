"""Settings that every recipe has."""

from dataclasses import dataclass
from typing import Literal

from ilu.training.optim.by_name import Kind


@dataclass(frozen=True, kw_only=True)
class Common:
    """Settings that every recipe has.

    Args:
        model: folder, hub id, or lab: the small model of the package, which brings its own data.
        revision: branch, tag or commit of a model on the hub.
        forget: what to forget: JSONL, CSV or Parquet file, or hub dataset ORG/NAME:CONFIG:SPLIT;
            repeat the flag for several topics.
        retain: what to keep, of the same kinds.
        environment: what someone may fine-tune on later; repeat the flag for several.
        forget_columns: names of columns that differ, as wanted=present, like text=body.
        retain_columns: the same for the retain set.
        environment_columns: the same for the environments.
        truncate: cut longer examples to this many tokens.
        steps: optimiser steps.
        lr: peak learning rate.
        batch_size: forget and retain examples per step.
        environment_batch_size: examples per step of each environment.
        micro_batch: examples per forward pass; lower it to save memory, results stay the same.
        recompute: compute the inside of each block again for its gradient: less memory, a third
            more time, the same result (gradient checkpointing).
        pack: read the texts of a batch one after another instead of padded to the longest: saves
            what padding costs (of TOFU, at batch size 8, three tenths), the same result.
        fused_backward: move each weight in the last backward pass of a step as soon as its gradient
            is complete, and let the gradient go; needs --clip None. Saves a gradient of the whole
            model where the objective has one pass (terms on one data set), and on a GPU what AdamW
            computes with in any case.
        offload_reference: keep the original weights in host memory, for losses that compare with
            them (NPO, KL, RMU), and bring a block at a time: the same result. Losses that read only
            log-probabilities, like NPO and DPO, do so once for each text, KL and RMU at every step.
        warmup: steps of linear warm-up.
        schedule: learning rate after the warm-up.
        weight_decay: AdamW's, on the weights that may move.
        clip: largest gradient norm; None does not clip.
        precision: of the forward pass; the weights are float32 in any case.
        optimizer: adamw; sgd has momentum; sophia and soul use curvature; adamw8bit and adamw-bf16
            save memory (both need torchao), and adamw-bf16 makes the model bfloat16.
        average_from: average the weights over the steps from this one to the last.
        average_every: how many steps lie between the weights that are averaged.
        lora_rank: train low-rank adapters of the linear layers (needs peft) and merge them in the
            end; 0 trains the weights themselves.
        lora_alpha: scale of the adapters times their rank; the rank itself if left out.
        quantise_base: 4 rounds the linear layers to 4 bits while their adapters are trained (QLoRA;
            needs torchao); the update is merged into the weights from before.
        mask: only some weights may move: a file that ilu mask has made, or SCORE:FRACTION to make
            one when the run begins, like wagle:0.9.
        parameters: regular expression: train the weights whose name matches, instead of the
            recipe's own choice.
        reach: regular expression: weights that robust training may perturb although they are not
            trained, like what RMU leaves alone; "." is all of them.
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
    steps: int
    lr: float
    batch_size: int = 4
    environment_batch_size: int = 48
    micro_batch: int | None = None
    recompute: bool = False
    pack: bool = False
    fused_backward: bool = False
    offload_reference: bool = False
    warmup: int = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    weight_decay: float = 0.0
    clip: float | None = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"
    optimizer: Kind = "adamw"
    average_from: int | None = None
    average_every: int = 5
    lora_rank: int = 0
    lora_alpha: float | None = None
    quantise_base: int = 0
    mask: str | None = None
    parameters: str | None = None
    reach: str | None = None
    measured: int = 200
    seed: int = 0
