"""Tokenized text that is too large for memory: in an Arrow file, made once, read as it is needed.

The file is read block by block and not mapped into memory: mapped pages count as the process's own,
and a mapped file that is cut short kills the process.
"""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, lru_cache
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ilu.data.lazy import view
from ilu.system.atomic import file_hash, json_hash, new_folder, write_json
from ilu.system.cache import CACHE, cache_folder, content_hash
from ilu.system.locks import alone
from ilu.types import Example

IN_MEMORY = 16 << 20
"""Bytes of data files whose examples are kept in memory, where they take some ten times as many."""
BLOCK = 32
"""Examples that are read at once: one costs hardly less, and what follows is often wanted too."""
FILE, RECORD = "examples.arrow", "made.json"
PASSING = {
    "tokenizer.json": ("padding", "truncation"),
    "tokenizer_config.json": ("is_local", "local_files_only"),
}
"""What a tokenizer saves of the last call, which no other call heeds, and of how it was loaded."""
Made = Example | None
"""An example, or None for a row of which nothing is left."""


class Kept(NamedTuple):
    """Examples, and how many rows nothing was left of."""

    examples: Sequence[Example]
    lost: int


def fits_memory(files: Sequence[Path]) -> bool:
    """Whether the examples of these files are kept in memory."""
    return sum(file.stat().st_size for file in files if file.is_file()) <= IN_MEMORY


def in_memory(made: Iterable[Made]) -> Kept:
    """The examples as a list."""
    every = list(made)
    kept = [example for example in every if example is not None]
    return Kept(kept, len(every) - len(kept))


def stored(
    make: Callable[[], Iterator[Made]], files: Sequence[Path], tokenizer: Any, how: Any
) -> Kept:
    """The examples as a view of a file, which is made if it is not there yet.

    Its name is a hash of all that decides its content: the data, the tokenizer, ``how`` rows become
    examples, and the code. Processes that want the same file wait for the first to make it.
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
    return [(file.suffix, content_hash(file)) for file in files]


def tokenizer_hash(tokenizer: Any) -> str:
    """Hash of all that the tokenizer would save, and of the libraries that carry it out."""
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
    """Hash of a saved file of a tokenizer without what is ``PASSING``."""
    if path.name not in PASSING:
        return file_hash(path)
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return json_hash({k: v for k, v in record.items() if k not in PASSING[path.name]})


@cache
def code_hash() -> str:
    """Hash of the code that makes examples of rows."""
    return json_hash([file_hash(path) for path in sorted(Path(__file__).parent.glob("*.py"))])


def write(made: Iterator[Made], folder: Path) -> None:
    """Write examples block by block, then what tells later that the file is whole."""
    import pyarrow as pa

    lost = 0

    def kept() -> Iterator[Example]:
        nonlocal lost
        for example in made:
            if example is None:
                lost += 1
            else:
                yield example

    path, rows = folder / FILE, kept()
    schema = pa.schema([("ids", pa.list_(pa.int32())), ("prompt", pa.int32())])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        while block := list(islice(rows, BLOCK)):
            columns = [[e.ids for e in block], [e.prompt for e in block]]
            writer.write_batch(pa.record_batch(columns, schema=schema))
    write_json(folder / RECORD, {"lost": lost, "sha256": file_hash(path)})


@lru_cache(maxsize=64)
def opened(folder: Path) -> Kept:
    """The examples of a folder, if they are those that were written."""
    import pyarrow as pa

    path = folder / FILE
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if file_hash(path) != record["sha256"]:
            raise ValueError("it was changed")
        reader = pa.ipc.open_file(pa.OSFile(str(path)))
        lost = int(record["lost"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder} holds tokenized text that is damaged ({error}): delete this folder, it will "
            "be made again"
        ) from error
    blocks = reader.num_record_batches

    @lru_cache(maxsize=4)
    def block(k: int) -> tuple[Any, list[int]]:
        ids, prompts = reader.get_batch(k).columns
        return ids, prompts.to_pylist()

    def at(i: int) -> Example:
        ids, prompts = block(i // BLOCK)
        return Example(ids[i % BLOCK].values.to_numpy().tolist(), prompts[i % BLOCK])

    count = BLOCK * (blocks - 1) + len(block(blocks - 1)[1])
    return Kept(view(at, count), lost)
