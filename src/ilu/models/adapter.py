"""PEFT adapters given as a model: merged once into their base model, in a folder in the cache.

Transformers loads the folder of an adapter as its base model with the adapter attached, and then
saves the adapter alone. A merged folder is an ordinary model for everything that reads one.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ilu.system.atomic import json_hash, new_folder
from ilu.system.cache import CACHE, cache_folder, content_hash
from ilu.system.errors import first_line, out_of_memory
from ilu.system.locks import alone
from ilu.system.optional import need, quiet_models, quiet_peft

MERGING = 1
"""Version of ``merge_into``; to be raised when its output changes."""
CONFIG = "adapter_config.json"


class Adapter(NamedTuple):
    """The folder of an adapter, and the name and revision of its base model."""

    folder: Path
    base: str
    revision: str | None


def adapter_of(name: str) -> Adapter | None:
    """The adapter that a model's name means, if it is the folder of one."""
    file = Path(name) / CONFIG
    if not file.is_file():
        return None
    settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    base = settings.get("base_model_name_or_path")
    if not base:
        raise ValueError(f"{file} names no base model: set base_model_name_or_path there")
    return Adapter(file.parent, str(base), settings.get("revision"))


def merged(adapter: Adapter, base: str, commit: str | None) -> Path:
    """The folder of the base model with the adapter merged, made if it is not there yet.

    ``base`` is the folder or hub id of the base model, and ``commit`` its commit on the hub. Of
    several processes, one merges and the others wait for it.
    """
    from ilu.models.weight_files import weight_files  # imports torch, which names do not need

    files = [*adapter.folder.glob("adapter_*"), *adapter.folder.glob("token*")]
    contents = [*files, *(weight_files(Path(base)) if commit is None else [])]
    key = [MERGING, commit, sorted((file.name, content_hash(file)) for file in contents)]
    folder = cache_folder("models") / json_hash(key)
    if folder.is_dir():
        return folder
    need("peft", "lora", f"the adapter {adapter.folder}")
    try:
        with alone(folder, wait=True):
            if not folder.is_dir():
                with new_folder(folder) as half:
                    merge_into(half, adapter, base, commit)
    except OSError as error:
        raise ValueError(
            f"cannot keep the merged model in {folder} ({error.strerror or error}): free some "
            f"space there, or set {CACHE} to a folder on another disk"
        ) from error
    return folder


def merge_into(folder: Path, adapter: Adapter, base: str, commit: str | None) -> None:
    """Write the base model with the adapter merged in float32, and the tokenizer."""
    try:
        with quiet_models(), quiet_peft():
            model, tokenizer = merge(adapter, base, commit)
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        if out_of_memory(error):
            raise
        raise ValueError(
            f"cannot merge the adapter {adapter.folder} into {adapter.base}: {first_line(error)}"
        ) from error
    with quiet_models():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def merge(adapter: Adapter, base: str, commit: str | None) -> tuple[Any, Any]:
    """The merged model in float32, and the adapter's tokenizer or else that of the base model."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(
        base, revision=commit, dtype="float32", trust_remote_code=False
    )
    own = (adapter.folder / "tokenizer_config.json").is_file()
    tokenizer = AutoTokenizer.from_pretrained(
        adapter.folder if own else base, revision=None if own else commit, trust_remote_code=False
    )
    attached: Any = PeftModel.from_pretrained(model, str(adapter.folder))
    unload: Callable[[], Any] | None = getattr(attached.base_model, "merge_and_unload", None)
    if unload is None:
        kind = attached.peft_config["default"].peft_type.value
        raise ValueError(f"an adapter of the kind {kind} changes no weights of the model")
    return attached.merge_and_unload(safe_merge=True), tokenizer
