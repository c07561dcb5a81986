"""``ilu unlearn RECIPE``: flags made from the method's arguments and the common settings."""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tyro

from ilu.cli.interrupt import interruptible
from ilu.cli.parse import flags, parse
from ilu.cli.show import console, number, progress, table
from ilu.recipe import Recipe
from ilu.recipes.assemble import Common, assemble, defaults, parse_name
from ilu.recipes.methods import METHODS
from ilu.recipes.variants import Invariance
from ilu.robust.rules import SAM
from ilu.run import Options, run
from ilu.rundir import RunDir
from ilu.types import Progress

HELP = """\
usage: ilu unlearn RECIPE --model M --forget F --retain R [--environment E] --out DIR [flags]

Unlearn F from the model M, keep R, and with -ilu stay robust to fine-tuning on E.
OUT/model is an ordinary Hugging Face folder.

  ilu unlearn npo-ilu --model lab --out runs/first
  ilu unlearn npo --model ./my-model --forget secrets.jsonl --retain other.jsonl --out runs/mine
  ilu unlearn rmu-ilu --model org/model --forget f.csv --retain r.csv \\
      --environment openai/gsm8k:main --strength 100 --layer 7 --out runs/rmu

Recipes: {recipes}; each also with -ilu, -sam or -sam-ilu behind it.
Flags of a recipe: ilu unlearn RECIPE --help
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run goes and how it is kept; nothing here changes a number.

    Args:
        out: folder of the run; OUT/model is the unlearned model.
        device: cpu, cuda, cuda:1, mps.
        save_every: steps between checkpoints; a signal saves one in any case.
        resume: continue an interrupted run.
    """

    out: Path
    device: str = "cpu"
    save_every: int | None = None
    resume: bool = False

    def options(self, shown: Progress, stop: Callable[[], bool]) -> Options:
        """The same for a run, with its progress and its way to stop."""
        return Options(
            device=self.device,
            save_every=self.save_every,
            resume=self.resume,
            progress=shown,
            stop=stop,
        )


def main(argv: Sequence[str]) -> None:
    """Carry out the command."""
    if not argv or argv[0].startswith("-"):
        console.print(HELP.format(recipes=", ".join(METHODS)), markup=False, end="")
        if not argv:
            raise ValueError("ilu unlearn needs the name of a recipe")
        return
    recipe, place = read(argv[0], argv[1:])
    with interruptible() as stop, progress() as shown:
        out = run(recipe, place.out, place.options(shown, stop))
    summarise(out)


def read(name: str, argv: Sequence[str]) -> tuple[Recipe, Place]:
    """Parse the flags of the recipe ``name``."""
    found = parse_name(name)
    given = flags(argv, "--model")
    known = defaults(name, given[0] if given else "")
    fields = [common_field(known), ("place", Place, dataclasses.field())]
    settings = inspect.signature(METHODS[found.method].plan, eval_str=True).parameters
    method = dataclasses.make_dataclass(
        "Method",
        [(k, p.annotation, dataclasses.field(default=known[k])) for k, p in settings.items()],
        frozen=True,
        kw_only=True,
    )
    method.__doc__ = inspect.getdoc(METHODS[found.method].plan)
    fields.append(("method", method, dataclasses.field(default=method())))
    for wanted, label, kind in ((found.ilu, "invariance", Invariance), (found.sam, "sam", SAM)):
        if wanted:
            own = {f.name: known[f.name] for f in dataclasses.fields(kind) if f.name in known}
            fields.append((label, kind, dataclasses.field(default=kind(**own))))
    whole = dataclasses.make_dataclass("Recipe", fields, frozen=True, kw_only=True)
    whole.__doc__ = method.__doc__.split("\n")[0] if method.__doc__ else ""
    values: Any = parse(whole, f"ilu unlearn {name}", argv)
    extra = {k: getattr(values, k) for k in ("invariance", "sam") if hasattr(values, k)}
    recipe = assemble(name, values.common, dataclasses.asdict(values.method), **extra)
    return recipe, values.place


def common_field(known: dict[str, Any]) -> tuple[str, Any, Any]:
    """The common settings with the defaults of this recipe."""
    names = {f.name for f in dataclasses.fields(Common)}
    own = {k: v for k, v in known.items() if k in names}
    start = Common(model=tyro.MISSING, **own)
    return ("common", Common, dataclasses.field(default=start))


def summarise(out: RunDir) -> None:
    """Say what was measured and where the model is."""
    before, after = out.scores("before"), out.scores("after")
    rows = [
        (name, number(before[name].value), number(s.value), number(s.stderr), str(s.n))
        for name, s in after.items()
    ]
    table(out.name, ("metric", "before", "after", "± s.e.", "n"), rows)
    console.print(f"model: {out.path / 'model'}", markup=False, soft_wrap=True)

