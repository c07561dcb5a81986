"""Models in GGUF, the format of llama.cpp: converted once to a Hugging Face folder of float32.

The folder is in the cache under the hash of the file, so that a copy or another name of the file is
converted only once.
"""

import json
import re
import warnings
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any

from ilu.models.gguf_header import Header, read_header
from ilu.system.atomic import file_hash, json_hash, new_folder, write_json
from ilu.system.cache import CACHE, cache_folder, content_hash
from ilu.system.errors import first_line
from ilu.system.locks import alone
from ilu.system.optional import need, quiet_models

CONVERSION = 1
"""Version of ``convert``; to be raised when its output changes."""
ORIGIN = "gguf.json"
"""File in a converted folder: name and hash of the GGUF file."""
ENDING = ".gguf"
WEIGHTS = ("*.safetensors", "*.bin")
IMAGES = "mmproj"
"""In the name of the file of an image encoder, which comes with the file of the language model."""
PART = re.compile(r"-\d{5}-of-\d{5}$")
"""End of the name of a part of a file, without the ending."""
POSITIONS = ("rope_freqs", "rope_factors")
"""Beginnings of the names of tensors that scale positions."""
HEAD = "output.weight"
"""Name of the LM head, which is a copy where transformers ties it to the embeddings."""
NO_LANGUAGE_MODEL = {"general", "tokenizer", "t5", "umt5"}
"""What the list of transformers has that is no architecture, or no causal language model."""


def gguf_file(name: str) -> Path | None:
    """The GGUF file that a model's name means: the file itself, or the one in a folder.

    A folder that has other weights as well is an ordinary model folder.
    """
    path = Path(name)
    if path.suffix == ENDING and not path.is_dir():
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        return path
    if not path.is_dir() or any(any(path.glob(kind)) for kind in WEIGHTS):
        return None
    found = sorted(each for each in path.glob(f"*{ENDING}") if IMAGES not in each.name)
    if len(found) > 1 and not all(PART.search(each.stem) for each in found):
        names = ", ".join(each.name for each in found)
        raise ValueError(f"{path} has {len(found)} GGUF files ({names}): give one of the files")
    return found[0] if found else None


def converted(file: Path) -> Path:
    """The Hugging Face folder of a GGUF file in the cache, made if it is not there yet.

    Of several processes, one converts and the others wait for it.
    """
    folder = folder_of(file)
    if folder.is_dir():
        return folder
    check_gguf(file)
    try:
        with alone(folder, wait=True):
            if not folder.is_dir():
                with new_folder(folder) as half:
                    convert(file, half)
    except OSError as error:
        raise ValueError(
            f"cannot keep the converted model in {folder} ({error.strerror or error}): free some "
            f"space there, or set {CACHE} to a folder on another disk"
        ) from error
    return folder


def folder_of(file: Path) -> Path:
    """Where the converted model of a GGUF file is, or will be."""
    return cache_folder("models") / json_hash([content_hash(file), CONVERSION])


def check_gguf(file: Path) -> None:
    """Refuse from its header what cannot be converted; nothing is read if it was converted."""
    if folder_of(file).is_dir():
        return
    need("gguf", "gguf", f"the GGUF file {file.name}")
    header = read_header(file)
    if PART.search(file.stem) or header.settings.get("split.count", 0) > 1:
        raise ValueError(
            f"{file.name} is one part of a split GGUF: merge the parts with the "
            "tool llama-gguf-split, or use the model's safetensors"
        )
    check_architecture(file, header)
    check_positions(file, header)
    check_quantisation(file, header)


def check_architecture(file: Path, header: Header) -> None:
    """Refuse what transformers cannot read, or what is no causal language model."""
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    given = str(header.settings.get("general.architecture"))
    readable = sorted(set(GGUF_SUPPORTED_ARCHITECTURES) - NO_LANGUAGE_MODEL)
    if plain(given) not in map(plain, readable):
        raise ValueError(
            f"{file.name} has the architecture {given!r}; readable from GGUF: "
            f"{', '.join(readable)}. Use the model's safetensors"
        )


def check_positions(file: Path, header: Header) -> None:
    """Refuse what scales positions by tensors that transformers leaves out, as Llama 3.1 does."""
    scaling = sorted(each.name for each in header.tensors if each.name.startswith(POSITIONS))
    if scaling:
        raise ValueError(
            f"{file.name} scales positions by {scaling[0]}, which transformers does not read from "
            "GGUF: use the model's safetensors"
        )


def plain(architecture: str) -> str:
    """The name of an architecture as llama.cpp and transformers both have it."""
    return architecture.replace("-", "").replace("_", "")


def check_quantisation(file: Path, header: Header) -> None:
    """Refuse what the ``gguf`` library cannot turn into floats."""
    from gguf import GGMLQuantizationType

    numbers = {each.kind for each in header.tensors}
    known = {kind.value: kind for kind in GGMLQuantizationType}
    lost = [known[n].name if n in known else f"number {n}" for n in sorted(numbers)
            if n not in known or not dequantised(known[n])]  # fmt: skip
    if lost:
        raise ValueError(
            f"{file.name} has tensors of the type {', '.join(lost)}, which gguf cannot turn into "
            "floats: use another quantisation of the model, such as Q8_0, or its safetensors"
        )


def dequantised(kind: Any) -> bool:
    """Whether the library has a rule for this quantisation, by a trial with one block of zeros."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES, dequantize

    try:
        dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


def convert(file: Path, folder: Path) -> None:
    """Write a GGUF file as an ordinary folder: float32 weights, configuration, tokenizer."""
    from transformers import AutoTokenizer

    try:
        # The last is for a bar of tqdm that has no switch.
        with quiet_models(), one_reading(), redirect_stderr(StringIO()):
            model = dequantise(file)
            tokenizer: Any = AutoTokenizer.from_pretrained(
                file.parent, gguf_file=file.name, trust_remote_code=False
            )
    except (ValueError, KeyError, IndexError, ImportError) as error:
        raise ValueError(f"cannot convert {file.name}: {first_line(error)}") from error
    warn_of_unread(file, model)
    # What remains of the quantisation: transformers would refuse to save the model.
    model.hf_quantizer = None
    for trace in ("quantization_config", "_model_name_or_path"):
        vars(model.config).pop(trace, None)
    with quiet_models():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    write_json(folder / ORIGIN, {"file": file.name, "sha256": file_hash(file)})


@contextmanager
def one_reading() -> Generator[None]:
    """Parse a GGUF file once: transformers does it again for each of several questions."""
    import gguf

    reader = gguf.GGUFReader
    gguf.GGUFReader = lru_cache(maxsize=1)(reader)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        gguf.GGUFReader = reader


def dequantise(file: Path) -> Any:
    """The model of a GGUF file in float32."""
    import torch
    import transformers

    # Newer versions keep the weights quantised if they can, and such a model cannot be trained.
    settings: Any = getattr(transformers, "GgufConfig", None)
    unpacked = {"quantization_config": settings(dequantize=True)} if settings else {}
    loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        dtype=torch.float32,
        trust_remote_code=False,
        output_loading_info=True,
        **unpacked,
    )
    model, info = loaded
    absent = sorted(info["missing_keys"])
    if absent:
        raise ValueError(f"the file lacks {len(absent)} weights, such as {absent[0]}")
    return model


def warn_of_unread(file: Path, model: Any) -> None:
    """Warn if the file has more weights than the model."""
    copies = {HEAD} if model.config.tie_word_embeddings else set[str]()
    stored = sum(t.elements for t in read_header(file).tensors if t.name not in copies)
    unread = stored - sum(p.numel() for p in model.parameters())
    if unread > 0:
        warnings.warn(
            f"{unread} of {stored} weights of {file.name} have no place in "
            f"{type(model).__name__} and are left out: compare its answers with the original's",
            stacklevel=2,
        )


def origin(folder: Path) -> dict[str, str]:
    """Name and hash of the GGUF file that a folder was converted from; empty for other folders."""
    path = folder / ORIGIN
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return {found["file"]: found["sha256"]}
