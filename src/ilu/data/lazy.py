"""Examples that are made when they are read, where a list of them would fill the memory."""

from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import cast

from ilu.types import Example


@Sequence.register  # pyright: ignore[reportAttributeAccessIssue, reportUntypedClassDecorator]
@dataclass(frozen=True)
class View:
    """Example ``make(i)`` for each i of ``rows``; a part of a view is a view."""

    make: Callable[[int], Example]
    rows: range

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int | slice) -> "Example | View":
        return (
            replace(self, rows=self.rows[at]) if isinstance(at, slice) else self.make(self.rows[at])
        )

    def __iter__(self) -> Iterator[Example]:
        return map(self.make, self.rows)


def view(make: Callable[[int], Example], count: int) -> Sequence[Example]:
    """``count`` examples, each made when it is read."""
    return cast(Sequence[Example], View(make, range(count)))


def picked(examples: Sequence[Example], rows: Sequence[int]) -> Sequence[Example]:
    """Some of the examples, those of a view when they are read."""
    if isinstance(examples, View):
        return view(lambda i: examples[rows[i]], len(rows))
    return [examples[i] for i in rows]


def mapped(
    examples: Sequence[Example], change: Callable[[int, Example], Example]
) -> Sequence[Example]:
    """``change`` of the number and the example of each; of a view when it is read."""
    if isinstance(examples, View):
        return view(lambda i: change(i, examples[i]), len(examples))
    return [change(i, example) for i, example in enumerate(examples)]


def joined(parts: Sequence[Sequence[Example]]) -> Sequence[Example]:
    """All examples, one part after the other."""
    if not any(isinstance(part, View) for part in parts):
        return [example for part in parts for example in part]
    ends = list(accumulate(map(len, parts)))

    def at(i: int) -> Example:
        part = bisect(ends, i)
        return parts[part][i - ends[part]]  # counted from its end

    return view(at, ends[-1])
