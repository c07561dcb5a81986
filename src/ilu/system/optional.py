"""Optional libraries, and the verbosity of all libraries."""

import logging
import os
from importlib.util import find_spec

EXTRAS = {
    "lora": ("peft>=0.21",),
    "torchao": ("torchao>=0.18",),
    "evals": ("rouge-score>=0.1.2", "sacrebleu>=2.4", "scikit-learn>=1.6", "scipy>=1.13"),
    "lm-eval": ("lm-eval==0.4.13",),
    "trackio": ("accelerate>=1.15", "trackio>=0.43"),
    "wandb": ("accelerate>=1.15", "wandb>=0.31"),
    "ray": ("ray>=2.50",),
    "slurm": ("submitit>=1.5",),
    "search": ("optuna>=4",),
    "tensorboard": ("accelerate>=1.15", "tensorboard>=2.21"),
}
"""The extras of pyproject.toml with their contents, since our name is another project's on PyPI."""


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
    # Of what torchao was built for; of a model that lm-eval was given instead of a name.
    for chatty in ("torchao", "torch.utils._pytree", "lm_eval"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
