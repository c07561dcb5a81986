"""Sharded loading: each process reads its shard of the weights, and never all of them."""

from pathlib import Path

import torch
from torch import Tensor, nn

from ilu.models.fsdp import shard
from ilu.models.load import load_model, load_tokenizer, set_weights, usable
from ilu.models.named import check_name, model_path
from ilu.models.stored import Sources, skeleton, sources_of
from ilu.models.weight_files import FileWeights
from ilu.system.distributed import Ranks, first_row, local, without_values
from ilu.types import LM


def load_sharded(
    name: str, ranks: Ranks, *, revision: str | None = None, device: str = "cpu"
) -> LM:
    """Load a causal LM; each of ``ranks`` holds its shard of the weights, and no more at any time.

    Where the loader changes what is in the files, as for mixtures of experts and quantised models,
    every process first loads all weights.
    """
    check_name(name, revision)
    place = usable(device)
    model, folder = skeleton(name, revision), folder_of(name, revision)
    sources = sources_of(model, folder)
    if sources is None:
        lm = load_model(name, revision=revision, device=device)
        shard(lm.model, ranks)
        return lm
    shard(model, ranks, place)
    model.load_state_dict(allocated(model, place), assign=True)
    fill(model, FileWeights(folder), sources)
    settings = folder / "generation_config.json"
    if settings.is_file():
        from transformers import GenerationConfig

        model.generation_config = GenerationConfig.from_pretrained(folder)
    return LM(model.eval(), load_tokenizer(name, revision))


def set_sharded_weights(model: nn.Module, folder: Path) -> None:
    """Copy the weights of a model folder into a sharded model, shard by shard where possible."""
    sources = sources_of(model, folder)
    if sources is None:
        set_weights(model, folder)
    else:
        fill(model, FileWeights(folder), sources)


def folder_of(name: str, revision: str | None) -> Path:
    """The folder of a model's files; of a hub id, in the local cache."""
    path = model_path(name)
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "model*.safetensors"]
    return Path(snapshot_download(path, revision=revision, allow_patterns=wanted))


def allocated(model: nn.Module, device: torch.device) -> dict[str, Tensor]:
    """The state of a model with storage for the weights that have none; ties are kept."""
    made: dict[int, Tensor] = {}
    state = model.state_dict(keep_vars=True)
    return {name: made.setdefault(id(x), room(x, device)) for name, x in state.items()}


def room(x: Tensor, device: torch.device) -> Tensor:
    """A weight like ``x`` with storage, or ``x`` itself if it has storage."""
    if not x.is_meta:
        return x
    return nn.Parameter(without_values(x, device), requires_grad=x.requires_grad)


@torch.no_grad()
def fill(model: nn.Module, stored: FileWeights, sources: Sources) -> None:
    """Read the rows of every weight that this process holds."""
    state = model.state_dict()
    for name, source in sources.items():
        here, start = local(state[name]), first_row(state[name])
        if here.numel():
            here.copy_(stored.rows(source, start, start + (len(here) if here.ndim else 0)))
