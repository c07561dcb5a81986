"""``ilu unlearn RECIPE``: flags made from the method's arguments and the common settings."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ilu.cli.arguments.sweep import SweepFlags
from ilu.cli.arguments.unlearn import BASIC, GROUPS, Place, Trial, check, field_names
from ilu.cli.carry_out import carry_out
from ilu.cli.flags import flags, parse
from ilu.cli.terminal import console, error, errors, number, table
from ilu.recipes.build import build, defaults, warn_of_environment
from ilu.recipes.dry_run import shrink
from ilu.recipes.names import declared_endings, declared_methods, declared_stages, parse_name
from ilu.recipes.registry import endings, methods, stages
from ilu.recipes.settings import Common, Distilled, Invariance
from ilu.runs.recipe import Recipe
from ilu.runs.report.card import missing_from_new_card, write_card
from ilu.runs.results.display import displayed
from ilu.runs.results.forget_metric import forget_metric
from ilu.runs.results.outcome import outcome
from ilu.runs.run_dir import RunDir
from ilu.system.errors import TooLittleForgotten
from ilu.system.leader import leads
from ilu.training.fit import Optim


def main(argv: Sequence[str]) -> None:
    """Carry out the command."""
    check(argv)
    if flags(argv, "--environment"):
        warn_of_environment(argv[0])
    recipe, place = read(argv[0], argv[1:])
    out = carry_out(recipe, place, finish=write_new_card)
    if not leads():
        return  # the first process prints for all
    summarise(out)
    check_outcome(out, place.require_forgotten)


def write_new_card(run: Path) -> None:
    """Write the card, unless a finished run that is resumed has one with attacks by now."""
    if not missing_from_new_card(run):
        write_card(run)


def check_outcome(out: RunDir, required: float | None) -> None:
    """Say in a sentence what was forgotten; warn if it is nothing, and end if it is too little."""
    found = outcome(out.read("recipe"), out.scores("before"), out.scores("after"))
    if found is None:
        if required is not None:
            raise ValueError("`require_forgotten`: nothing was measured on the forget data")
        return
    console.print(found.sentence, markup=False, soft_wrap=True)
    show_samples(out)
    if found.nothing:
        errors.print(
            "warning: nothing was forgotten: train longer, with a larger --lr, or by another "
            "method; the model is not an unlearned one",
            markup=False, soft_wrap=True,
        )  # fmt: skip
    if required is not None and found.share < required:
        raise TooLittleForgotten(
            f"too little was forgotten: {found.change}, and `require_forgotten` is {required:.0%}"
        )


SHOWN = 2
"""Questions whose answers are printed."""


def show_samples(out: RunDir) -> None:
    """Print how the model went on before and after, first where it was right and no longer is."""
    pairs = list(zip(out.rows("samples/before"), out.rows("samples/after"), strict=False))
    pairs.sort(key=lambda pair: [each["value"] for each in pair] != [1, 0])
    for before, after in pairs[:SHOWN]:
        lines = [
            f"{last_line_of(str(before['prompt']))} ...",
            f"  before: {first_line_of(str(before['generated']))}",
            f"  after:  {first_line_of(str(after['generated']))}",
        ]
        console.print("\n".join(lines), markup=False, soft_wrap=True)


def last_line_of(text: str) -> str:
    """The end of a question, without control characters."""
    return "".join(c for c in text.strip().rpartition("\n")[2] if c.isprintable())[-70:]


def first_line_of(text: str) -> str:
    """The first line of a generated text, without control characters."""
    lines = [line for line in text.splitlines() if line.strip()]
    return "".join(c for c in lines[0] if c.isprintable()).strip()[:70] if lines else "(nothing)"


def read(name: str, argv: Sequence[str]) -> tuple[Recipe, Place]:
    """Parse the flags of the recipe ``name``."""
    settings, place = read_settings(name, argv, f"ilu unlearn {name}", Place)
    return build(name, settings), place


def read_settings(
    name: str, argv: Sequence[str], prog: str, place: type
) -> tuple[dict[str, Any], Any]:
    """The settings for ``build`` from the flags of the recipe ``name``, and a ``place``."""
    given = flags(argv, "--model")
    known = defaults(
        name,
        given[-1] if given else "",
        published="--published" in argv,
        adapters=flags(argv, "--lora-rank")[-1:] not in ([], ["0"]),
    )
    kind = flag_type(name, given[-1] if given else "", known, place)
    idle = () if parse_name(name).environment else field_names(Invariance)
    values: Any = parse(
        kind, prog, argv, groups=GROUPS, basic=shown_first(name, place), head={"recipe": name},
        omitted=idle,
    )  # fmt: skip
    parts = {k: v for k, v in vars(values).items() if k not in ("place", "trial")}
    settings = {k: v for part in parts.values() for k, v in vars(part).items()}
    if not parse_name(name).environment and not flags(argv, "--strength"):
        del settings["strength"]
    if flags(argv, "--steps") and not flags(argv, "--passes"):
        settings["passes"] = None
    settings = {k: v for k, v in settings.items() if v != ()}
    if values.trial.tiny:
        out: Path = values.place.out
        settings = shrink({**defaults(name, settings["model"]), **settings}, trial_folder(out))
    return settings, values.place


PENALTY = ("environment", "strength", "reading")
"""The settings of the penalty that --help shows."""
SWEEP = (
    "grid", "attack", "attack_steps", "attack_lr", "search", "trials", "goal", "executor",
    "workers",
)  # fmt: skip
"""The settings of a sweep that --help shows."""
SINGLE = ("seed", "lora_rank", "mask", "resume")
"""The settings of one run that the help of a sweep leaves out: a grid varies most of them."""


def shown_first(name: str, place: type) -> list[str]:
    """The settings in the short help of a recipe: those most used, and its own."""
    found = parse_name(name)
    own = [*declared_methods()[found.method].settings]
    own += declared_endings()[found.robust].settings if found.robust else ()
    if found.stage:
        own += [*declared_stages()[found.stage].settings, "distil"]
    own += PENALTY if found.environment else ()
    if place is SweepFlags:
        return [*(name for name in BASIC if name not in SINGLE), *own, *SWEEP]
    return [*BASIC, *own]


def trial_folder(out: Path) -> Path:
    """Where model and data of a trial are kept."""
    return out.with_name(f"{out.name}-tiny").resolve()


def flag_type(name: str, model: str, known: Mapping[str, Any], place: type) -> type:
    """One dataclass whose fields are groups of flags, with the defaults ``known``."""
    found = parse_name(name)
    recipe = methods()[found.method].recipe
    groups = {"common": with_defaults(Common, {"model": model or dataclasses.MISSING, **known})}
    groups["optim"] = with_defaults(Optim, known)
    groups["method"] = with_defaults(arguments_type(recipe), known)
    groups["invariance"] = with_defaults(Invariance, known)
    if found.robust:
        groups["robust"] = with_defaults(endings()[found.robust].settings, known)
    if found.stage:
        groups["stage"] = with_defaults(stages()[found.stage].settings, known)
        groups["distilled"] = with_defaults(Distilled, known)
    fields = [(k, type(v), dataclasses.field(default=v)) for k, v in groups.items()]
    where = ("place", place, dataclasses.field())
    trial = ("trial", Trial, dataclasses.field(default=Trial()))
    flags = dataclasses.make_dataclass("Flags", [where, trial, *fields], frozen=True, kw_only=True)
    flags.__doc__ = (inspect.getdoc(recipe) or "").split("\n")[0]
    return flags


def arguments_type(recipe: Callable[..., Any]) -> type:
    """The arguments of a method as a dataclass, which is what flags are made from."""
    arguments = inspect.signature(recipe, eval_str=True).parameters
    fields = [
        (k, annotation(p), dataclasses.field(default=p.default)) for k, p in arguments.items()
    ]
    made = dataclasses.make_dataclass("Method", fields, frozen=True, kw_only=True)
    made.__doc__ = inspect.getdoc(recipe)
    return made


def annotation(argument: inspect.Parameter) -> Any:
    """The type of an argument; without an annotation, that of its default."""
    named = argument.annotation is not argument.empty
    return argument.annotation if named else type(argument.default)


def with_defaults(kind: type, known: Mapping[str, Any]) -> Any:
    """An instance of a settings class with the defaults of a recipe."""
    return kind(**{f.name: known[f.name] for f in dataclasses.fields(kind) if f.name in known})


def summarise(out: RunDir) -> None:
    """Say what was measured and where the model is."""
    stored = out.scores("after")
    forget = forget_metric(out.read("recipe"), stored)
    before, after = displayed(out.scores("before"), forget), displayed(stored, forget)
    rows = [
        (name, number(before[name].value), number(s.value), error(s), str(s.n))
        for name, s in after.items()
    ]
    table(out.name, ("metric", "before", "after", "± s.e.", "n"), rows)
    console.print(f"model: {out.path / 'model'}", markup=False, soft_wrap=True)
