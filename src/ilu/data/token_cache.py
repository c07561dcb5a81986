"""Cache of tokenized text that is too large for memory: an Arrow file, read on demand.

The file is read block by block and not memory-mapped: mapped pages count as memory of the process,
and truncating a mapped file kills the process.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, lru_cache
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ilu.data.lazy import view
from ilu.data.readers import COMPRESSED, ending
from ilu.system.atomic import file_hash, json_hash, new_folder, write_json
from ilu.system.cache import CACHE, cache_folder, content_hash
from ilu.system.locks import alone
from ilu.types import Example

IN_MEMORY = 16 << 20
"""Size of data files in bytes up to which examples stay in memory, where they need ten times
more."""
PACKED = 8
"""Times that a compressed file counts, as text compresses to a quarter or less."""
BLOCK = 32
"""Examples that are read at once: one alone costs hardly less."""
FILE, RECORD = "examples.arrow", "made.json"
TRANSIENT = {
    "tokenizer.json": ("padding", "truncation"),
    "tokenizer_config.json": ("is_local", "local_files_only"),
}
"""Saved settings of a tokenizer's last call or of its loading, which do not affect tokenization."""


class Encoded(NamedTuple):
    """An example, or None for a row without a token to predict after truncation.

    ``spans`` is whether one token has characters of prompt and completion, ``aliases`` whether only
    the first of several answers was used.
    """

    example: Example | None
    spans: bool = False
    aliases: bool = False


class Cached(NamedTuple):
    """Examples, and the numbers of rows that were dropped, that have a token of both prompt and
    completion, and that have several answers.
    """

    examples: Sequence[Example]
    dropped: int
    spanning: int
    aliases: int


def fits_memory(files: Sequence[Path]) -> bool:
    """Whether the examples of these files stay in memory."""
    sizes = (
        file.stat().st_size * (PACKED if file.suffix in COMPRESSED else 1)
        for file in files
        if file.is_file()
    )
    return sum(sizes) <= IN_MEMORY


def in_memory(encoded: Iterable[Encoded]) -> Cached:
    """The examples as a list."""
    every = list(encoded)
    kept = [each.example for each in every if each.example is not None]
    dropped = len(every) - len(kept)
    return Cached(kept, dropped, sum(e.spans for e in every), sum(e.aliases for e in every))


def stored(
    make: Callable[[], Iterator[Encoded]], files: Sequence[Path], tokenizer: Any, how: Any
) -> Cached:
    """The examples as a view of a file, which is written if it does not exist yet.

    Its name is a hash of everything that determines its content: the data, the tokenizer, the
    settings ``how``, and the code. If several processes need the file, one writes it and the others
    wait.
    """
    data = contents(files)
    folder = cache_folder("examples") / json_hash(
        [data, tokenizer_hash(tokenizer), how, code_hash()]
    )
    if not folder.is_dir():
        try:
            with alone(folder, wait=True):
                if not folder.is_dir():
                    with new_folder(folder) as half:
                        write(make(), half)
                        if contents(files) != data:
                            raise ValueError(f"{files[0]} was changed while it was read: try again")
        except OSError as error:
            if error.filename in map(str, files):
                raise
            raise ValueError(
                f"cannot keep tokenized text in {folder} ({error.strerror or error}): free some "
                f"space there, or set {CACHE} to a folder on another disk"
            ) from error
    return opened(folder)


def contents(files: Sequence[Path]) -> list[tuple[str, str]]:
    """Ending and hash of each file."""
    return [(ending(file), content_hash(file)) for file in files]


def tokenizer_hash(tokenizer: Any) -> str:
    """Hash of all files that the tokenizer saves, and of the versions of its libraries."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            tokenizer.save_pretrained(folder)
        except Exception as error:  # the library has no other for a full disk
            raise ValueError(
                f"cannot write a tokenizer to {folder} ({error}): free some space there, or set "
                "TMPDIR to a folder on another disk"
            ) from error
        files = [(path.name, lasting_hash(path)) for path in sorted(Path(folder).iterdir())]
    return json_hash([files, version("tokenizers"), version("transformers")])


def lasting_hash(path: Path) -> str:
    """Hash of a saved file of a tokenizer without ``TRANSIENT`` settings."""
    if path.name not in TRANSIENT:
        return file_hash(path)
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return json_hash({k: v for k, v in record.items() if k not in TRANSIENT[path.name]})


@cache
def code_hash() -> str:
    """Hash of the code that turns rows into examples."""
    return json_hash([file_hash(path) for path in sorted(Path(__file__).parent.glob("*.py"))])


def write(encoded: Iterator[Encoded], folder: Path) -> None:
    """Write examples block by block, then a record with the hash of the file."""
    import pyarrow as pa

    counts = Counter[str](lost=0, spanning=0, aliases=0)

    def kept() -> Iterator[Example]:
        for example, spans, aliases in encoded:
            counts.update(lost=example is None, spanning=spans, aliases=aliases)
            if example is not None:
                yield example

    path, rows = folder / FILE, kept()
    numbers = [("prompt", pa.int32()), ("end", pa.int32())]
    schema = pa.schema([("ids", pa.list_(pa.int32())), *numbers])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        while block := list(islice(rows, BLOCK)):
            columns = [[e.ids for e in block], [e.prompt for e in block], [e.end for e in block]]
            writer.write_batch(pa.record_batch(columns, schema=schema))
    write_json(folder / RECORD, {**counts, "sha256": file_hash(path)})


@lru_cache(maxsize=64)
def opened(folder: Path) -> Cached:
    """The examples of a folder; ValueError if the file has changed since it was written."""
    import pyarrow as pa

    path = folder / FILE
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if file_hash(path) != record["sha256"]:
            raise ValueError("it was changed")
        reader = pa.ipc.open_file(pa.OSFile(str(path)))
        counts = [int(record[key]) for key in ("lost", "spanning", "aliases")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder} has tokenized text that is damaged ({error}): delete this folder, it will "
            "be made again"
        ) from error
    blocks = reader.num_record_batches

    @lru_cache(maxsize=4)
    def block(k: int) -> tuple[Any, list[int], list[int]]:
        ids, prompts, ends = reader.get_batch(k).columns
        return ids, prompts.to_pylist(), ends.to_pylist()

    def at(i: int) -> Example:
        (ids, prompts, ends), row = block(i // BLOCK), i % BLOCK
        return Example(ids[row].values.to_numpy().tolist(), prompts[row], end=ends[row])

    count = BLOCK * (blocks - 1) + len(block(blocks - 1)[1])
    return Cached(view(at, count), *counts)
