"""Models of which every process reads the part that it keeps: no process ever holds all weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ilu.models.fsdp import shard
from ilu.models.load import StoredWeights, load_model, load_tokenizer, set_weights, usable
from ilu.models.named import check_name, model_path, reachable_path
from ilu.system.distributed import Ranks, first_row, local, without_values
from ilu.system.errors import first_line
from ilu.types import LM

Sources = Mapping[str, str]
"""Name of a weight in the model -> its name in the files."""


def load_sharded(
    name: str, ranks: Ranks, *, revision: str | None = None, device: str = "cpu"
) -> LM:
    """Load a causal LM of whose weights each of ``ranks`` holds its part, and no more at any time.

    Where files have the weights under other names or in other shapes than the model, as those of
    GPT-NeoX and of mixtures of experts, or quantised, every process first loads them whole.
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
    fill(model, StoredWeights(folder), sources)
    settings = folder / "generation_config.json"
    if settings.is_file():
        from transformers import GenerationConfig

        model.generation_config = GenerationConfig.from_pretrained(folder)
    return LM(model.eval(), load_tokenizer(name, revision))


def set_sharded_weights(model: nn.Module, folder: Path) -> None:
    """Copy the weights of a model folder into a sharded model, part by part where that works."""
    sources = sources_of(model, folder)
    if sources is None:
        set_weights(model, folder)
    else:
        fill(model, StoredWeights(folder), sources)


def skeleton(name: str, revision: str | None = None) -> Any:
    """A model of float32 weights without storage, from its configuration; buffers have theirs."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    check_name(name, revision)
    path = reachable_path(name, revision)
    try:
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
        with init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(
                config, trust_remote_code=False, dtype=torch.float32
            )
    except (OSError, ValueError) as error:
        why = first_line(error)
        raise ValueError(f"cannot read the configuration of {name!r}: {why}") from error
    model.tie_weights()  # every registration makes a parameter anew, so tied ones were separated
    return model


def folder_of(name: str, revision: str | None) -> Path:
    """The folder of a model's files, which a hub id has in the local cache."""
    path = model_path(name)
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "model*.safetensors"]
    return Path(snapshot_download(path, revision=revision, allow_patterns=wanted))


def sources_of(model: nn.Module, folder: Path) -> Sources | None:
    """Where each weight and buffer lies in the files; None if they are not there as they are.

    Weights that are one, such as tied embeddings, are looked for under all of their names.
    """
    config: Any = model.config
    if not any(folder.glob("*.safetensors")) or getattr(config, "quantization_config", None):
        return None
    shapes = StoredWeights(folder).shapes()
    names: dict[int, list[str]] = {}
    state = model.state_dict(keep_vars=True)
    for name, x in state.items():
        names.setdefault(id(x), []).append(name)
    found = {group[0]: [name for name in group if name in shapes] for group in names.values()}
    if not all(len(n) == 1 and shapes[n[0]] == tuple(state[k].shape) for k, n in found.items()):
        return None
    return {name: where[0] for name, where in found.items()}


def allocated(model: nn.Module, device: torch.device) -> dict[str, Tensor]:
    """The state of a model with room for the weights that have none; what is one stays one."""
    made: dict[int, Tensor] = {}
    state = model.state_dict(keep_vars=True)
    return {name: made.setdefault(id(x), room(x, device)) for name, x in state.items()}


def room(x: Tensor, device: torch.device) -> Tensor:
    """A weight like ``x`` with storage, or ``x`` if it has."""
    if not x.is_meta:
        return x
    return nn.Parameter(without_values(x, device), requires_grad=x.requires_grad)


@torch.no_grad()
def fill(model: nn.Module, stored: StoredWeights, sources: Sources) -> None:
    """Read the rows of every weight that lie in this process."""
    state = model.state_dict()
    for name, source in sources.items():
        here, start = local(state[name]), first_row(state[name])
        if here.numel():
            here.copy_(stored.rows(source, start, start + (len(here) if here.ndim else 0)))
