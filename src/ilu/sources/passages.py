"""Running text: the rows of a dataset as they are, for what is not cut into examples."""

from dataclasses import dataclass

from ilu.scores import check_limit
from ilu.sources.hub import load_rows


@dataclass(frozen=True)
class Passages:
    """One column of a file or hub dataset, without blank rows."""

    name: str
    column: str = "text"
    revision: str | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit)

    def __call__(self) -> list[str]:
        rows = load_rows(self.name, self.revision)
        if self.column not in rows[0]:
            have = ", ".join(rows[0])
            raise ValueError(f"{self.name} has the columns {have}; wanted: {self.column}")
        found = [str(row[self.column]) for row in rows if str(row[self.column] or "").strip()]
        if not found:
            raise ValueError(f"{self.name}: every row of the column {self.column} is blank")
        return found[: self.limit]
