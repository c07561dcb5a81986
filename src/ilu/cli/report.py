"""``ilu report``, ``rerun`` and ``doctor``."""

import warnings
from collections.abc import Sequence

from ilu.cli.arguments.report import read_doctor, read_report, read_rerun
from ilu.cli.attack import show_stages
from ilu.cli.carry_out import carry_out
from ilu.cli.doctor import findings
from ilu.cli.terminal import console, table
from ilu.runs.attack_stage import check_failures
from ilu.runs.recipe import read_recipe
from ilu.runs.report.formats import write_report
from ilu.runs.run_dir import RunDir
from ilu.system.locks import alone
from ilu.system.record import differences


def report(argv: Sequence[str]) -> None:
    """Carry out ``ilu report``."""
    wanted = read_report(argv)
    if not wanted.runs:
        raise ValueError("ilu report needs at least one run directory")
    with alone(wanted.out):
        write_report(wanted.runs, wanted.out, wanted.against, wanted.usable)
    console.print(f"report: {wanted.out}", markup=False, soft_wrap=True)


def rerun(argv: Sequence[str]) -> None:
    """Carry out ``ilu rerun``."""
    wanted = read_rerun(argv)
    record = wanted.run / "recipe.json"
    if not record.is_file():
        raise ValueError(f"{wanted.run} is not a run directory: it has no recipe.json")
    recipe = read_recipe(record)
    out = carry_out(recipe, wanted.place)
    old, new = (RunDir(path).read("data") for path in (wanted.run, out.path))
    if changed := differences(old, new, "data"):
        warnings.warn(f"the data or the model has changed: {'; '.join(changed[:3])}", stacklevel=2)
    show_stages(out)
    check_failures(out)


def doctor(argv: Sequence[str]) -> None:
    """Carry out ``ilu doctor``."""
    read_doctor(argv)
    table("ilu doctor", ("item", "value"), list(findings().items()))
