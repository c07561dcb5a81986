"""Which defence withstands which attack? Every attack that edits weights, on the lab.

    python -m studies.attacks.run DIR [--seeds 3] [--workers 2] [--only NAME ...] [--table PATH]

RMU, NPO, SimNPO and GradDiff, each alone, with the invariance penalty, with SAM and with the
control (the environment's likelihood in place of the penalty). For comparison the original model
and a model that was never trained on the forget set, under the same attacks. Steps are the lab's
own: ``forgotten`` is not matched, so compare a method with its own control. DIR/report.html is
written after every run, the numbers to the table and its .md; the same command again does only
what is missing.
"""

import argparse
import json
from pathlib import Path

import torch

from ilu.runs.report.formats import write_report
from ilu.runs.sweep.local import run_all
from ilu.system.atomic import write_json
from ilu.system.provenance import environment
from studies.attacks.cells import FULL, NAMES, NEVER_KNEW, QUICK, jobs

TABLE = Path(__file__).parents[2] / "results" / "attacks.json"


def write_results(paths: list[Path], failed: dict[str, str], out: Path, table: Path) -> None:
    """Write the results of the finished runs, with the gap to the control once it has a run."""
    finished = [path for path in paths if (path / "done.json").is_file()]
    never = any(path.name.startswith(NEVER_KNEW) for path in finished)
    if finished:
        for place in (out / "report.html", table.with_suffix(".md"), table):
            write_report(finished, place, NEVER_KNEW if never else None)
        found = table.read_text(encoding="utf-8").replace(f"{out}/", "DIR/")
        write_json(table, {"command": "python -m studies.attacks.run DIR", "planned": len(paths),
                           "environment": {**environment(), "argv": None}, "failed": failed,
                           **json.loads(found)})  # fmt: skip


def main() -> None:
    """Carry out what is missing."""
    parser = argparse.ArgumentParser(description="Every defence under every attack on the lab.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=NAMES, default=NAMES)
    parser.add_argument("--quick", action="store_true", help="to try it: numbers mean nothing")
    parser.add_argument("--table", type=Path, default=TABLE)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    size = QUICK if wanted.quick else FULL
    planned = jobs(tuple(wanted.only), wanted.seeds, size, wanted.out / "runs")
    old = {path for path in planned if (path / "done.json").is_file()}
    failed: dict[str, str] = {}
    for outcome in run_all(planned, workers=wanted.workers):
        print(outcome.path.name, outcome.error or "done", flush=True)
        if outcome.error:
            failed[outcome.path.name] = outcome.error
        if outcome.path not in old:
            write_results(list(planned), failed, wanted.out, wanted.table)
    write_results(list(planned), failed, wanted.out, wanted.table)


if __name__ == "__main__":
    main()
