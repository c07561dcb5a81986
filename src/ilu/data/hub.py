"""Datasets by name: a file, or a hub id in a local mirror or on the Hugging Face hub."""

import os
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ilu.data.facts.rows import fact_rows
from ilu.data.facts.selection import is_facts, selections
from ilu.data.readers import FORMATS, Row, is_data_file, iter_rows
from ilu.system.errors import first_line

CONFIG = "config.json"
"""The file of a model's configuration."""
MIRROR = "ILU_HUB"
"""Environment variable: a folder laid out as ORG/NAME/CONFIG/SPLIT.jsonl."""
ON_REQUEST = {
    "cais/wmdp-bio-forget-corpus": "https://huggingface.co/datasets/cais/wmdp-bio-forget-corpus",
    "llmunlearningsemeval2025organization/semeval25-unlearning-dataset-public": (
        "https://llmunlearningsemeval2025.github.io, or take data/forget.jsonl and "
        "data/retain.jsonl of https://github.com/amazon-science/lume-llm-unlearning"
    ),
}
"""Gated datasets, and the page with their access conditions."""


class HubName(NamedTuple):
    """The parts of ``ORG/NAME:CONFIG:SPLIT``."""

    repository: str
    config: str | None
    split: str


class Rows(NamedTuple):
    """Rows that can be read repeatedly, and their files, if any."""

    read: Callable[[], Iterator[Row]]
    files: tuple[Path, ...] = ()


def load_rows(name: str, revision: str | None = None, count: int | None = None) -> list[Row]:
    """All rows of a data file or a hub dataset (see ``find_rows``)."""
    return list(find_rows(name, revision, count).read())


def find_rows(name: str, revision: str | None = None, count: int | None = None) -> Rows:
    """Rows of a data file or of a hub dataset ``ORG/NAME[:CONFIG[:SPLIT]]`` (split: train).

    With ``count`` only the first rows, without downloading the rest. Facts of this package are
    rows as well.
    """
    return local_rows(name, count) or from_hub(hub_name(name), revision, count)


def local_rows(name: str, count: int | None = None) -> Rows | None:
    """The same of what is on this machine: a file, the mirror, facts. None for the hub's."""
    if is_facts(name):
        selections(name)  # an unknown topic is an error here, and not where rows are read
        return Rows(lambda: islice(fact_rows(name), count))
    path = Path(name)
    if is_data_file(path) or path.exists():
        return of_file(path, count)
    hub = hub_name(name)
    mirror = os.environ.get(MIRROR)
    if mirror:
        return of_file(mirrored(Path(mirror), hub), count)
    return None


def of_file(path: Path, count: int | None) -> Rows:
    """The first ``count`` rows of a file."""
    return Rows(lambda: islice(iter_rows(path), count), (path,))


def hub_name(name: str) -> HubName:
    """Parse ``ORG/NAME:CONFIG:SPLIT``."""
    word = r"[\w.-]+"
    found = re.fullmatch(rf"({word}/{word})(?::({word})?)?(?::({word}))?", name)
    if found is None or ".." in name:
        raise ValueError(
            f"{name!r} is neither a file ending in {', '.join(FORMATS)} nor a hub dataset "
            "ORG/NAME[:CONFIG[:SPLIT]]"
        )
    return HubName(found[1], found[2] or None, found[3] or "train")


def mirrored(root: Path, hub: HubName) -> Path:
    """The file in the local mirror. A single configuration is the default."""
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
    """Download with the ``datasets`` library. Custom loading code never runs.

    The library stores downloads as Arrow files and reads them row by row.
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


def is_cached(name: str, revision: str | None = None) -> bool:
    """Whether the configuration of a hub model is in the local cache; sends no request."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, CONFIG, revision=revision)
    except HFValidationError:  # no hub id
        return False
    return isinstance(found, str)


def check_reachable(name: str, revision: str | None = None) -> None:
    """Raise ValueError immediately if a model is not cached and the hub does not answer.

    The libraries would retry for most of a minute.
    """
    from huggingface_hub import hf_hub_url

    if is_cached(name, revision):
        return
    if silence := silent(hf_hub_url(name, CONFIG, revision=revision)):
        raise ValueError(
            f"cannot load model {name!r}: it is not in the cache and {silence.why}: name a folder, "
            f"point {MIRROR} at a local mirror, or try again with a network"
        ) from silence.error


def check_data_reachable(hub: HubName, revision: str | None, cache: Path) -> None:
    """The same for a dataset. A cached dataset is left to the library.

    Any entry of the cache whose name contains that of the dataset counts, since the layout of the
    cache is private to the library.
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
    """Why the hub does not answer: a message and the exception."""

    why: str
    error: Exception


def silent(url: str) -> Silence | None:
    """Send one request to the hub; None if it answers, also with an HTTP error."""
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
    """The commit of a hub model: that of the cached version, or else the current one.

    ValueError if neither is available.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    config = try_to_load_from_cache(name, CONFIG, revision=revision)
    if not isinstance(config, str):
        check_reachable(name, revision)
        try:
            config = hf_hub_download(name, CONFIG, revision=revision)
        except Exception as error:  # the library raises a different one for every cause
            why = first_line(error)
            raise ValueError(f"cannot find model {name!r} on the hub: {why}") from error
    return Path(config).parent.name  # .../snapshots/COMMIT/config.json


def on_request(hub: HubName) -> str:
    """The end of an error message that explains the access to a gated dataset."""
    page = ON_REQUEST.get(hub.repository)
    return f". It is given out on request, see {page}; then name your own file" if page else ""
