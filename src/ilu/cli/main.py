"""The command ``ilu``: picks a command, and turns what goes wrong into one line and an exit code.

Exit codes: 0 done, 2 the user can mend it, 130 and 143 interrupted, 1 a defect of ours.
"""

import signal
import sys
from collections.abc import Callable, Sequence

from ilu import __version__
from ilu.cli.signals import Interrupt
from ilu.system.errors import one_line, out_of_memory, unknown
from ilu.system.locks import Busy
from ilu.system.optional import quiet_libraries
from ilu.system.secrets import without_secrets

USAGE = """\
ilu: make a language model forget, so that it stays forgotten.

  ilu demo --out demo                      the whole story on the built-in lab, minutes on a laptop
  ilu unlearn RECIPE --model M ...         unlearn your model on your data
  ilu plan RECIPE --model M ...            what memory it needs, and settings that fit
  ilu mask SCORE --model M ...             choose the weights that may move
  ilu evaluate MODEL --suite lab           what a model still knows
  ilu ask MODEL... "PROMPT"                what models answer, side by side
  ilu oracle MODEL --retain D --steps N    the model that never saw what is to be forgotten
  ilu attack MODEL --task gsm8k --out D    attack it and see what comes back
  ilu vectors ORIGINAL UNLEARNED TUNED     angles between task vectors
  ilu sweep RECIPE --grid K=V,... --out D  every combination, here, in Ray or on Slurm
  ilu landscape ORIGINAL UNLEARNED         scores between models and around one
  ilu bench methods --out D                every method on the lab, with standard errors
  ilu report RUN... --out report.html      one page from run directories
  ilu view RUNS_DIR                        the same in the browser, while runs go on
  ilu methods                              every loss, rule, mask, attack, metric and recipe
  ilu rerun RUN --out D                    repeat a run from its recipe.json
  ilu card RUN [ATTACK...]                 a model card from what was measured
  ilu push RUN [ATTACK...] --repo ORG/NAME upload model, card and report to the hub
  ilu import-config FILE.json              a configuration of the original code as a command
  ilu lab build --out D                    rebuild the lab's model
  ilu doctor                               is everything here that is needed

Each takes --help; ilu --version is this one's. --debug anywhere shows where an error came from.
"""


def commands() -> dict[str, Callable[[Sequence[str]], None]]:
    """Command name -> what carries it out; imported here because it loads torch."""
    from ilu.cli import (
        ask,
        attack,
        bench,
        demo,
        evaluate,
        import_config,
        lab,
        landscape,
        mask,
        oracle,
        plan,
        publish,
        report,
        sweep,
        unlearn,
        vectors,
        view,
    )

    return {
        "demo": demo.main,
        "bench": bench.main,
        "unlearn": unlearn.main,
        "sweep": sweep.main,
        "plan": plan.main,
        "mask": mask.main,
        "evaluate": evaluate.main,
        "ask": ask.main,
        "oracle": oracle.main,
        "attack": attack.attack,
        "vectors": vectors.vectors,
        "landscape": landscape.main,
        "report": report.report,
        "view": view.view,
        "methods": report.methods,
        "rerun": report.rerun,
        "card": publish.card,
        "push": publish.push,
        "import-config": import_config.main,
        "lab": lab.main,
        "doctor": report.doctor,
    }


def main() -> None:
    """Entry point of the command line."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Carry out one command; return the exit code."""
    debug = "--debug" in argv
    rest = [a for a in argv if a != "--debug"]
    if not rest or rest[0] in ("-h", "--help", "help"):
        print(USAGE, end="")  # noqa: T201
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
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (ValueError, OSError, RuntimeError, MemoryError, Busy) as error:
        expected = isinstance(error, ValueError | OSError | Busy) or out_of_memory(error)
        if debug or not expected:
            raise
        complain(f"error: {one_line(error)}")
        return 2
    return 0


def dispatch(name: str, rest: Sequence[str]) -> None:
    """Find the command and call it."""
    from ilu.cli.terminal import warn_in_a_line

    warn_in_a_line()
    known = commands()
    if name not in known:
        raise unknown("command", name, known)
    known[name](rest)


def complain(text: str) -> None:
    """Print to standard error."""
    from ilu.cli.flags import as_flags
    from ilu.cli.terminal import errors

    errors.print(as_flags(without_secrets(text)), markup=False, soft_wrap=True)
