"""Suites by name, found by walking ``ilu.recipes.suites``, and what each of them accepts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import ilu.recipes.suites
from ilu.evals.suite import Suite
from ilu.recipes.suite_request import SuiteRequest
from ilu.system.discover import discovered
from ilu.system.errors import unknown


@dataclass(frozen=True)
class SuiteKind:
    """An entry of ``SUITES`` in a suite's file: how to build it, and what the user may choose.

    ``data``: ``user`` requires the user's data, ``own`` has its own data, ``optional`` has its own
    data and accepts the user's, ``tasks`` requires names of tasks. ``splits`` are versions of
    its own data. ``forms``: its questions exist with and without the options in the prompt.
    ``roles``: it measures what was forgotten and what was kept, of data of its own.
    ``original``: it compares with the model before unlearning.
    """

    build: Callable[[SuiteRequest], Suite]
    data: Literal["user", "own", "optional", "tasks"] = "user"
    splits: tuple[str, ...] = ()
    forms: bool = False
    truncates: bool = False
    columns: bool = True
    classifiers: bool = False
    nonmembers: bool = False
    batch_size: bool = False
    roles: bool = False
    original: bool = False


def suites() -> Mapping[str, SuiteKind]:
    """Every suite by its name."""
    return discovered(ilu.recipes.suites, "SUITES")


def suite_of(name: str, request: SuiteRequest) -> Suite:
    """The suite ``name`` on the data of the request."""
    kind = suite_kind(name)
    for refused in (check_data, check_choices):
        refused(name, kind, request)
    return kind.build(request)


def suite_kind(name: str) -> SuiteKind:
    """The entry of a suite; an unknown name raises ValueError with a suggestion."""
    known = suites()
    if name not in known:
        raise unknown("suite", name, known)
    return known[name]


def check_data(name: str, kind: SuiteKind, request: SuiteRequest) -> None:
    """ValueError for data that the suite does not read, or that it lacks."""
    if kind.data == "own" and request.data is not None:
        raise ValueError(f"the suite {name} has its own data: leave `data` out")
    if kind.data in ("user", "tasks") and request.data is None:
        what = "names of tasks" if kind.data == "tasks" else "a file or a hub dataset"
        raise ValueError(f"the suite {name} needs `data`: {what}")
    if request.data_columns and (request.data is None or not kind.columns):
        raise ValueError(f"the suite {name} has fixed columns: leave `data_columns` out")
    if kind.nonmembers != (request.nonmembers is not None):
        raise ValueError("`nonmembers` are unseen texts, which only the suite membership needs")


def check_choices(name: str, kind: SuiteKind, request: SuiteRequest) -> None:
    """ValueError for settings that the suite does not have."""
    if request.split is not None and request.split not in kind.splits:
        known = f"one of {', '.join(kind.splits)}" if kind.splits else "none: leave `split` out"
        raise ValueError(f"the suite {name} has no split {request.split!r}, it has {known}")
    every = suites()
    if request.form != "letters" and not kind.forms:
        those = ", ".join(n for n, k in every.items() if k.forms)
        raise ValueError(f"the suite {name} has one form: `form` is for {those}")
    if request.classifiers and not kind.classifiers:
        raise ValueError(f"the suite {name} has no classifier: leave `classifiers` out")
    if request.batch_size is not None and not kind.batch_size:
        raise ValueError(f"the suite {name} sets its own batches: `batch_size` is for lm-eval")
    if request.truncate is not None and not kind.truncates:
        those = ", ".join(n for n, k in every.items() if k.truncates)
        raise ValueError(f"the suite {name} does not truncate: `truncate` is for {those}")
    if request.original is not None and not kind.original:
        those = ", ".join(n for n, k in every.items() if k.original)
        raise ValueError(f"the suite {name} reads one model: `original` is for {those}")
    sets = {"forget": request.forget, "retain": request.retain, "known": request.known}
    roles = [setting for setting, given in sets.items() if given is not None]
    if roles and not kind.roles:
        those = ", ".join(n for n, k in every.items() if k.roles)
        raise ValueError(f"the suite {name} has no such sets: `{roles[0]}` is for {those}")
