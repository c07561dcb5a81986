"""What to measure a model by, chosen by name: one function and one row per suite."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from ilu.evals.choice import Choice
from ilu.evals.likelihood import AnswerNLL
from ilu.evals.muse import (
    Membership,
    Overlap,
    before_next_question,
    membership_auc,
    privleak,
)
from ilu.evals.tofu import Answers, among, closeness, forget_quality, model_utility
from ilu.evals.verbatim import Verbatim
from ilu.lab.sources import Facts, TaskTest
from ilu.lab.tasks import TASKS
from ilu.recipes.own import column_names, dataset, full
from ilu.sources.choice import ChoiceRows
from ilu.sources.known import place
from ilu.sources.muse import FewShot
from ilu.sources.text import Dataset
from ilu.sources.tofu import Perturbed
from ilu.suite import Suite
from ilu.types import Metric, check_limit

SuiteName = Literal["tofu", "muse", "choice", "lab", "likelihood", "verbatim"]
TofuSplit = Literal["forget01", "forget05", "forget10"]
MuseSplit = Literal["news", "books"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the user says of a suite's data; ``split`` chooses among those that a suite brings."""

    data: str | None = None
    columns: tuple[str, ...] = ()
    truncate: int | None = None
    limit: int | None = None
    split: str | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit)


def suite_of(name: SuiteName, asked: Asked) -> Suite:
    """The suite ``name`` on the data asked for."""
    brings_data = name in SPLITS or name == "lab"
    if brings_data and asked.data is not None:
        raise ValueError(f"the suite {name} brings its own data: leave --data out")
    if not brings_data and asked.data is None:
        raise ValueError(f"the suite {name} needs --data: a file or a hub dataset")
    splits = get_args(SPLITS.get(name))
    if asked.split is not None and asked.split not in splits:
        known = f"one of {', '.join(splits)}" if splits else "none: leave --split out"
        raise ValueError(f"the suite {name} has no split {asked.split!r}, it has {known}")
    return SUITES[name](asked)


def likelihood(asked: Asked) -> Suite:
    """Loss per answer token on the user's data."""
    return Suite({"nll": AnswerNLL(users(asked), asked.limit)})


def choice(asked: Asked) -> Suite:
    """Multiple choice on the user's data."""
    rows = ChoiceRows(full(asked.data or ""), column_names(asked.columns), asked.limit)
    return Suite({"accuracy": Choice(rows, batch_size=16)})


def verbatim(asked: Asked) -> Suite:
    """How much of the user's own texts comes back word for word."""
    return Suite({"verbatim": Verbatim(users(asked), asked.limit)})


def users(asked: Asked) -> Dataset:
    """The user's data."""
    return dataset(asked.data or "", asked.columns, asked.truncate)


def lab(asked: Asked) -> Suite:
    """What the lab's model knows of both domains, and how well it does the downstream tasks."""
    count = asked.limit
    facts: dict[str, Metric] = {
        "forget_accuracy": Choice(Facts("agents", count=count)),
        "utility": Choice(Facts("people", count=count)),
        "forget_cloze": Choice(Facts("agents", "cloze", count=count)),
        "utility_cloze": Choice(Facts("people", "cloze", count=count)),
    }
    tasks = {f"task_{t.name}": Choice(TaskTest(t.name, count or 200)) for t in TASKS}
    return Suite({**facts, **tasks})


def tofu(asked: Asked) -> Suite:
    """TOFU's table for one forget set; forget quality is added beside an oracle."""
    forget, retain, authors, facts = (
        perturbed(name, asked)
        for name in (asked.split or "forget10", "retain", "real_authors", "world_facts")
    )
    parts = {
        "forget": Answers("forget", forget, truth=closeness),
        "retain": Answers("retain", retain),
        "real_authors": Answers("real_authors", authors, among),
        "world_facts": Answers("world_facts", facts, among),
    }
    return Suite(parts, derived=model_utility, compared=forget_quality)


def perturbed(name: str, asked: Asked) -> Perturbed:
    """A set of TOFU with its wrong answers."""
    found = place(f"tofu:{name}_perturbed")
    return Perturbed(found.name, found.revision, asked.limit)


def muse(asked: Asked) -> Suite:
    """MUSE's metrics on one corpus; PrivLeak is added beside a retrained model."""
    corpus = asked.split or "news"

    def questions(about: str) -> FewShot:
        asks, shows = (place(f"muse:{corpus}:knowmem:{about}_{q}") for q in ("qa", "qa_icl"))
        return FewShot(asks.name, shows.name, asks.revision, asked.limit)

    def texts(config: str, split: str) -> Dataset:
        found = place(f"muse:{corpus}:{config}:{split}")
        return Dataset(found.name, {}, found.revision, truncate=asked.truncate, count=asked.limit)

    parts = {
        "verbmem": Overlap(texts("verbmem", "forget"), 128),
        "knowmem_forget": Overlap(questions("forget"), 32, before_next_question),
        "knowmem_retain": Overlap(questions("retain"), 32, before_next_question),
        "membership": Membership(texts("privleak", "forget"), texts("privleak", "holdout")),
    }
    return Suite(parts, derived=membership_auc, compared=privleak)


SPLITS = {"tofu": TofuSplit, "muse": MuseSplit}
"""Suites that bring their own data in several versions; the default is in the suite."""
SUITES: Mapping[SuiteName, Callable[[Asked], Suite]] = {
    "tofu": tofu,
    "muse": muse,
    "choice": choice,
    "lab": lab,
    "likelihood": likelihood,
    "verbatim": verbatim,
}
