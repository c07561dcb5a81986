"""Load models from disk, and identify their weights by hashes."""

import hashlib
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn

from ilu.data.hub import commit_of
from ilu.models.adapter import adapter_of
from ilu.models.fsdp import load_whole
from ilu.models.gguf import origin
from ilu.models.named import check_name, model_path, reachable_path
from ilu.models.vocabulary import check_ids
from ilu.models.weight_files import FileWeights, weight_files
from ilu.system.cache import content_hash
from ilu.system.distributed import full_tensor
from ilu.system.errors import first_line, one_line, out_of_memory
from ilu.system.optional import quiet_models
from ilu.types import LM, Weights


def load_model(
    name: str,
    *,
    revision: str | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    tokenizer: Any = None,
) -> LM:
    """Load a causal LM with its tokenizer, unless the caller has it already.

    Code in a model's folder is never run.
    """
    check_name(name, revision)
    place = usable(device)
    path = model_path(name)
    tokenizer = tokenizer or load_tokenizer(name, revision)
    model = pretrained(name, path, revision=revision, dtype=dtype)
    if adapter := adapter_of(name):
        warnings.warn(
            f"{name} is a PEFT adapter of {adapter.base}: it was merged into that model in "
            "float32. What is trained, measured and saved is the merged model",
            stacklevel=2,
        )
    check_ids(model, tokenizer)
    return LM(model.to(place).eval(), tokenizer)


def pretrained(
    name: str, path: str, *, revision: str | None = None, dtype: torch.dtype | Literal["auto"]
) -> Any:
    """The model in the folder or under the hub id ``path``, with all of its weights.

    ``name`` is what errors call it. ValueError for whatever keeps the libraries from loading it.
    """
    from transformers import AutoModelForCausalLM

    with loading(name), quiet_models():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path,
            revision=revision,
            trust_remote_code=False,
            dtype=dtype,
            output_loading_info=True,
        )
    model, info = loaded
    check_whole(name, info["missing_keys"])
    check_plain(name, model)
    return model


def load_tokenizer(name: str, revision: str | None = None) -> Any:
    """The tokenizer of a model."""
    from transformers import AutoTokenizer

    path = reachable_path(name, revision)
    with loading(name):
        return AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)


@contextmanager
def loading(name: str) -> Generator[None]:
    """Turn every error of a library that reads a model folder into one with the model's name."""
    try:
        yield
    except Exception as error:  # the libraries raise a different one for every cause
        if out_of_memory(error):
            raise
        raise unloadable(name, error) from error


def cause(error: Exception) -> str:
    """What a library says of a model folder that it cannot read, with the type of a rare error."""
    usual = isinstance(error, OSError | ValueError | ImportError | SafetensorError)
    unquoted = one_line(error).replace("`", "'")  # in backticks are settings of this package
    return first_line(error) if usual else f"{type(error).__name__}: {unquoted}"


UNQUANTISED = "give the model that was quantised instead, in float32, float16 or bfloat16"


def unloadable(name: str, error: Exception) -> ValueError:
    """The error for a model that cannot be loaded; a missing library is that of a quantisation."""
    why = cause(error)
    quantised = isinstance(error, ImportError) or "quanti" in why.lower()
    advice = f": {UNQUANTISED}" if quantised else ""
    return ValueError(f"cannot load model {name!r}: {why}{advice}")


def check_plain(name: str, model: Any) -> None:
    """Refuse a model whose weights are not plain numbers, and adapters that were not merged."""
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ValueError(
            f"model {name!r} is a PEFT adapter on the hub: download it with hf download, and give "
            "its folder"
        )
    packed = [n for n, p in model.named_parameters() if not p.is_floating_point()]
    if packed:
        raise ValueError(
            f"model {name!r} is quantised, so {len(packed)} of its weights cannot be trained, such "
            f"as {packed[0]}: {UNQUANTISED}"
        )


def check_whole(name: str, missing: Iterable[str]) -> None:
    """Refuse a model of which some weights would be random."""
    absent = sorted(missing)
    if absent:
        raise ValueError(
            f"model {name!r} lacks {len(absent)} of its weights, such as {absent[0]}: "
            "the folder is incomplete or of another architecture"
        )


def usable(device: str) -> torch.device:
    """The device of that name, if this machine has it."""
    here = f"this machine has: {', '.join(devices())}"
    try:
        torch.device(device)
    except RuntimeError:  # it lists every type of device that torch knows
        raise ValueError(f"there is no device {device!r}; {here}") from None
    try:
        return torch.zeros(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"cannot use device {device!r} ({first_line(error)}); {here}") from None


def devices() -> list[str]:
    """The devices of this machine by the names that ``device`` takes."""
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]


@dataclass(frozen=True)
class SecondModel:
    """A second model that a metric reads; a call returns its fingerprint.

    Cached scores then depend on the content of both models.
    """

    name: str

    def __call__(self) -> dict[str, str]:
        return fingerprint_files(self.name, all_files)


def fingerprint_model(name: str, revision: str | None = None) -> dict[str, str]:
    """Hash of each file of weights, where the model is a folder; else its commit on the hub.

    Of a model that was converted from a GGUF file, the hash of that file as well.
    """
    return fingerprint_files(name, weight_files, revision)


def fingerprint_files(
    name: str, files: Callable[[Path], Sequence[Path]], revision: str | None = None
) -> dict[str, str]:
    """The same of those files of the folder that ``files`` returns."""
    commit = pinned(name, revision)
    if commit is not None:
        return {"commit": commit}
    folder = Path(model_path(name))
    return {**origin(folder), **{path.name: content_hash(path) for path in files(folder)}}


def all_files(folder: Path) -> list[Path]:
    """Every file of a folder."""
    return sorted(path for path in folder.iterdir() if path.is_file())


def pinned(name: str, revision: str | None = None) -> str | None:
    """The revision that ``fingerprint_model`` describes; None for a folder."""
    check_name(name)
    path = model_path(name)
    return None if Path(path).is_dir() else commit_of(path, revision)


@torch.no_grad()
def weights_hash(model: nn.Module, rounded: torch.dtype = torch.float32) -> str:
    """SHA-256 of the names and values of all weights, whatever the precision that holds them.

    ``rounded`` is for comparing with a model that was loaded in less.
    """
    digest = hashlib.sha256()
    for name, p in model.named_parameters():
        digest.update(f"{name}:{tuple(p.shape)};".encode())
        digest.update(full_tensor(p.detach()).to(rounded).float().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def set_weights(model: nn.Module, folder: Path) -> None:
    """Copy the weights of a model folder into a model of the same architecture."""
    saved = pretrained(str(folder), str(folder), dtype=torch.float32)
    load_whole(model, saved.state_dict())


def read_weights(folder: Path) -> Weights:
    """All weights in the files of a model folder, under the names that they have there."""
    stored = FileWeights(folder)
    return {name: stored.rows(name, 0, shape[0] if shape else 1)
            for name, shape in stored.shapes().items()}  # fmt: skip
