"""What a run needs of a cluster."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Declared to the scheduler, which decides by them how many runs share a node.

    Args:
        cpus: cores for each run.
        gpus: for each run; a fraction lets runs share one, where Ray allows it.
        memory: GiB for each run; 0 says nothing.
        hours: longest time of a job of Slurm; a run that needs more goes on in up to three others.
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
                f"{self.hours}: at least one core, nothing negative, some time"
            )
