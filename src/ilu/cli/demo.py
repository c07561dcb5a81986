"""``ilu demo``: unlearning and attacks on the lab, in minutes."""

from collections.abc import Mapping, Sequence
from typing import Any

from ilu.cli.arguments.demo import Demo, read
from ilu.cli.signals import interruptible
from ilu.cli.terminal import console, number, progress, table
from ilu.lab.world import CHANCE
from ilu.models.named import LAB
from ilu.recipes import demo as demo_lab
from ilu.recipes import demo_real
from ilu.runs.attack_stage import check_failures
from ilu.runs.recipe import Recipe
from ilu.runs.report.formats import write_report
from ilu.runs.results.display import COLUMNS, MEANINGS
from ilu.runs.results.summary import summarise, write_angles
from ilu.runs.run import Options, run
from ilu.system.atomic import write_json


def main(argv: Sequence[str]) -> None:
    """Carry out the command."""
    demo = read(argv)
    if demo.out.exists() and not demo.resume:
        raise ValueError(f"{demo.out} exists already: choose another --out, or add --resume")
    planned = planned_for(demo)
    with interruptible() as stop, progress(total=sum(map(steps, planned))) as shown:
        shared = demo.out / "shared" if demo.model != LAB else None
        options = Options(
            device=demo.device, resume=demo.resume, progress=shown, stop=stop, shared=shared
        )
        runs = [run(recipe, demo.out / recipe.name, options) for recipe in planned]
    for each in runs:
        check_failures(each)
        if planned[0].keep_attacked:
            write_angles(each, runs[0])
    summary = summarise(runs, chance=CHANCE)
    write_json(demo.out / "summary.json", summary)
    write_report([each.path for each in runs], demo.out / "report.html")
    show(summary, quick=demo.quick)
    console.print(f"report: {(demo.out / 'report.html').resolve()}", markup=False, soft_wrap=True)


def planned_for(demo: Demo) -> list[Recipe]:
    """The recipes of the demo of a model."""
    if demo.model == LAB:
        return demo_lab.recipes(demo.seed, demo_lab.QUICK if demo.quick else demo_lab.FULL)
    return demo_real.recipes(demo.seed, demo_real.QUICK if demo.quick else demo_real.FULL)


def steps(recipe: Recipe) -> int:
    """Training steps of a recipe and its attacks."""
    return recipe.optim.steps + sum(attack.steps for attack in recipe.attacks.values())


def show(summary: Mapping[str, Any], *, quick: bool) -> None:
    """Print the headline table with the definition of ``forgotten``."""
    models = summary["models"]
    columns = {k: name for k, name in COLUMNS.items() if all(k in m for m in models.values())}
    rows = [(name, *(number(model[key]) for key in columns)) for name, model in models.items()]
    table(f"forgotten: {MEANINGS['forgotten']}", ("model", *columns.values()), rows)
    if quick:
        console.print("--quick: too few steps; these numbers are not meaningful.")
