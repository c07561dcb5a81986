"""What the user chooses of a suite: data, form, split and limits."""

from dataclasses import dataclass
from typing import Literal

from ilu.data.question_form import Form
from ilu.system.checks import check_at_least_one, check_limit


@dataclass(frozen=True, kw_only=True)
class SuiteRequest:
    """What the user chooses of a suite: data, form, split and limits.

    Args:
        split: forget set of tofu (forget01, forget05, or forget10 by default); corpus of muse
            (news by default, books); or news-scal or news-sust, which compare the original with
            models that unlearned growing sets, or one set after another, by the utility they keep;
            domain of wmdp (bio, cyber, chem) or one of the tasks (all by default).
        form: of multiple choice: letters, or cloze, which does not show the options.
        data: file or hub dataset, for the suites without data of their own.
        nonmembers: for the suite membership, texts that the model never saw.
        classifiers: for fluency and toxicity, text classifiers whose mean probability of a class is
            measured, as class=model, such as toxic=./judge: a folder or hub id. Predefined are
            toxic (unitary/toxic-bert, the default of toxicity) and clean (not gibberish).
        data_columns: renamed columns of the data, as standard=present.
        truncate: cut longer examples to this many tokens; for likelihood, verbatim, membership and
            muse.
        limit: use at most this many items of each set, spread over the set; for lab, a fixed
            random sample; for perplexity and lm-eval, the first ones.
        forget: for the suite facts, the facts that were forgotten, like facts:elements; without it
            and retain, every topic is measured in full.
        retain: for the suite facts, the facts that were kept; facts:rest if left out.
        known: for the suite facts, a model: use only facts that it answers rightly in more than
            half of the training wordings, by choice. Give the original, for every model the same.
        original: for the suite depth, the model before unlearning; lab if there is no data.
        batch_size: for lm-eval, a number, or auto for the largest that fits; 16 by default.
    """

    data: str | None = None
    nonmembers: str | None = None
    form: Form = "letters"
    data_columns: tuple[str, ...] = ()
    classifiers: tuple[str, ...] = ()
    truncate: int | None = None
    limit: int | None = None
    batch_size: int | Literal["auto"] | None = None
    split: str | None = None
    forget: str | None = None
    retain: str | None = None
    known: str | None = None
    original: str | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit)
        check_at_least_one("truncate", self.truncate)
