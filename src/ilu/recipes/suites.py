"""What to measure a model by, chosen by name: one function and one row per suite."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal, get_args

from ilu.data.exams import Domain
from ilu.data.lm_eval import HarnessTasks
from ilu.data.muse import FewShot
from ilu.data.names import place
from ilu.data.text import Dataset
from ilu.data.tofu import Perturbed
from ilu.evals.metrics.fluency import Fluency
from ilu.evals.metrics.likelihood import AnswerNLL
from ilu.evals.metrics.lm_eval import Harness
from ilu.evals.metrics.membership import MembershipInference, reference_attack
from ilu.evals.metrics.multiple_choice import Choice
from ilu.evals.metrics.muse import (
    Membership,
    Overlap,
    before_next_question,
    membership_auc,
    privleak,
    utility_kept,
)
from ilu.evals.metrics.perplexity import DocumentPerplexity, StridedPerplexity
from ilu.evals.metrics.tofu import Answers, Replies, among, closeness, forget_quality, model_utility
from ilu.evals.metrics.verbatim import Verbatim
from ilu.evals.suite import Suite
from ilu.lab.sources import Facts, TaskTest
from ilu.lab.tasks import TASKS
from ilu.recipes.knowledge import TaskSplit, choice, mmlu, tasks, truthfulqa, wmdp
from ilu.recipes.probes import elicit
from ilu.recipes.suite_request import Asked, judges, passages, users
from ilu.recipes.user_data import dataset, full
from ilu.types import Group, Metric

SuiteName = Literal[
    "tofu", "muse", "wmdp", "mmlu", "truthfulqa", "tasks", "choice", "lab", "likelihood",
    "verbatim", "perplexity", "fluency", "toxicity", "membership", "lm-eval", "elicit",
]  # fmt: skip
TofuSplit = Literal["forget01", "forget05", "forget10"]
MuseSplit = Literal["news", "books", "news-scal", "news-sust"]


def suite_of(name: SuiteName, asked: Asked) -> Suite:
    """The suite ``name`` on the data asked for."""
    check_data(name, asked)
    splits = get_args(SPLITS.get(name))
    if asked.split is not None and asked.split not in splits:
        known = f"one of {', '.join(splits)}" if splits else "none: leave --split out"
        raise ValueError(f"the suite {name} has no split {asked.split!r}, it has {known}")
    if asked.form != "letters" and name not in FORMS:
        raise ValueError(f"the suite {name} has one form: --form is for {', '.join(FORMS)}")
    return SUITES[name](asked)


def check_data(name: SuiteName, asked: Asked) -> None:
    """Refuse data for a suite that brings its own, and ask for what the others need."""
    if brings_data(name) and asked.data is not None:
        raise ValueError(f"the suite {name} brings its own data: leave --data out")
    if not brings_data(name) and asked.data is None and name != "elicit":
        what = "names of tasks" if name == "lm-eval" else "a file or a hub dataset"
        raise ValueError(f"the suite {name} needs --data: {what}")
    if asked.classifiers and name not in ("fluency", "toxicity"):
        raise ValueError(f"the suite {name} asks no classifier: leave --classifiers out")
    if asked.batch_size is not None and name != "lm-eval":
        raise ValueError(f"the suite {name} sets its own batches: --batch-size is for lm-eval")
    if asked.truncate is not None and name not in CUT:
        raise ValueError(f"the suite {name} cuts nothing: --truncate is for {', '.join(CUT)}")
    if asked.columns and (asked.data is None or name == "lm-eval"):
        raise ValueError(f"the suite {name} reads columns that it knows: leave --columns out")
    if (name == "membership") != (asked.nonmembers is not None):
        raise ValueError("--nonmembers are texts never seen, and the suite membership needs them")


def brings_data(name: SuiteName) -> bool:
    """Whether a suite has data of its own."""
    return name in SPLITS or name in ("lab", "mmlu", "truthfulqa")


def likelihood(asked: Asked) -> Suite:
    """Loss per answer token on the user's data."""
    return Suite({"nll": AnswerNLL(users(asked), asked.limit)})


def perplexity(asked: Asked) -> Suite:
    """Perplexity of the user's text, in overlapping windows and by document and word."""
    texts = passages(asked, "text")
    words = DocumentPerplexity(texts, per="word")
    return Suite({"perplexity": StridedPerplexity(texts), "word_perplexity": words})


def fluency(asked: Asked) -> Suite:
    """How the model goes on after the user's prompts, if wanted in the eyes of classifiers."""
    return Suite({"fluency": Fluency(passages(asked, "prompt"), classifiers=judges(asked))})


def toxicity(asked: Asked) -> Suite:
    """The same with the probability, by a classifier, that what it writes is toxic."""
    asked = replace(asked, classifiers=asked.classifiers or ("toxic",))
    return Suite({"toxicity": Fluency(passages(asked, "prompt"), classifiers=judges(asked))})


def membership(asked: Asked) -> Suite:
    """Whether texts can be told to be from the training data; one attack needs a reference."""
    others = dataset(asked.nonmembers or "", asked.columns, asked.truncate)
    attacks = MembershipInference(users(asked), others, gradient=True, limit=asked.limit)
    return Suite({"membership": attacks}, compared=reference_attack)


def harness(asked: Asked) -> Suite:
    """Tasks of lm-evaluation-harness, named with commas between."""
    names = tuple(full(name.strip()) for name in (asked.data or "").split(","))
    size = asked.batch_size or Harness.batch_size
    return Suite({"lm_eval": Harness(HarnessTasks(names), asked.limit, size)})


def verbatim(asked: Asked) -> Suite:
    """How much of the user's own texts comes back word for word."""
    return Suite({"verbatim": Verbatim(users(asked), asked.limit)})


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
    parts: dict[str, Group] = {
        "forget": Answers("forget", forget, truth=closeness),
        "forget_replies": Replies("forget", forget),
        "retain": Answers("retain", retain),
        "retain_replies": Replies("retain", retain),
        "real_authors": Answers("real_authors", authors, among),
        "real_authors_replies": Replies("real_authors", authors),
        "world_facts": Answers("world_facts", facts, among),
        "world_facts_replies": Replies("world_facts", facts),
    }
    return Suite(parts, derived=model_utility, compared=forget_quality)


def perturbed(name: str, asked: Asked) -> Perturbed:
    """A set of TOFU with its wrong answers."""
    found = place(f"tofu:{name}_perturbed")
    return Perturbed(found.name, found.revision, asked.limit)


def muse(asked: Asked) -> Suite:
    """MUSE's metrics on one corpus; PrivLeak is added beside a retrained model.

    Of several models: what is kept as the sets grow (news-scal) or one follows another (news-sust).
    """
    corpus, _, series = (asked.split or "news").partition("-")

    def questions(about: str) -> FewShot:
        asks, shows = (place(f"muse:{corpus}:knowmem:{about}_{q}") for q in ("qa", "qa_icl"))
        return FewShot(asks.name, shows.name, asks.revision, asked.limit)

    def texts(config: str, split: str) -> Dataset:
        found = place(f"muse:{corpus}:{config}:{split}")
        return Dataset(found.name, {}, found.revision, truncate=asked.truncate, count=asked.limit)

    if series:
        return Suite(
            {
                "knowmem_retain": Overlap(questions("retain"), 32, before_next_question),
                **{f"forget_{i}_nll": AnswerNLL(texts(series, f"forget_{i}")) for i in range(1, 5)},
            },
            followed=utility_kept,
        )
    parts = {
        "verbmem": Overlap(texts("verbmem", "forget"), 128),
        "knowmem_forget": Overlap(questions("forget"), 32, before_next_question),
        "knowmem_retain": Overlap(questions("retain"), 32, before_next_question),
        "membership": Membership(texts("privleak", "forget"), texts("privleak", "holdout")),
    }
    return Suite(parts, derived=membership_auc, compared=privleak)


SPLITS = {"tofu": TofuSplit, "muse": MuseSplit, "wmdp": Domain, "tasks": TaskSplit}
"""Suites that bring their own data in several versions; the default is in the suite."""
CUT = ("likelihood", "verbatim", "membership", "muse")
"""Suites whose texts may be cut to a length."""
FORMS = ("wmdp", "mmlu", "choice", "elicit")
"""Suites that can be asked with and without showing the options."""
SUITES: Mapping[SuiteName, Callable[[Asked], Suite]] = {
    "tofu": tofu,
    "muse": muse,
    "wmdp": wmdp,
    "mmlu": mmlu,
    "truthfulqa": truthfulqa,
    "tasks": tasks,
    "choice": choice,
    "lab": lab,
    "likelihood": likelihood,
    "verbatim": verbatim,
    "perplexity": perplexity,
    "fluency": fluency,
    "toxicity": toxicity,
    "membership": membership,
    "lm-eval": harness,
    "elicit": elicit,
}
