"""What can be had from a model without touching its weights, as probes of a run and as a suite."""

from collections.abc import Sequence
from dataclasses import replace

from ilu.attacks.prompting.latent import LatentShift
from ilu.attacks.prompting.linear_probe import LinearProbe
from ilu.attacks.prompting.logit_lens import LogitLens
from ilu.attacks.prompting.prompts import FewShotChoice, Prefilled, Recovered, Reworded, Wordings
from ilu.attacks.prompting.sampling import Sampling
from ilu.attacks.prompting.suffix import Budget, Suffix
from ilu.data.multiple_choice import ChoiceRows
from ilu.data.splits import OtherQuestions, SampledQuestions
from ilu.lab.sources import Facts, Form
from ilu.recipes.suite_request import SuiteRequest
from ilu.recipes.user_data import column_names, full
from ilu.types import Group, Questions

EVERY = "all"
FEW, SOME, MANY = 12, 40, 400
"""Training questions: of attacks by gradient, of a choice among few, of a fit."""
BEGINNINGS = (" The answer is", " I know this one:", " It is")
"""What an answer is begun with."""
LAB_SUFFIX = Budget(tokens=2, steps=12, candidates=16)
"""On so small a model every further token does more harm than search can mend."""
LAB_FORMS: tuple[Form, ...] = ("reworded", "cloze", "told", "record")


def lab(count: int = 100, seed: int = 0) -> dict[str, Group]:
    """Attacks on ``count`` questions about agents, learned from questions about other facts."""
    whole, solved = Facts("agents"), SampledQuestions(Facts("people"), SOME)
    found = attacks(whole, count, solved, between=" ", budget=LAB_SUFFIX, seed=seed)
    forms = [Facts("agents", form) for form in LAB_FORMS]
    asked = tuple(SampledQuestions(form, count) for form in forms)
    train = tuple(OtherQuestions(form, count, SOME) for form in forms)
    return {**found, "reworded": Wordings("reworded", asked, train)}


def probes(
    request: SuiteRequest, names: Sequence[str] = (EVERY,), seed: int = 0
) -> dict[str, Group]:
    """The same as probes of a run: accuracies alone, without that of simply asking.

    ``names`` are those of the ways of asking, or ``all``.
    """
    ways = lab(request.limit or 100, seed) if request.data is None else users(request, seed)
    del ways["direct"]
    unknown = [name for name in names if name not in (*ways, EVERY)]
    if unknown:
        raise ValueError(f"no way of asking is called {unknown[0]!r}: {', '.join(ways)}, or all")
    wanted = ways if EVERY in names else names
    return {name: Recovered(ways[name]) for name in wanted}


def attacks(
    whole: Questions,
    count: int | None,
    solved: Questions,
    *,
    between: str = "\n\n",
    budget: Budget = Budget(),
    seed: int = 0,
) -> dict[str, Group]:
    """Every attack that needs nothing but questions; ``solved`` are shown with their answers."""
    asked = SampledQuestions(whole, count)
    few, some, many = (OtherQuestions(whole, count, most) for most in (FEW, SOME, MANY))
    begun, begun_train = (tuple(Prefilled(q, text) for text in BEGINNINGS) for q in (asked, some))
    return {
        "direct": Wordings("direct", (asked,)),
        "fewshot": Wordings("fewshot", (FewShotChoice(asked, solved, between=between),)),
        "prefilled": Wordings("prefilled", begun, begun_train),
        "suffix": Suffix(asked, few, replace(budget, seed=seed)),
        "lens": LogitLens(asked, some),
        "probe": LinearProbe(asked, many, seed=seed),
        "latent": LatentShift(asked, some, seed=seed),
        "sampling": Sampling(asked, seed=seed),
    }


def users(request: SuiteRequest, seed: int = 0) -> dict[str, Group]:
    """Attacks on half of the user's questions, learned from the other half.

    A column ``paraphrases`` with lists of other wordings adds the best of them. A linear probe
    needs answers that recur, so without letters there is none.
    """
    columns = column_names(request.columns)
    whole = ChoiceRows(full(request.data or ""), columns, request.limit, request.form)
    found = attacks(whole, None, OtherQuestions(whole, None, FEW), seed=seed)
    if request.form == "cloze":
        del found["probe"]
    return {**found, "reworded": Reworded(whole)}
