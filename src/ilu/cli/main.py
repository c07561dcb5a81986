"""The command ``ilu``: picks a command, and turns what goes wrong into one line and an exit code.

Exit codes: 0 done, 2 the user can mend it, 3 too little was forgotten, 130 and 143 interrupted, 1 a
defect of ours.
"""

import importlib
import signal
import sys
from collections.abc import Sequence
from typing import Any

from ilu import __version__
from ilu.cli.commands import COMMANDS, usage
from ilu.cli.signals import Interrupt
from ilu.system.errors import (
    TooLittleForgotten,
    first_line,
    of_library,
    one_line,
    out_of_memory,
    unknown,
)
from ilu.system.locks import Busy
from ilu.system.optional import quiet_libraries
from ilu.system.secrets import without_secrets

HELP = ("-h", "--help", "--help-all")


def main() -> None:
    """Entry point of the command line."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Carry out one command; return the exit code."""
    debug = "--debug" in argv
    rest = [a for a in argv if a != "--debug"]
    if not rest or rest[0] in (*HELP, "help"):
        print(usage(), end="")  # noqa: T201
        return 0 if rest else 2
    if rest[0] == "--version":
        print(f"ilu {__version__}")  # noqa: T201
        return 0
    quiet_libraries()
    try:
        dispatch(rest[0], rest[1:])
    except Interrupt as error:
        complain(f"{error}")
        return 128 + error.signal
    except TooLittleForgotten as error:
        complain(f"error: {error}")
        return 3
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        expected = isinstance(error, ValueError | OSError | Busy) or out_of_memory(error)
        if debug or not (expected or of_library(error)):
            raise
        complain(f"error: {one_line(error) if expected else of_model(error)}")
        return 2
    return 0


def of_model(error: Exception) -> str:
    """The message for an error in the code of a model, a tokenizer or a template."""
    return (
        f"the code of the model or of its tokenizer failed with {type(error).__name__}: "
        f"{first_line(error)} (--debug prints where)"
    )


def dispatch(name: str, argv: Sequence[str]) -> None:
    """Check the flags of a command, then import and call it: most commands import torch."""
    from ilu.cli.config import with_config
    from ilu.cli.help import fitted
    from ilu.cli.names import Names
    from ilu.cli.terminal import console, warn_in_a_line

    warn_in_a_line()
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    command = COMMANDS[name]
    if command.help and argv and argv[0] in HELP:
        console.print(fitted(imported(command.help)()), markup=False, end="", soft_wrap=True)
        return
    names = Names(name)
    argv = names.with_model(names.renewed(argv))
    if command.settings:
        found = with_config(names, argv, command.first, imported(command.settings))
        argv = names.renewed(found)
    if command.check:
        imported(command.check)(argv)
    imported(command.runs)(argv)


def imported(name: str) -> Any:
    """The function that is called ``module:function``, in this package of commands."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(f"ilu.cli.{module}"), function)


def complain(text: str) -> None:
    """Print to standard error."""
    from ilu.cli.flags import as_flags
    from ilu.cli.terminal import errors

    errors.print(as_flags(without_secrets(text)), markup=False, soft_wrap=True)
