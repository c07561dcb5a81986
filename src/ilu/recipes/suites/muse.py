"""MUSE (arXiv 2407.06460)."""

from typing import Literal, get_args

from ilu.data.muse import FewShot
from ilu.data.names import place
from ilu.data.text import Dataset
from ilu.evals.metrics.likelihood import AnswerNLL
from ilu.evals.metrics.muse import (
    Membership,
    Overlap,
    before_next_question,
    membership_auc,
    privleak,
    utility_kept,
)
from ilu.evals.suite import Suite
from ilu.recipes.suite import SuiteKind
from ilu.recipes.suite_request import SuiteRequest

Corpus = Literal["news", "books", "news-scal", "news-sust"]


def muse(request: SuiteRequest) -> Suite:
    """MUSE on one corpus: VerbMem, KnowMem, membership; PrivLeak needs a retrained model.

    The splits news-scal and news-sust compare several models: after unlearning of growing sets, or
    of one set after another.
    """
    corpus, _, series = (request.split or "news").partition("-")

    def questions(about: str) -> FewShot:
        asks, shows = (place(f"muse:{corpus}:knowmem:{about}_{q}") for q in ("qa", "qa_icl"))
        return FewShot(asks.name, shows.name, asks.revision, request.limit)

    def texts(config: str, split: str) -> Dataset:
        source = place(f"muse:{corpus}:{config}:{split}")
        return Dataset(
            source.name, {}, source.revision, truncate=request.truncate, count=request.limit
        )

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


SUITES = {"muse": SuiteKind(muse, data="own", splits=get_args(Corpus), truncates=True)}
