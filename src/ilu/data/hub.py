"""Datasets by name: a file, or a hub id looked up in a local mirror or on the Hugging Face hub."""

import os
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ilu.data.facts.rows import fact_rows
from ilu.data.facts.selection import is_facts, selections
from ilu.data.readers import ENDINGS, Row, iter_rows
from ilu.system.errors import first_line

MIRROR = "ILU_HUB"
"""Environment variable: a folder laid out as ORG/NAME/CONFIG/SPLIT.jsonl."""
ON_REQUEST = {
    "cais/wmdp-bio-forget-corpus": "https://huggingface.co/datasets/cais/wmdp-bio-forget-corpus",
    "llmunlearningsemeval2025organization/semeval25-unlearning-dataset-public": (
        "https://llmunlearningsemeval2025.github.io, or take data/forget.jsonl and "
        "data/retain.jsonl of https://github.com/amazon-science/lume-llm-unlearning"
    ),
}
"""Datasets that are given out on request, and the page that says how."""


class HubName(NamedTuple):
    """``ORG/NAME:CONFIG:SPLIT`` taken apart."""

    repository: str
    config: str | None
    split: str


class Rows(NamedTuple):
    """Rows that can be read again and again, and the files that they lie in, if any."""

    read: Callable[[], Iterator[Row]]
    files: tuple[Path, ...] = ()


def load_rows(name: str, revision: str | None = None, count: int | None = None) -> list[Row]:
    """All rows of what ``find_rows`` finds."""
    return list(find_rows(name, revision, count).read())


def find_rows(name: str, revision: str | None = None, count: int | None = None) -> Rows:
    """Rows of a data file or of a hub dataset ``ORG/NAME[:CONFIG[:SPLIT]]`` (split: train).

    With ``count`` only so many from the front, without downloading the rest. Facts of this package
    are rows as well.
    """
    if is_facts(name):
        selections(name)  # an unknown topic is an error here, and not where rows are read
        return Rows(lambda: islice(fact_rows(name), count))
    path = Path(name)
    if path.suffix in ENDINGS or path.exists():
        return of_file(path, count)
    hub = hub_name(name)
    mirror = os.environ.get(MIRROR)
    if mirror:
        return of_file(mirrored(Path(mirror), hub), count)
    return from_hub(hub, revision, count)


def of_file(path: Path, count: int | None) -> Rows:
    """Rows from the front of a file."""
    return Rows(lambda: islice(iter_rows(path), count), (path,))


def hub_name(name: str) -> HubName:
    """Take ``ORG/NAME:CONFIG:SPLIT`` apart."""
    word = r"[\w.-]+"
    found = re.fullmatch(rf"({word}/{word})(?::({word})?)?(?::({word}))?", name)
    if found is None or ".." in name:
        raise ValueError(
            f"{name!r} is neither a file ending in {', '.join(ENDINGS)} nor a hub dataset "
            "ORG/NAME[:CONFIG[:SPLIT]]"
        )
    return HubName(found[1], found[2] or None, found[3] or "train")


def mirrored(root: Path, hub: HubName) -> Path:
    """File of the local mirror; the only configuration is the default one."""
    folder = root / hub.repository
    configs = sorted(p.name for p in folder.glob("*") if p.is_dir())
    if not configs:
        raise ValueError(
            f"{hub.repository} is not in the mirror {root} ({MIRROR}){on_request(hub)}"
        )
    config = hub.config or (configs[0] if len(configs) == 1 else None)
    if config not in configs:
        raise ValueError(f"{hub.repository} needs a configuration, one of: {', '.join(configs)}")
    path = folder / config / f"{hub.split}.jsonl"
    if not path.is_file():
        splits = ", ".join(sorted(p.stem for p in path.parent.glob("*.jsonl")))
        raise ValueError(f"{hub.repository}:{config} has no split {hub.split!r}; it has: {splits}")
    return path


def from_hub(hub: HubName, revision: str | None, count: int | None = None) -> Rows:
    """Download with the ``datasets`` library; custom loading code is never run.

    The library keeps what it downloads as Arrow files and reads them row by row.
    """
    import datasets.config

    check_data_reachable(hub, revision, Path(datasets.config.HF_DATASETS_CACHE))
    streaming = count is not None
    try:
        found: Any = datasets.load_dataset(
            hub.repository, hub.config, split=hub.split, revision=revision, streaming=streaming
        )
        if not streaming:
            files = tuple(Path(file["filename"]) for file in found.cache_files)
            return Rows(lambda: map(dict, found), files)
        rows = [dict(row) for row in islice(found, count)]
        return Rows(lambda: iter(rows))
    except Exception as error:  # the library raises a different one for every cause
        raise ValueError(
            f"cannot load {hub.repository} from the hub ({first_line(error)}): check the name and "
            f"the network, or point {MIRROR} at a local mirror{on_request(hub)}"
        ) from error


def check_reachable(name: str, revision: str | None = None) -> None:
    """Raise ValueError at once if a model is not in the cache and the hub does not answer.

    The libraries would ask an address that refuses connections for most of a minute.
    """
    from huggingface_hub import hf_hub_url, try_to_load_from_cache

    config = "config.json"
    if isinstance(try_to_load_from_cache(name, config, revision=revision), str):
        return
    if silence := silent(hf_hub_url(name, config, revision=revision)):
        raise ValueError(
            f"cannot load model {name!r}: it is not in the cache and {silence.why}: name a folder, "
            f"point {MIRROR} at a local mirror, or try again with a network"
        ) from silence.error


def check_data_reachable(hub: HubName, revision: str | None, cache: Path) -> None:
    """The same for a dataset, which the library would take from its cache after half a minute.

    What has its name there is left to the library: how it lays out its cache is not ours to know.
    """
    from huggingface_hub import hf_hub_url

    name = hub.repository.rpartition("/")[2].casefold()
    if cache.is_dir() and any(name in path.name.casefold() for path in cache.iterdir()):
        return
    url = hf_hub_url(hub.repository, "README.md", repo_type="dataset", revision=revision)
    if silence := silent(url):
        raise ValueError(
            f"cannot load {hub.repository}: it is not in the cache and {silence.why}: point "
            f"{MIRROR} at a local mirror, or try again with a network{on_request(hub)}"
        ) from silence.error


class Silence(NamedTuple):
    """Why the hub cannot be asked, in words and as it was raised."""

    why: str
    error: Exception


def silent(url: str) -> Silence | None:
    """Ask the hub once; what it answers, also that there is no such file, is for who loads it."""
    from huggingface_hub import constants, get_hf_file_metadata
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        get_hf_file_metadata(url)
    except HfHubHTTPError:
        return None
    except OfflineModeIsEnabled as error:
        return Silence("HF_HUB_OFFLINE is set", error)
    except Exception as error:  # the library raises a different one for every cause
        return Silence(f"no answer from {constants.ENDPOINT}", error)
    return None


def commit_of(name: str, revision: str | None = None) -> str:
    """The commit of a model of the hub: of the one in the cache, or else of the hub's own.

    Raises ValueError where neither is to be had.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", revision=revision)
    if not isinstance(found, str):
        check_reachable(name, revision)
        try:
            found = hf_hub_download(name, "config.json", revision=revision)
        except Exception as error:  # the library raises a different one for every cause
            why = first_line(error)
            raise ValueError(f"cannot find model {name!r} on the hub: {why}") from error
    return Path(found).parent.name  # .../snapshots/COMMIT/config.json


def on_request(hub: HubName) -> str:
    """How to come by a dataset that is not public, to end an error with."""
    page = ON_REQUEST.get(hub.repository)
    return f". It is given out on request, see {page}; then name your own file" if page else ""
