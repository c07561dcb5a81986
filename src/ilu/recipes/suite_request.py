"""What the user chooses of a suite: data, form, split and limits."""

from dataclasses import dataclass
from typing import Literal

from ilu.data.question_form import Form
from ilu.system.checks import check_limit


@dataclass(frozen=True, kw_only=True)
class SuiteRequest:
    """What the user chooses of a suite: data, form, split and limits.

    Args:
        split: forget set of tofu (forget01, forget05, forget10 if left out), corpus of muse
            (news if left out, books), or news-scal or news-sust, where models that unlearned larger
            sets, or one set after another, follow the original and keep a share of its utility;
            domain of wmdp (bio, cyber, chem) or one of the tasks (all if left out).
        form: of multiple choice: letters, or cloze, which does not show the options.
        data: file or hub dataset for the suites that bring none.
        nonmembers: for the suite membership, texts that the model never saw.
        classifiers: for fluency and toxicity, text classifiers whose mean probability of a class is
            measured, as class=model, such as toxic=./judge: a folder or hub id. The names toxic
            (unitary/toxic-bert, if left out for toxicity) and clean (not gibberish) are known.
        columns: names of columns that differ, as wanted=present.
        truncate: cut longer examples to this many tokens; for likelihood, verbatim, membership and
            muse.
        limit: use at most so many items of each set: the first, but of wmdp, mmlu, truthfulqa,
            tasks, lab and facts a random draw from the whole, the same every time.
        forget: for the suite facts, the facts that were forgotten, like facts:elements; without it
            and retain, every topic is measured as a whole.
        retain: for the suite facts, the facts that were kept; facts:rest if left out.
        known: for the suite facts, a model: use only facts that it answers rightly in more than
            half of the training wordings, by choice. Give the original, for every model the same.
        batch_size: of lm-eval, a number or auto, which tries what fits a GPU; 16 if left out.
    """

    data: str | None = None
    nonmembers: str | None = None
    form: Form = "letters"
    columns: tuple[str, ...] = ()
    classifiers: tuple[str, ...] = ()
    truncate: int | None = None
    limit: int | None = None
    batch_size: int | Literal["auto"] | None = None
    split: str | None = None
    forget: str | None = None
    retain: str | None = None
    known: str | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit)
