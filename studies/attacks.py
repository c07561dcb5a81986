"""Which defence stands which attack? Every attack that edits weights, on the lab.

    python studies/attacks.py DIR [--seeds 3] [--workers 2] [--only NAME ...] [--quick]

RMU, NPO, SimNPO and GradDiff, each alone, with the invariance penalty, with SAM and with the
control (the environment's likelihood in place of the penalty); beside them the model that knows and
one that never knew, under the same attacks. Steps are the lab's own: forget quality is not matched,
so a method is to be read against its own control. DIR/report.html, .json and .md are written after
every run; the same command again does only what is missing.
"""

import argparse
from pathlib import Path

import torch

from ilu.files import write_json
from ilu.pool import run_all
from ilu.recipes.lab_attacks import FULL, NAMES, NEVER_KNEW, QUICK, jobs
from ilu.report.formats import write_report


def tell(paths: list[Path], failed: dict[str, str], out: Path) -> None:
    """Write what the finished runs say, the gap to the control as soon as there is one."""
    finished = [path for path in paths if (path / "done.json").is_file()]
    never = any(path.name.startswith(NEVER_KNEW) for path in finished)
    if finished:
        for ending in ("html", "json", "md"):
            write_report(finished, out / f"report.{ending}", NEVER_KNEW if never else None)
    write_json(out / "progress.json", {"done": len(finished), "of": len(paths), "failed": failed})


def main() -> None:
    """Carry out what is missing."""
    parser = argparse.ArgumentParser(description="Every defence under every attack on the lab.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=NAMES, default=NAMES)
    parser.add_argument("--quick", action="store_true", help="to try it: numbers mean nothing")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    size = QUICK if wanted.quick else FULL
    planned = jobs(tuple(wanted.only), wanted.seeds, size, wanted.out / "runs")
    failed: dict[str, str] = {}
    for outcome in run_all(planned, workers=wanted.workers):
        print(outcome.path.name, outcome.error or "done", flush=True)
        if outcome.error:
            failed[outcome.path.name] = outcome.error
        tell(list(planned), failed, wanted.out)


if __name__ == "__main__":
    main()
