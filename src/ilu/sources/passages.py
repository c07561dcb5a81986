"""Running text: the rows of a dataset as they are, for what is not cut into examples."""

from dataclasses import dataclass
from itertools import islice

from ilu.scores import check_limit
from ilu.sources.hub import find_rows
from ilu.sources.shapes import peeked


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
        first, rows = peeked(find_rows(self.name, self.revision).read())
        if self.column not in first:
            have = ", ".join(first)
            raise ValueError(f"{self.name} has the columns {have}; wanted: {self.column}")
        texts = (str(row.get(self.column) or "") for row in rows)
        found = list(islice((text for text in texts if text.strip()), self.limit))
        if not found:
            raise ValueError(f"{self.name}: every row of the column {self.column} is blank")
        return found
