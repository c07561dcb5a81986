"""Libraries: those that only some runs need, and what all of them have to say."""

import logging
import os
from importlib.util import find_spec


def need(library: str, extra: str, what: str) -> None:
    """Raise ValueError with the command that installs ``library``, if it is missing."""
    if find_spec(library) is None:
        raise ValueError(
            f"{what} needs {library}, which is missing: pip install 'ilu[{extra}]', which keeps "
            "the ilu that is installed"
        )


def quiet_libraries() -> None:
    """Keep libraries from writing over our progress; to be called before they are imported.

    What their warnings say of lengths and missing weights is an error of ours already.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    # Of what torchao was built for; of a model that lm-eval was given instead of a name.
    for chatty in ("torchao", "torch.utils._pytree", "lm_eval"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
