"""The flags of ``ilu sweep`` besides those of its recipe."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ilu.cli.arguments.unlearn import FILES, Trial, check_recipe, field_names, recipe_settings
from ilu.cli.flags import flags, key_of, parse
from ilu.cli.help import Positional
from ilu.recipes.settings import Common
from ilu.runs.sweep.resources import Resources
from ilu.system.errors import alternatives, similar

HELP = """\
usage: ilu sweep RECIPE --grid KEY=VALUES ... --out DIR [flags of ilu unlearn]
       ilu sweep FILE.py --grid KEY=VALUES ... --out DIR [flags of its recipe()]
       ilu sweep status DIR
       ilu sweep resume DIR [--executor E] [--workers N]
       ilu sweep cancel DIR

Carry out every combination of the grid, each in a run directory of its own below DIR/runs. The same
command again does only what is missing; more of the grid adds runs. What has been done is read off
the run directories alone, so a sweep can go on with another executor or on another machine.

  ilu sweep npo-ilu --model lab --grid lambda=0.05,0.1,0.5 seed=0:3 \\
      --attack all --out sweeps/one
  ilu sweep npo --model lab --grid recipe=npo,npo-ilu seed=0:3 \\
      --search lr=1e-4:1e-3:log --trials 10 --attack all --out sweeps/tuned \\
      --goal utility@after,-forget_accuracy@mood-end
  ilu sweep my_recipe.py --grid strength=0.1,0.5 --executor ray \\
      --out sweeps/mine

FILE.py is code: it is run, with all that it does, and only when it is named here. Its function
recipe(...) returns a Recipe made of parts of ilu.

Flags: ilu sweep RECIPE --help
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Where:
    """Where runs are carried out, and how many at a time.

    Args:
        executor: local: a process for each run on this machine; ray: tasks of Ray (needs ray);
            slurm: jobs through submitit (needs submitit).
        workers: runs at a time, of the executor local.
        address: of a Ray cluster, or auto for the one of this machine; one is started if left out.
        resources: what each run needs.
        device: cpu, cuda, cuda:1, mps.
        save_every: steps between checkpoints of training and of attacks: the most that a run loses
            when its process or machine is lost.
    """

    executor: Literal["local", "ray", "slurm"] = "local"
    workers: int = 2
    address: str | None = None
    resources: Resources = Resources()
    device: str = "cpu"
    save_every: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepFlags:
    """What to vary, and what is done with every run.

    Args:
        out: folder of the sweep; runs that are finished there are not repeated.
        grid: KEY=A,B,C or KEY=FIRST:STOP, several with spaces between; lambda is the strength of
            -ilu, and recipe=A,B tries several recipes with the same flags.
        attack: all, or an attack as ilu attack --attack takes it, carried out on every run; repeat
            the flag for several, or write commas between them.
        attack_steps: optimiser steps of each attack.
        attack_lr: their learning rate.
        search: KEY=LOW:HIGH or KEY=LOW:HIGH:log, several with spaces between: find the best value
            for each recipe before the grid, with Optuna (needs optuna).
        trials: runs of the search for each recipe, the same number for all.
        trials_at_once: so many are chosen before the first of them has ended: more keep more
            workers busy, and learn less from one another.
        goal: what the search makes large, and small after a minus: METRIC@STAGE with commas
            between, of a stage behind an attack ATTACK-end, as in lora:mood-end. Measured on the
            validation half of the items; the grid on the other half. An attack that is named here
            is for validation and not in the grid.
    """

    out: Path
    grid: tuple[str, ...] = ()
    attack: tuple[str, ...] = ()
    attack_steps: int = 100
    attack_lr: float = 1e-3
    search: tuple[str, ...] = ()
    trials: int = 20
    trials_at_once: int = 2
    goal: str | None = None
    where: Where = Where()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folder:
    """The folder of a sweep.

    Args:
        folder: where the sweep is.
    """

    folder: Positional[Path]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resume:
    """Do what is missing of a sweep; its recipes are those that were planned.

    Args:
        folder: where the sweep is.
    """

    folder: Positional[Path]
    where: Where = Where()


SUBCOMMANDS = {"status": Folder, "resume": Resume, "cancel": Folder}


def overview() -> str:
    """The help of the command without a recipe."""
    return HELP


def check(argv: Sequence[str]) -> None:
    """Raise ValueError for an unknown recipe or flag; a file of the user is not looked at."""
    if not argv:
        raise ValueError("ilu sweep needs a recipe or a Python file first: see ilu sweep --help")
    if argv[0] in SUBCOMMANDS:
        parse(SUBCOMMANDS[argv[0]], f"ilu sweep {argv[0]}", argv[1:])
    elif not argv[0].endswith(".py"):
        check_recipe("ilu sweep", argv, [*OWN, *FILES], (Common, SweepFlags))
        check_varied(argv)


def check_varied(argv: Sequence[str]) -> None:
    """Raise ValueError for a key of --grid or --search that is no setting of its recipes."""
    words = spread(argv, ("--grid", "--search"))
    items = [*flags(words, "--grid"), *flags(words, "--search")]
    given = {key: values for key, _, values in (item.partition("=") for item in items)}
    recipes = [argv[0], *given.get("recipe", argv[0]).split(",")]
    known = {"recipe", "lambda"}.union(*(recipe_settings("ilu sweep", [r], ()) for r in recipes))
    for key in given:
        if key_of(f"--{key}") not in known:
            near = similar(key.replace("-", "_"), known)
            hint = f"; did you mean {alternatives(near)}?" if near else ""
            raise ValueError(f"{key!r} is no setting of {', '.join(dict.fromkeys(recipes))}{hint}")


def spread(argv: Sequence[str], names: Sequence[str]) -> list[str]:
    """``--grid a=1 b=2`` as ``--grid a=1 --grid b=2``."""
    found: list[str] = []
    open_flag = ""
    for word in argv:
        again = open_flag and not word.startswith("-") and found[-1] != open_flag
        found += [open_flag, word] if again else [word]
        if word.startswith("-"):
            open_flag = word if word in names else ""
    return found


OWN = field_names(SweepFlags, Where, Resources, Trial)


def settings(lead: Sequence[str]) -> set[str]:
    """What the file of --config may set; of a Python file this is not known, and none."""
    if lead and lead[0].endswith(".py"):
        return set()
    return recipe_settings("ilu sweep", lead, OWN)
