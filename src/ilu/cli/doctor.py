"""What ``ilu doctor`` looks at."""

import os
import shutil
from pathlib import Path

import torch

from ilu.data.hub import MIRROR
from ilu.system.provenance import environment


def findings() -> dict[str, str]:
    """What was found -> a line about it."""
    facts = environment()
    versions = {name: v or "not installed" for name, v in facts["versions"].items()}
    return {
        **versions,
        "python": facts["python"],
        "cpus": f"{facts['cpus']}, {facts['threads']} threads",
        "devices": devices(),
        "free memory": free_memory(),
        "free disk here": f"{shutil.disk_usage('.').free / 2**30:.1f} GiB",
        "hub": hub(),
    }


def devices() -> str:
    """Every device that torch can use."""
    found = ["cpu"]
    found += [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join([*found, *(["mps"] if torch.backends.mps.is_available() else [])])


def free_memory() -> str:
    """Memory that a new process could use."""
    import psutil

    return f"{psutil.virtual_memory().available / 2**30:.1f} GiB"


def hub() -> str:
    """Whether data can be had by name."""
    mirror = os.environ.get(MIRROR)
    if mirror:
        state = "found" if Path(mirror).is_dir() else "does not exist"
        return f"local mirror {mirror} ({MIRROR}): {state}"
    from huggingface_hub import HfApi

    try:
        HfApi().dataset_info("openai/gsm8k", timeout=5)
    except Exception as error:  # any failure means the same here
        return f"not reachable ({type(error).__name__}); set {MIRROR} to a local mirror"
    return "reachable"
