"""Many attacks in one process: memory and open files must not grow.

python -m tests.soak.memory --attacks 20 --steps 500 --out memory.json        (make soak)
"""

import argparse
import gc
import os
import resource
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ilu.attacks.finetune import FineTune
from ilu.data.stream import Feed
from ilu.lab.sources import TaskTrain
from ilu.models.load import load_model, set_weights
from ilu.system.atomic import write_json
from ilu.training.fit import Optim
from tests.conftest import make_tiny


def open_files() -> int:
    """Files that this process has open."""
    return len(os.listdir("/proc/self/fd"))


def resident() -> float:
    """MiB of memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def soak(attacks: int, steps: int, folder: Path) -> dict[str, Any]:
    """Attack a tiny model again and again from the same weights; measure after each attack."""
    tokenizer = load_model("lab").tokenizer
    make_tiny(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    lm = load_model(str(folder))
    attack = FineTune(Feed(TaskTrain("sums", 64), 2), Optim(lr=1e-3, steps=steps))
    memory: list[float] = []
    files: list[int] = []
    for _ in range(attacks):
        set_weights(lm.model, folder)
        attack(lm, reached=lambda stage: None, progress=lambda done, total: None)
        gc.collect()
        memory.append(round(resident(), 1))
        files.append(open_files())
    return {"steps": steps, "resident_mib": memory, "open_files": files}


def main(arguments: Sequence[str]) -> None:
    """Soak, and write what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--attacks", type=int, default=20)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = soak(asked.attacks, asked.steps, Path(folder))
    print(found)  # noqa: T201
    if asked.out:
        write_json(asked.out, found)
    settled = found["resident_mib"][min(2, asked.attacks - 1)]
    if found["resident_mib"][-1] > settled + 20 or found["open_files"][-1] > found["open_files"][0]:
        raise SystemExit("memory or open files grew")


if __name__ == "__main__":
    main(sys.argv[1:])
