"""``ilu methods``: what can be used by name, one line each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ilu.cli.flags import as_flags, parse
from ilu.cli.help import wrapped
from ilu.cli.terminal import console, print_json, table
from ilu.recipes.mask_names import SUMMARIES
from ilu.recipes.names import ENVIRONMENT, declared_endings, declared_methods, declared_stages
from ilu.system.declared import Declared, declared

PENALTIES = dict(
    zip(
        ENVIRONMENT,
        (
            "Penalise gradients on the environments: invariance (ILU, arXiv 2506.01339).",
            "Train on the environments without the penalty: the control for -ilu.",
        ),
        strict=True,
    )
)


@dataclass(frozen=True, kw_only=True)
class Methods:
    """List the recipes, endings, masks, attacks and suites that commands take by name.

    Example: ilu methods

    Example: ilu methods --all

    Args:
        all: list every loss, rule, mask, attack and metric class of the package, with its paper.
        json: print that list as JSON.
        out: write that list, with equations and settings, to this Markdown file.
    """

    all: bool = False
    json: bool = False
    out: Path | None = None


def methods(argv: Sequence[str]) -> None:
    """Carry out ``ilu methods``."""
    wanted: Methods = parse(Methods, "ilu methods", argv)
    if wanted.all or wanted.json or wanted.out:
        show_classes(wanted)
        return
    section("Recipes: ilu unlearn RECIPE", first_lines(declared_methods()))
    section("Endings of a recipe's name: npo-sam", first_lines(declared_endings(), "-"))
    section("Ending after these: npo-ilu, npo-sam-ilu",
            {f"-{name}": text for name, text in PENALTIES.items()})  # fmt: skip
    section("Last ending, a stage after the unlearning: npo-undo, npo-ilu-undo",
            first_lines(declared_stages(), "-"))  # fmt: skip
    section("Masks: ilu mask SCORE, ilu unlearn RECIPE --mask SCORE:FRACTION", SUMMARIES)
    attacks = declared("ilu.attacks", "ATTACKS")
    section("Attacks: ilu attack MODEL --attack NAME:ARGUMENT", first_lines(attacks))
    probes = declared("ilu.attacks.prompting", "PROBES")
    section("Prompting attacks: ilu attack MODEL --probe NAME", first_lines(probes))
    suites = declared("ilu.recipes.suites", "SUITES")
    section("Suites: ilu evaluate MODEL --suite SUITE", first_lines(suites))
    console.print("Flags of a recipe: ilu unlearn RECIPE --help", markup=False)


def first_lines(found: Mapping[str, Declared], prefix: str = "") -> dict[str, str]:
    """The first paragraph of each docstring in one line."""
    return {f"{prefix}{name}": as_flags(" ".join(each.doc.split())) for name, each in found.items()}


def section(title: str, lines: Mapping[str, str]) -> None:
    """Print names with what each is."""
    console.print(f"{title}\n", markup=False)
    width = max(map(len, lines))
    for name, text in lines.items():
        hanging = " " * (width + 4)
        for line in wrapped(f"{name:{width}}  {text}", hanging, "  "):
            console.print(line, markup=False, soft_wrap=True)
    console.print()


def show_classes(wanted: Methods) -> None:
    """Print or write the list of classes; imports the whole package."""
    from ilu.cli.catalogue import entries
    from ilu.cli.methods_page import page
    from ilu.system.atomic import write_text

    if wanted.out:
        write_text(wanted.out, page())
        return
    found = entries()
    if wanted.json:
        print_json([e._asdict() for e in found])
        return
    rows = [(e.name, e.kind, f"arXiv {e.paper}" if e.paper else "", e.summary) for e in found]
    table("methods", ("name", "kind", "paper", "what it does"), rows)
