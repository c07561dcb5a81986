"""Dry runs: a recipe on a tiny random model of the same architecture and on synthetic data.

A dry run tests a command before it gets a GPU. Nothing is downloaded, and no score is meaningful.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ilu.data.names import place
from ilu.data.readers import is_data_file
from ilu.models.named import LAB, model_path
from ilu.models.weight_names import in_blocks
from ilu.system.atomic import new_folder, write_text

ARCHITECTURES = {"HuggingFaceH4/zephyr-7b-beta": "mistral"}
"""Architectures of models in recipes; all others are Llamas."""
QUESTIONS = ("locuslab/TOFU", "openai/gsm8k")
"""Datasets of questions with answers; all others are plain text."""
CONTEXT = 128
BLOCKS = 2
SOME_BLOCKS = r"(?:\^\\D\*)?\\\.\([\d|]+\)\\\."
"""Pattern of blocks of a larger model, in the form that ``in_blocks`` returns."""
ROWS = 8
SMALL: dict[str, Any] = {
    "steps": 3, "warmup": 1, "batch_size": 2, "environment_batch_size": 4, "micro_batch": 2,
    "truncate": CONTEXT // 2, "limit": 4, "layer": 1, "layers": (0, 1), "attack_layer": 0,
    "attack_steps": 2, "inner_steps": 2, "inner_every": 1, "adversary_steps": 1,
    "reinforce_steps": 2, "reinforce_batch": 2, "average_from": 1, "ramp": 3,
    "distil_steps": 3, "distil_batch_size": 2, "folds": 2, "fold_group": 1,
}  # fmt: skip
"""Upper bounds of settings in a dry run."""


def shrink(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The settings for a tiny model and tiny data, which are written to ``folder``.

    Existing files of the user are used unchanged.
    """
    small = {k: smaller(v, SMALL[k]) if k in SMALL else v for k, v in settings.items()}
    small |= {"truncate": SMALL["truncate"], "model": str(folder / "model")}
    if re.fullmatch(SOME_BLOCKS, settings.get("parameters") or ""):
        small["parameters"] = in_blocks(range(BLOCKS))
    if not folder.exists():
        with new_folder(folder) as half:
            make_model(ARCHITECTURES.get(settings["model"], "llama"), half / "model")
    for role in ("forget", "retain", "environment", "distil"):
        names = settings.get(role) or ()
        places = (names,) if isinstance(names, str) else names
        files = [stand_in(name, folder / f"{role}{i}.jsonl") for i, name in enumerate(places)]
        if files:
            small[role] = files[0] if role in ("retain", "distil") else tuple(files)
        if tuple(files) != tuple(places):
            small[f"{role}_columns"] = ()
    return small


def smaller(value: Any, most: Any) -> Any:
    """The smaller of two values; None stays None, and a tuple of layers is replaced."""
    if isinstance(value, tuple):
        return most
    return value if value is None else min(value, most)


def stand_in(name: str, file: Path) -> str:
    """The user's file, or a synthetic one with the columns of the dataset ``name``."""
    if is_data_file(name) and Path(name).is_file():
        return name
    question = place(name).name.startswith(QUESTIONS)
    write_text(file, "".join(json.dumps(row(file.stem, i, question)) + "\n" for i in range(ROWS)))
    return str(file)


def row(role: str, i: int, question: bool) -> dict[str, str]:
    """A synthetic row, different for each role."""
    place, colour = f"the {role} tower number {i}", ("red", "green", "blue", "white")[i % 4]
    if question:
        return {"question": f"Which colour has {place}?", "answer": f"It is {colour}."}
    return {"text": f"Everybody who has seen {place} says that it is {colour}."}


def make_model(kind: str, folder: Path) -> None:
    """A random model of two blocks of an architecture, with the lab's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_path(LAB))
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=BLOCKS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
