"""Provenance of a run: versions, machine and the state of the code."""

import hashlib
import os
import platform
import resource
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import ilu
from ilu.system.secrets import hidden_arguments, without_secrets

PACKAGES = (
    "ilu",
    "torch",
    "transformers",
    "safetensors",
    "datasets",
    "tokenizers",
    "numpy",
    "peft",
    "torchao",
    "triton",
    "rouge-score",
    "sacrebleu",
    "scipy",
)


def environment() -> dict[str, Any]:
    """Versions, processor, accelerator, commit and command line."""
    return {
        "versions": {name: installed(name) for name in PACKAGES},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "commit": git("rev-parse", "HEAD").strip() or None,
        "dirty": bool(git("status", "--porcelain")),
        "argv": hidden_arguments(sys.argv[1:]),
    }


def installed(package: str) -> str | None:
    """Version of an installed package; this one is installed under another name."""
    try:
        return ilu.__version__ if package == "ilu" else version(package)
    except PackageNotFoundError:
        return None


def code_diff() -> str:
    """Uncommitted changes to the package's code; empty outside a checkout."""
    return without_secrets(git("diff", "HEAD", "--", "."))


def git(*command: str) -> str:
    """Output of a git command in the package's checkout; empty outside a checkout."""
    root = Path(ilu.__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(["git", "-C", str(root), *command], capture_output=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""


def peak_memory() -> int:
    """Peak memory in bytes: allocated on the GPU if one is used, else resident of this process."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@cache
def code_hash() -> str:
    """Hash of the package's code, so that scores are recomputed after a change of the code."""
    root, digest = Path(ilu.__file__).parent, hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
    return digest.hexdigest()
