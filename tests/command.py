"""The command ``ilu``: in this process, which spares its start, or as the installed program."""

import inspect
import logging
import os
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Generator, Sequence
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import jaxtyping
import torch
from transformers.utils.logging import (
    disable_progress_bar,
    enable_progress_bar,
    is_progress_bar_enabled,
)

from ilu.cli.main import run
from ilu.cli.terminal import console, errors

INSTALLED = str(Path(sys.executable).with_name("ilu"))
WIDE = "200"
"""Columns of the terminal, so that no name is folded."""
CHECKS = str(Path(jaxtyping.__file__).with_name("_decorator.py"))
"""Where the frames of the run-time checks of types are."""
QUIETED = ("torchao", "torch.utils._pytree", "lm_eval")
"""Loggers whose level the command sets."""


def in_process(args: Sequence[str], cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Carry out ``ilu *args`` here; what a command changes in its process is put back."""
    out, err = StringIO(), StringIO()
    with as_a_process(cwd, env), redirect_stdout(out), redirect_stderr(err):
        try:
            code = run(args)
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 1
        except Exception:
            traceback.print_exc()
            code = 1
    return subprocess.CompletedProcess(["ilu", *args], code, out.getvalue(), err.getvalue())


@contextmanager
def as_a_process(cwd: Path, env: dict[str, str]) -> Generator[None]:
    """The folder, the environment and the settings that a process has for itself."""
    threads, random = torch.get_num_threads(), torch.random.get_rng_state()
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    levels = {name: logging.getLogger(name).level for name in QUIETED}
    bars = is_progress_bar_enabled()
    with ExitStack() as stack:
        stack.enter_context(chdir(cwd))
        stack.enter_context(patch.dict(os.environ, {"COLUMNS": WIDE, **env}))
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(patch.object(warnings, "warn", warn))
        for terminal in (console, errors):
            stack.callback(setattr, terminal, "width", terminal.width)
            terminal.width = int(WIDE)
        torch.set_num_threads(1)
        # The libraries are imported, so that they no longer read what the command sets for them.
        disable_progress_bar()
        # The package is not checked at run time where a user has it; the mark for a setting
        # without a default would be refused as a value of its type.
        jaxtyping.config.update("jaxtyping_disable", True)
        try:
            yield
        finally:
            jaxtyping.config.update("jaxtyping_disable", False)
            if bars:
                enable_progress_bar()
            torch.set_num_threads(threads)
            torch.random.set_rng_state(random)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def warn(
    message: str | Warning, category: type[Warning] | None = None, stacklevel: int = 1, **_: object
) -> None:
    """``warnings.warn`` that counts no frame of the run-time checks, which users do not have."""
    frames = (each.frame for each in inspect.stack(0)[1:] if each.filename != CHECKS)
    *_skipped, caller = islice(frames, stacklevel)
    kind = type(message) if isinstance(message, Warning) else category or UserWarning
    warnings.warn_explicit(
        message, kind, caller.f_code.co_filename, caller.f_lineno, caller.f_globals["__name__"]
    )


def installed(
    args: Sequence[str], cwd: Path, timeout: float = 300, **env: str
) -> subprocess.CompletedProcess[str]:
    """Start the installed program; wait for its end."""
    known = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": WIDE, **env}
    return subprocess.run(
        [INSTALLED, *args], cwd=cwd, env=known, text=True, capture_output=True, timeout=timeout
    )
