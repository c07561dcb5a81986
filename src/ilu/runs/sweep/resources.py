"""The resources of a run on a cluster."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Resources of each run, by which the scheduler places runs on nodes.

    Args:
        cpus: cores for each run.
        gpus: for each run; a fraction lets runs share one, where Ray allows it.
        memory: GiB for each run; 0 leaves it out.
        hours: time limit of a Slurm job; a longer run continues in up to three more jobs.
        partition: of Slurm.
    """

    cpus: int = 1
    gpus: float = 0.0
    memory: float = 0.0
    hours: float = 24.0
    partition: str | None = None

    def __post_init__(self) -> None:
        if self.cpus < 1 or self.gpus < 0 or self.memory < 0 or self.hours <= 0:
            raise ValueError(
                f"`cpus` {self.cpus} `gpus` {self.gpus} `memory` {self.memory} `hours` "
                f"{self.hours}: at least one core, no negative number, hours above 0"
            )
