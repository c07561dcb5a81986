"""The page of methods, from the docstrings, so that it cannot drift from the code."""

import dataclasses
import importlib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from itertools import starmap
from typing import Any

import docstring_parser

from ilu.attacks.registry import attack_kinds, probe_kinds
from ilu.cli.catalogue import PAPER, Entry, entries, prose
from ilu.methods.method import Method
from ilu.recipes.mask_names import SUMMARIES
from ilu.recipes.registry import endings, methods, stages
from ilu.recipes.settings import Distilled, Invariance
from ilu.recipes.suite import suites
from ilu.training.objective import Term

HEAD = """\
# Methods

Written from the docstrings, as `ilu methods --out methods.md` does. How the methods compare on the
lab is in [results/methods/methods.md](../results/methods/methods.md) and [the log](log/index.md).

A recipe's name is METHOD, then perhaps one of {robust},
then perhaps -ilu or -control, then perhaps {stages}.

nll: negative log-likelihood of an answer; z: logits; y: target; p: probability; h: hidden state;
B examples, T tokens, S predictions, V vocabulary, D width.
Defaults are for models of 7B; those of the lab's model are in each method's file.
"""


def page() -> str:
    """The whole document."""
    found = entries()
    kinds = list(dict.fromkeys(e.kind for e in found if e.kind != "recipe"))
    head = [HEAD.format(robust=ending_list(endings()), stages=ending_list(stages()))]
    recipes = ["## Recipes\n", *(recipe(name, m) for name, m in methods().items())]
    variants = ["## Endings of a recipe's name\n", *map(variant, (*endings(), "ilu"))]
    variants += map(stage, stages())
    masks = ["## Masks by name\n", *(f"* `{n}`: {s}" for n, s in SUMMARIES.items()), ""]
    attacks = [
        "## Attacks by name\n",
        *(f"* `{n}`: {prose(k.build)}" for n, k in attack_kinds().items()),
        "",
    ]
    attacks += [
        "## Prompting attacks by name\n",
        *(f"* `{n}`: {' '.join(prose(k.build).split())}" for n, k in probe_kinds().items()),
        "",
    ]
    measured = [
        "## Suites by name\n",
        *(f"* `{n}`: {' '.join(prose(k.build).split())}" for n, k in suites().items()),
        "",
    ]
    parts = [part for kind in kinds for part in section(kind, found)]
    return "\n".join([*head, *recipes, *variants, *masks, *attacks, *measured, *parts])


def recipe(name: str, method: Method) -> str:
    """One recipe: what it does, its published settings and where they are stated."""
    head = f"### {name}\n\n{prose(method.recipe)}\n"
    stated = f"Default: lr {method.lr:g}, {method.steps} steps. Published: {method.source}.\n"
    objective = " + ".join(starmap(term, method.recipe().objective.items()))
    seen = {k: v for k, v in method.settings.items() if k.startswith("environment")}
    always = {k: v for k, v in method.settings.items() if k not in seen}
    run = "".join(
        f"{when}: {given(values)}.\n\n"
        for when, values in (("And", always), ("With an ending that reads one", seen))
        if values
    )
    return f"{head}\nMinimises {objective}.\n\n{stated}\n{run}{settings(method.recipe)}"


def given(values: Mapping[str, Any]) -> str:
    """Settings as a list of flags."""
    return ", ".join(f"`--{k.replace('_', '-')}` {shown(v)}" for k, v in values.items())


def shown(value: Any) -> str:
    """A setting as it is given on the command line."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def term(name: str, term: Term) -> str:
    """One term as ``weight Loss(stream)``."""
    weight = f"{term.weight:g}" if isinstance(term.weight, float) else str(term.weight)
    rule = "" if term.rule.power == 1 else f" by {type(term.rule).__name__}"
    return f"{weight} {type(term.loss).__name__}({term.on}){rule}"


def variant(ending: str) -> str:
    """One ending of a recipe's name with its settings."""
    known = endings()
    kind = known[ending].settings if ending in known else Invariance
    return f"### -{ending}\n\n{prose(kind)}\n\n{settings(kind)}"


def stage(ending: str) -> str:
    """One stage after the unlearning with its settings and those of its data."""
    kind = stages()[ending].settings
    return f"### -{ending}\n\n{prose(kind)}\n\n{settings(kind)}\n{settings(Distilled)}"


def ending_list(endings: Iterable[str]) -> str:
    """Endings in a sentence."""
    return ", ".join(f"-{name}" for name in endings)


def section(kind: str, found: list[Entry]) -> Iterator[str]:
    """Everything of one kind; the first of a module with the pure functions it is made of."""
    yield f"## {kind.capitalize()}\n"
    known = {e.location: e.location.partition(":")[0] for e in found}
    for entry in (e for e in found if e.kind == kind):
        module, _, name = entry.location.partition(":")
        thing = getattr(importlib.import_module(module), name)
        yield f"### {name}\n\n`{module}`\n\n{prose(thing)}\n"
        first = next(location for location, other in known.items() if other == module)
        for function in formulas(module) if entry.location == first else ():
            if f"{module}:{function.__name__}" not in known:
                yield f"* `{function.__name__}`: {' '.join(prose(function).split())}\n"


def formulas(module: str) -> Iterator[Any]:
    """The pure functions of a module that carry a paper's equation."""
    for function in vars(importlib.import_module(module)).values():
        own = inspect.isfunction(function) and function.__module__ == module
        if own and PAPER.search(inspect.getdoc(function) or ""):
            yield function


def settings(thing: Any) -> str:
    """A table of settings: name, default, meaning."""
    parsed = docstring_parser.parse(inspect.getdoc(thing) or "")
    text = {p.arg_name: p.description for p in parsed.params}
    rows = [
        f"| `--{name.replace('_', '-')}` | {default} | {' '.join((text.get(name) or '').split())} |"
        for name, default in defaults(thing)
    ]
    return "\n".join(["| setting | default | |", "|---|---|---|", *rows, ""]) if rows else ""


def defaults(thing: Any) -> list[tuple[str, Any]]:
    """Settings of a function or dataclass with their defaults."""
    if dataclasses.is_dataclass(thing):
        return [(f.name, f.default) for f in dataclasses.fields(thing)]
    return [(name, p.default) for name, p in inspect.signature(thing).parameters.items()]
