"""Save a model as a Hugging Face folder, and verify that the folder holds the same model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ilu.models.fsdp import whole_weights
from ilu.models.load import pretrained
from ilu.models.named import model_path
from ilu.models.save_dtype import SaveDtype
from ilu.models.weight_files import are_safetensors, settings, weight_dtype
from ilu.system.atomic import new_folder, write_json
from ilu.system.distributed import ALONE, Ranks, full_tensor
from ilu.system.optional import quiet_models
from ilu.types import LM

SAME_KERNELS, OTHER_KERNELS = 1e-4, 1e-2
"""Largest difference of logits as a share of the largest: on the processor, and of another device.

The weights are equal by then, so that only the order of sums and TF32 may differ.
"""


def save_model(
    lm: LM, folder: Path, ranks: Ranks = ALONE, dtype: torch.dtype | None = None
) -> None:
    """Write an ordinary Hugging Face folder in one move; of several processes, the first does.

    The weights are written in ``dtype``, which must hold them exactly (``round_weights``); None
    writes them as they are. ValueError, and no folder, if plain ``from_pretrained`` does not
    return the same weights and the same logits.
    """
    model: Any = lm.model
    weights = whole_weights(lm.model)  # every process takes part in gathering
    logits = sample_logits(lm.model)
    if not ranks.leads:
        ranks.any(True)
        return
    with new_folder(folder) as half, quiet_models():
        stored = weights or model.state_dict()
        model.save_pretrained(half, state_dict=in_dtype(lm.model, stored, dtype))
        if dtype is not None:
            write_dtype(half / "config.json", dtype)
        lm.tokenizer.save_pretrained(half)
        rough = SAME_KERNELS if logits.device.type == "cpu" else OTHER_KERNELS
        check_saved(half, stored, logits.cpu(), rough)
    ranks.any(True)  # from here on the folder is there for all


def own_dtype(name: str, revision: str | None = None) -> torch.dtype:
    """The precision of a model on disk: that of its configuration, else of its files."""
    from transformers import AutoConfig

    path = model_path(name)
    config: Any = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
    given = config.dtype or config.get_text_config().dtype
    if given is not None:
        return getattr(torch, given) if isinstance(given, str) else given
    folder = Path(path)
    return weight_dtype(folder) if folder.is_dir() and are_safetensors(folder) else torch.float32


def dtype_to_save(
    wanted: SaveDtype, model: nn.Module, name: str, revision: str | None = None
) -> torch.dtype:
    """The precision in which ``model``, which was loaded as ``name``, is saved.

    Its own is not wider than the precision in which it was trained.
    """
    if wanted != "own":
        return getattr(torch, wanted)
    own, trained = own_dtype(name, revision), next(model.parameters()).dtype
    return trained if trained.itemsize < own.itemsize else own


@torch.no_grad()
def round_weights(model: nn.Module, dtype: torch.dtype) -> float:
    """Round each weight to a number that ``dtype`` can hold, in place; the tensors keep theirs.

    So the weights that are measured are those on disk. Returns the size of the change
    relative to that of all weights; 0 if ``dtype`` represents them exactly.
    """
    change = total = 0.0
    for name, p in model.named_parameters():
        if not narrower(dtype, p) or name in kept_in_float32(model):
            continue
        rounded = p.detach().to(dtype).to(p.dtype)
        change += full_tensor((rounded - p.detach()).float().norm()).item() ** 2
        total += full_tensor(p.detach().float().norm()).item() ** 2
        if not full_tensor(rounded.isfinite().all()):
            raise ValueError(
                f"{name} has values beyond the range of {dtype}: save with `save_dtype` float32"
            )
        p.copy_(rounded)
    return (change / total) ** 0.5 if total else 0.0


def narrower(dtype: torch.dtype, x: Tensor) -> bool:
    """Whether ``dtype`` has fewer bits than the floating-point tensor ``x``."""
    return x.is_floating_point() and dtype.itemsize < x.dtype.itemsize


def kept_in_float32(model: Any) -> set[str]:
    """Weights that Transformers keeps in float32 when it loads a model in less."""
    strict = getattr(model, "_keep_in_fp32_modules_strict", None) or ()
    parts = {*(getattr(model, "_keep_in_fp32_modules", None) or ()), *strict}
    return {n for n, _ in model.named_parameters() if parts & set(n.split("."))}


def in_dtype(
    model: nn.Module, weights: Mapping[str, Tensor], dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """The weights in ``dtype``, and buffers as they are; tied weights stay one tensor."""
    if dtype is None:
        return dict(weights)
    trained = {n for n, _ in model.named_parameters(remove_duplicate=False)}
    trained -= kept_in_float32(model)
    made: dict[tuple[int, torch.Size], Tensor] = {}
    return {
        n: made.setdefault((x.data_ptr(), x.shape), x.to(dtype))
        if n in trained and x.is_floating_point()
        else x
        for n, x in weights.items()
    }


def write_dtype(config: Path, dtype: torch.dtype) -> None:
    """Let a configuration name the precision in which the weights were written."""
    write_json(config, {**settings(config.parent), "dtype": str(dtype).removeprefix("torch.")})


def check_saved(
    folder: Path, weights: Mapping[str, Tensor], logits: Float[Tensor, "B T V"], rough: float
) -> None:
    """ValueError unless plain ``from_pretrained`` returns these weights and these logits.

    The weights are compared exactly, and the logits on one batch: other logits from the same
    weights mean that the configuration on disk describes another model.
    """
    again = pretrained(str(folder), str(folder), dtype=torch.float32).eval()
    found = again.state_dict()
    other = [n for n, x in weights.items() if n not in found or not same_values(found[n], x)]
    if other:
        raise ValueError(
            f"the saved model is not the one in memory: {len(other)} of {len(weights)} weights "
            f"differ, first {other[0]}. Nothing was saved"
        )
    read, wanted = sample_logits(again).nan_to_num(), logits.nan_to_num()
    worst = (read - wanted).abs().max().item() / max(wanted.abs().max().item(), 1e-30)
    if worst > rough:
        raise ValueError(
            f"the saved model is not the one in memory: with the same weights its logits differ by "
            f"{worst:.2g} of the largest, so its configuration is another. Nothing was saved"
        )


def same_values(found: Tensor, wanted: Tensor) -> bool:
    """Whether two tensors hold the same numbers, whatever their precision and device."""
    if found.shape != wanted.shape:
        return False
    pair = found.float(), wanted.cpu().float()
    return torch.allclose(*pair, rtol=0, atol=0, equal_nan=True)


@torch.no_grad()
def sample_logits(model: nn.Module) -> Float[Tensor, "B T V"]:
    """Logits of a batch of two texts, in float32."""
    whole_model: Any = model
    count = whole_model.get_input_embeddings().num_embeddings
    device = next(model.parameters()).device
    ids = (torch.arange(24, device=device).reshape(2, 12) * 7 + 3) % count
    out = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    return full_tensor(out.logits).float()
