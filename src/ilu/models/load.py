"""Models on disk: loading, saving, and reading their weights back."""

import hashlib
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from ilu.data.hub import commit_of
from ilu.models.fsdp import load_whole, whole_weights
from ilu.models.gguf import origin
from ilu.models.named import check_name, model_path, reachable_path
from ilu.models.vocabulary import check_ids
from ilu.system.atomic import file_hash, new_folder
from ilu.system.distributed import ALONE, Ranks, whole
from ilu.system.errors import first_line, one_line, out_of_memory
from ilu.system.optional import quiet_models
from ilu.types import LM, Weights


def load_model(
    name: str,
    *,
    revision: str | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> LM:
    """Load a causal LM with its tokenizer; code that comes with a model is never run."""
    from transformers import AutoModelForCausalLM

    check_name(name, revision)
    place = usable(device)
    path = model_path(name)
    tokenizer = load_tokenizer(name, revision)
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
    check_ids(model, tokenizer)
    return LM(model.to(place).eval(), tokenizer)


def load_tokenizer(name: str, revision: str | None = None) -> Any:
    """The tokenizer that comes with a model."""
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


def unloadable(name: str, error: Exception) -> ValueError:
    """What a user is told of a model that cannot be loaded."""
    usual = isinstance(error, OSError | ValueError | SafetensorError)
    why = first_line(error) if usual else f"{type(error).__name__}: {one_line(error)}"
    return ValueError(f"cannot load model {name!r}: {why}")


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
    try:
        return torch.zeros(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        why = first_line(error)
        raise ValueError(
            f"cannot use device {device!r} ({why}); this machine has: {', '.join(devices())}"
        ) from None


def devices() -> list[str]:
    """The devices of this machine by the names that ``device`` takes."""
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]


def save_model(lm: LM, folder: Path, ranks: Ranks = ALONE) -> None:
    """Write an ordinary Hugging Face folder in one move; of several processes, the first does."""
    model: Any = lm.model
    weights = whole_weights(lm.model)  # a part is asked of every process
    if not ranks.leads:
        ranks.any(True)
        return
    with new_folder(folder) as half, quiet_models():
        model.save_pretrained(half, state_dict=weights)
        lm.tokenizer.save_pretrained(half)
    ranks.any(True)  # from here on the folder is there for all


def read_weights(folder: Path) -> Weights:
    """All weights of a model folder by name."""
    found: dict[str, Tensor] = {}
    for shard in shards_of(folder):
        found |= load_file(shard)
    return found


@dataclass(frozen=True)
class Beside:
    """A model that a metric asks beside the one that it measures; called, its fingerprint.

    So scores are kept under the content of both.
    """

    name: str

    def __call__(self) -> dict[str, str]:
        return fingerprint_model(self.name, files="*")


@dataclass(frozen=True)
class StoredWeights:
    """The weights of a model folder, read from its shards in pieces."""

    folder: Path

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each weight; no weight is read."""
        return {name: shape for name, (_, shape) in weight_index(self.folder).items()}

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Some rows of a weight."""
        shard, shape = weight_index(self.folder)[name]
        with safe_open(shard, framework="pt") as weights:
            return weights.get_slice(name)[start:stop] if shape else weights.get_tensor(name)


@lru_cache(maxsize=8)
def weight_index(folder: Path) -> Mapping[str, tuple[Path, tuple[int, ...]]]:
    """Weight -> its shard and its shape."""
    found: dict[str, tuple[Path, tuple[int, ...]]] = {}
    for shard in shards_of(folder):
        with safe_open(shard, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118, not a dict
                found[name] = shard, tuple(weights.get_slice(name).get_shape())
    return found


def shards_of(folder: Path) -> list[Path]:
    """The files of weights of a model folder."""
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        raise ValueError(f"{folder} holds no safetensors weights")
    return shards


def fingerprint_model(
    name: str, revision: str | None = None, *, files: str = "*.safetensors"
) -> dict[str, str]:
    """Hash of each file of weights, where the model is a folder; else its commit on the hub.

    Of a model that was converted from a GGUF file, the hash of that file as well.
    """
    commit = pinned(name, revision)
    if commit is not None:
        return {"commit": commit}
    folder = Path(model_path(name))
    found = sorted(path for path in folder.glob(files) if path.is_file())
    return {**origin(folder), **{path.name: file_hash(path) for path in found}}


def pinned(name: str, revision: str | None = None) -> str | None:
    """The revision to load for what ``fingerprint_model`` tells of; of a folder there is none."""
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
        digest.update(whole(p.detach()).to(rounded).float().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def set_weights(model: nn.Module, folder: Path) -> None:
    """Copy the weights of a model folder into a model of the same architecture.

    Through ``from_pretrained``, because some architectures have other names on disk.
    """
    from transformers import AutoModelForCausalLM

    with quiet_models():
        saved = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    load_whole(model, saved.state_dict())
