"""``ilu unlearn RECIPE``: flags made from the method's arguments and the common settings."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from ilu.cli.flags import flags, parse
from ilu.cli.signals import interruptible
from ilu.cli.terminal import console, error, number, progress, table
from ilu.recipes.build import build, defaults
from ilu.recipes.dry_run import shrink
from ilu.recipes.names import explained_endings, parse_name
from ilu.recipes.registry import endings, methods
from ilu.recipes.robust import Invariance
from ilu.recipes.settings import Common
from ilu.runs.recipe import Recipe
from ilu.runs.report.card import missing_from_new_card, write_card
from ilu.runs.results.display import displayed
from ilu.runs.results.forget_metric import forget_metric
from ilu.runs.run import Options, run
from ilu.runs.run_dir import RunDir
from ilu.runs.tracking import Tracker, tracking
from ilu.system.distributed import joined
from ilu.training.fit import Optim

HELP = """\
usage: ilu unlearn RECIPE --model M --forget F --retain R [--environment E] --out DIR [flags]

Unlearn F from the model M, keep R, and with -ilu stay robust to fine-tuning on E.
OUT/model is an ordinary Hugging Face folder.

  ilu unlearn npo-ilu --model lab --out runs/first
  ilu unlearn npo --model ./my-model --forget secrets.jsonl --retain other.jsonl --out runs/mine
  ilu unlearn rmu-ilu --model org/model --forget f.csv --retain r.csv \\
      --environment openai/gsm8k:main --layer 7 --out runs/rmu

Recipes: {recipes}{endings}.
Flags of a recipe: ilu unlearn RECIPE --help; with --model lab the lab has its own defaults
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run goes and how it is kept; nothing here changes a number.

    Args:
        out: folder of the run; in it are OUT/model and, of attacks, OUT/attacks/NAME/model.
        device: cpu, cuda, cuda:1, mps.
        save_every: steps between checkpoints of the unlearning and of every attack that trains; a
            signal saves one in any case.
        resume: continue an interrupted run.
        track: follow the run live in this tracker (needs the tracker itself);
            trackio works without a network.
        shard: keep weights, gradients and optimiser state in parts on several processes (FSDP2).
    """

    out: Path
    device: str = "cpu"
    save_every: int | None = None
    resume: bool = False
    track: Tracker | None = None
    shard: bool = False

    def run(self, recipe: Recipe, shared: Path | None = None) -> RunDir:
        """Carry out ``recipe`` here, with progress bars, stopping when asked to.

        ``shared``: folder of what other runs have computed already, by content.
        """
        with (
            joined(shard=self.shard) as ranks,
            tracking(self.track if ranks.leads else None, recipe, self.out) as track,
            interruptible() as stop,
            progress() as shown,
        ):
            console.quiet = not ranks.leads
            options = Options(
                device=self.device,
                save_every=self.save_every,
                resume=self.resume,
                progress=shown,
                stop=stop,
                track=track,
                ranks=ranks,
                shared=shared,
            )
            run(recipe, self.out, options)
        return RunDir(self.out)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """To see whether a command works.

    Args:
        tiny: try it in miniature, without a network: a random model of two blocks of the same
            architecture, invented data with the same columns where no file is given, at most three
            steps. Model and data are kept in OUT-tiny.
    """

    tiny: bool = False


def main(argv: Sequence[str]) -> None:
    """Carry out the command."""
    if argv and argv[0] in ("-h", "--help"):
        console.print(
            HELP.format(recipes=", ".join(methods()), endings=explained_endings()),
            markup=False,
            end="",
        )
        return
    if not argv or argv[0].startswith("-"):
        raise ValueError(
            "ilu unlearn needs a recipe first: ilu unlearn RECIPE --model M; "
            f"one of {', '.join(methods())}"
        )
    recipe, place = read(argv[0], argv[1:])
    out = place.run(recipe)
    if not missing_from_new_card(
        out.path
    ):  # a finished run that is resumed may have a card with attacks by now
        write_card(out.path)
    summarise(out)


def read(name: str, argv: Sequence[str]) -> tuple[Recipe, Place]:
    """Parse the flags of the recipe ``name``."""
    settings, place = read_settings(name, argv, f"ilu unlearn {name}", Place)
    return build(name, settings), place


def read_settings(
    name: str, argv: Sequence[str], prog: str, place: type
) -> tuple[dict[str, Any], Any]:
    """The settings for ``build`` from the flags of the recipe ``name``, and a ``place`` beside."""
    given = flags(argv, "--model")
    values: Any = parse(flag_type(name, given[-1] if given else "", place), prog, argv)
    parts = {k: v for k, v in vars(values).items() if k not in ("place", "trial")}
    settings = {k: v for part in parts.values() for k, v in vars(part).items()}
    if not parse_name(name).environment and not flags(argv, "--strength"):
        del settings["strength"]
    settings = {k: v for k, v in settings.items() if v != ()}
    if values.trial.tiny:
        out: Path = values.place.out
        settings = shrink({**defaults(name, settings["model"]), **settings}, beside(out))
    return settings, values.place


def beside(out: Path) -> Path:
    """Where model and data of a trial are kept."""
    return out.with_name(f"{out.name}-tiny").resolve()


def flag_type(name: str, model: str, place: type) -> type:
    """One dataclass whose fields are groups of flags, with the defaults of this recipe."""
    found, known = parse_name(name), defaults(name, model)
    recipe = methods()[found.method].recipe
    # A flag that may be repeated adds to its default, which is therefore filled in later.
    known = {k: () if isinstance(v, tuple) else v for k, v in known.items()}
    groups = {"common": with_defaults(Common, {"model": model or tyro.MISSING, **known})}
    groups["optim"] = with_defaults(Optim, known)
    groups["method"] = with_defaults(arguments_type(recipe), known)
    groups["invariance"] = with_defaults(Invariance, known)
    if found.robust:
        groups["robust"] = with_defaults(endings()[found.robust].settings, known)
    fields = [(k, type(v), dataclasses.field(default=v)) for k, v in groups.items()]
    where = ("place", place, dataclasses.field())
    trial = ("trial", Trial, dataclasses.field(default=Trial()))
    whole = dataclasses.make_dataclass("Flags", [where, trial, *fields], frozen=True, kw_only=True)
    whole.__doc__ = (inspect.getdoc(recipe) or "").split("\n")[0]
    return whole


def arguments_type(recipe: Callable[..., Any]) -> type:
    """The arguments of a method as a dataclass, which is what flags are made from."""
    arguments = inspect.signature(recipe, eval_str=True).parameters
    fields = [(k, p.annotation, dataclasses.field(default=p.default)) for k, p in arguments.items()]
    made = dataclasses.make_dataclass("Method", fields, frozen=True, kw_only=True)
    made.__doc__ = inspect.getdoc(recipe)
    return made


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
