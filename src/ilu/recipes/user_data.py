"""Recipes for the user's own model and data."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ilu.data.facts.selection import is_facts
from ilu.data.facts.sources import FactDocuments
from ilu.data.names import place
from ilu.data.splits import HeldOut, Trained
from ilu.data.stream import Feed
from ilu.data.text import Dataset
from ilu.evals.metrics.likelihood import AnswerNLL, HeldOutNLL
from ilu.types import Group, Metric


def dataset(name: str, columns: Sequence[str], truncate: int | None) -> Dataset | FactDocuments:
    """A file, hub dataset, short name or facts; ``columns`` are ``wanted=present`` pairs."""
    if is_facts(name):
        if columns:
            raise ValueError(f"{name} has columns that are known: leave `columns` out")
        return FactDocuments(name, truncate)
    source = place(full(name))
    return Dataset(
        source.name,
        column_names(columns),
        source.revision,
        truncate=truncate,
        count=source.rows,
        skip_blank=source.lines,
    )


def full(name: str) -> str:
    """A file by its full path, so that a run can be repeated from another folder."""
    return str(Path(name).resolve()) if Path(name).is_file() else name


def column_names(columns: Sequence[str]) -> dict[str, str]:
    """Read ``wanted=present`` pairs."""
    pairs = [c.partition("=") for c in columns]
    wrong = [c for c, (want, _, have) in zip(columns, pairs, strict=True) if not (want and have)]
    if wrong:
        raise ValueError(f"column {wrong[0]!r} is not of the form wanted=present, like text=body")
    return {want: have for want, _, have in pairs}


def metrics(data: Mapping[str, Feed], limit: int) -> dict[str, Metric | Group]:
    """Loss per answer token on every stream, and on what is held out of it.

    Multiple choice is ``ilu evaluate``'s.
    """
    found: dict[str, Metric | Group] = {}
    for name, feed in data.items():
        found[f"{name}_nll"] = AnswerNLL(feed.source, limit)
        if isinstance(feed.source, Trained):
            held_out = HeldOut(feed.source.source, feed.source.share)
            heldout = f"{name}_heldout_nll"
            found[heldout] = HeldOutNLL(heldout, held_out, limit)
    return found
