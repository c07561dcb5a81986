"""The flags of a sweep, and the recipes that follow from them."""

import dataclasses
import importlib.util
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ilu.attacks.registry import label
from ilu.cli.arguments.sweep import SweepFlags, spread
from ilu.cli.flags import parse, without
from ilu.cli.unlearn import arguments_type, read_settings
from ilu.models.named import full_name
from ilu.recipes.attacks import attack_names, chosen, with_attacks
from ilu.recipes.build import build
from ilu.recipes.holdout import attacks_of, on_half, read_goal
from ilu.recipes.names import parse_name
from ilu.runs.recipe import Recipe
from ilu.runs.sweep.grid import cells, read_grid, run_name
from ilu.runs.sweep.optuna_search import Goal
from ilu.training.fit import Optim

PROG = "ilu sweep"


Make = Callable[[Mapping[str, str]], Recipe]
"""From the values of a cell, as they are written on the command line, to its recipe."""


class Wish(NamedTuple):
    """Flags that are read, and how a recipe is made from them."""

    flags: SweepFlags
    make: Make
    model: str


def read(head: str, argv: Sequence[str]) -> Wish:
    """Read the flags behind a recipe's name or a Python file."""
    argv = spread(argv, ("--grid", "--search"))
    return read_file(Path(head), argv) if head.endswith(".py") else read_recipe(head, argv)


def read_recipe(name: str, argv: Sequence[str]) -> Wish:
    """Flags of ``ilu unlearn`` besides those of the sweep; a cell's values are more of the same."""

    @cache
    def settings(recipe: str, *more: str) -> dict[str, Any]:
        return read_settings(recipe, replaced(argv, more), f"{PROG} {recipe}", SweepFlags)[0]

    def make(cell: Mapping[str, str]) -> Recipe:
        recipe = cell.get("recipe", name)
        model = ("--model", cell["model"]) if "model" in cell else ()  # which has its own defaults
        values = dict(settings(recipe, *model))
        for key in cell.keys() - {"recipe", "model"}:
            if key == "strength" and not parse_name(recipe).environment:
                continue
            values |= {key: settings(recipe, *model, flag(key), cell[key]).get(key)}
        return build(recipe, values)

    found, flags = read_settings(name, argv, f"{PROG} {name}", SweepFlags)
    return Wish(flags, make, full_name(found["model"]))


def read_file(path: Path, argv: Sequence[str]) -> Wish:
    """The arguments of the function ``recipe`` of a Python file as flags."""
    function = recipe_function(path)
    kind = dataclasses.make_dataclass(
        "Flags",
        [("flags", SweepFlags, dataclasses.field()), ("settings", arguments_type(function))],
        frozen=True,
        kw_only=True,
    )
    prog = f"{PROG} {path}"

    def make(cell: Mapping[str, str]) -> Recipe:
        more = [word for key, value in cell.items() for word in (flag(key), value)]
        return function(**vars(parse(kind, prog, replaced(argv, more)).settings))

    found = parse(kind, prog, argv, head={"recipe": str(path)})
    return Wish(found.flags, make, make({}).model)


def replaced(argv: Sequence[str], more: Sequence[str]) -> list[str]:
    """The words ``argv`` with the flags of ``more`` in place of their own."""
    return [*without(argv, more[::2]), *more]


def recipe_function(path: Path) -> Callable[..., Recipe]:
    """The function ``recipe`` of a file. The file is code, and this runs it."""
    spec = importlib.util.spec_from_file_location("ilu_sweep_file", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ValueError(f"{path} does not exist: give a recipe's name or a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, "recipe", None)
    if not inspect.isfunction(found):
        raise ValueError(f"{path} defines no function recipe(...) that returns a Recipe")
    if any(p.default is p.empty for p in inspect.signature(found).parameters.values()):
        raise ValueError(f"{path}: every argument of recipe(...) needs a default")
    return found


def flag(key: str) -> str:
    """A setting's name as a flag."""
    return "--" + key.replace("_", "-")


def planned(wish: Wish, best: Mapping[str, Mapping[str, float]] | None = None) -> dict[str, Recipe]:
    """Every run of the grid by its name; settings that a search has found are put in.

    Cells that come to the same recipe are one run.
    """
    flags, goal = wish.flags, goal_of(wish)
    held_back = {label(name) for name in attacks_of(goal)}
    attacks = ",".join(flags.attack) or "none"
    names = chosen(wish.model, attacks)
    if attacks != "all" and (both := [name for name in names if label(name) in held_back]):
        raise ValueError(
            f"--attack {both[0]}: the goal looks at it, so it is for validation and cannot be "
            "part of the test"
        )
    names = [name for name in names if label(name) not in held_back]
    found: dict[str, Recipe] = {}
    for cell in cells(read_grid(flags.grid)):
        searched = {k: f"{v:g}" for k, v in (best or {}).get(cell.get("recipe", ""), {}).items()}
        recipe = with_attacks(wish.make({**searched, **cell}), names, optim(flags))
        recipe = on_half(recipe, "test") if flags.search else recipe
        if recipe not in found.values():
            found[run_name(recipe, {**cell, **searched})] = recipe
    return found


def trial(wish: Wish, name: str, settings: Mapping[str, float]) -> tuple[str, Recipe]:
    """One run of the search, which never sees a test item."""
    cell = {**({"recipe": name} if name else {}), **{k: repr(v) for k, v in settings.items()}}
    names = attacks_of(goal_of(wish))
    recipe = on_half(with_attacks(wish.make(cell), names, optim(wish.flags)), "validation")
    shown = {key: f"{value:.4g}" for key, value in settings.items()}
    return f"trial-{run_name(recipe, shown)}", recipe


def goal_of(wish: Wish) -> Goal:
    """What a search looks at; nothing where there is none."""
    if not wish.flags.search:
        return {}
    if wish.flags.goal is None or min(wish.flags.trials, wish.flags.trials_at_once) < 1:
        raise ValueError(
            "--search needs --trials and --trials-at-once of at least 1, and --goal, what is to be "
            "large and small: "
            f"utility@after,-forget_accuracy@{attack_names(wish.model)[0]}-end"
        )
    return read_goal(wish.flags.goal)


def optim(flags: SweepFlags) -> Optim:
    """How attacks train."""
    return Optim(lr=flags.attack_lr, steps=flags.attack_steps)
