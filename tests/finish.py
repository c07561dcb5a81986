"""The end of a run in each of several processes, a hundred times; started by torchrun."""

import sys
from pathlib import Path

from ilu.cli.carry_out import finished_by_leader
from ilu.system.atomic import write_text
from ilu.system.distributed import joined

TIMES = 100
TEXT = "a line of the card\n" * 2000


def main(folder: Path) -> None:
    """Write a card in each round, and check in every process that it is there and complete."""
    written: list[Path] = []

    def finish(path: Path) -> None:
        write_text(path / "README.md", TEXT)
        written.append(path)

    with joined(shard=False) as ranks:
        for i in range(TIMES):
            finished_by_leader(ranks, folder / str(i), finish)
            assert (folder / str(i) / "README.md").read_text() == TEXT
            assert not (folder / str(i) / "README.md.partial").exists()
        assert len(written) == (TIMES if ranks.leads else 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
