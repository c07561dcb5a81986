"""Attacks by prompts and activations, without weight changes, as probes of a run or as a suite."""

from collections.abc import Sequence
from dataclasses import replace

from ilu.attacks.prompting.ablation import Ablation
from ilu.attacks.prompting.latent import LatentShift
from ilu.attacks.prompting.linear_probe import LinearProbe
from ilu.attacks.prompting.logit_lens import LogitLens
from ilu.attacks.prompting.prompts import FewShotChoice, Prefilled, Recovered, Reworded, Wordings
from ilu.attacks.prompting.sampling import Sampling
from ilu.attacks.prompting.softprompt import SoftPrompt
from ilu.attacks.prompting.suffix import Budget, Suffix
from ilu.data.splits import OtherQuestions, SampledQuestions
from ilu.lab.sources import Facts, Form
from ilu.recipes.suite_data import choice_rows
from ilu.recipes.suite_request import SuiteRequest
from ilu.types import Group, Questions

EVERY, SOFT = "all", "softprompt"
FEW, SOME, MANY = 12, 40, 400
"""Numbers of training questions: for gradient attacks, for a choice among few, for a fit."""
BEGINNINGS = (" The answer is", " I know this one:", " It is")
"""Prefilled beginnings of an answer."""
LAB_SUFFIX = Budget(tokens=2, steps=12, candidates=16)
"""On this small model a longer suffix lowers accuracy more than the search can raise it."""
LAB_FORMS: tuple[Form, ...] = ("reworded", "cloze", "sentence", "record")


def lab(count: int = 100, seed: int = 0) -> dict[str, Group]:
    """Attacks on ``count`` questions about agents, learned from questions about other facts."""
    agents, solved = Facts("agents"), SampledQuestions(Facts("people"), SOME)
    groups = attacks(agents, count, solved, between=" ", budget=LAB_SUFFIX, seed=seed)
    forms = [Facts("agents", form) for form in LAB_FORMS]
    questions = tuple(SampledQuestions(form, count) for form in forms)
    train = tuple(OtherQuestions(form, count, SOME) for form in forms)
    own: dict[str, Group] = {
        "reworded": Wordings("reworded", questions, train),
        "ablate": Ablation(
            SampledQuestions(agents, count), OtherQuestions(agents, count, SOME), solved
        ),
    }
    return {**groups, **own}


def probes(
    request: SuiteRequest, names: Sequence[str] = (EVERY,), seed: int = 0
) -> dict[str, Group]:
    """The same as probes of a run: only their accuracies, without that of the plain question.

    ``names`` are names of attacks, or ``all``; ``softprompt:N`` has N vectors.
    """
    prompts = lab(request.limit or 100, seed) if request.data is None else users(request, seed)
    del prompts["direct"]
    prompts |= {name: sized(prompts[SOFT], name) for name in names if name.startswith(f"{SOFT}:")}
    unknown = [name for name in names if name not in (*prompts, EVERY)]
    if unknown:
        raise ValueError(f"unknown probe {unknown[0]!r}: choose {', '.join(prompts)}, or all")
    if len(soft := [name for name in names if name.partition(":")[0] == SOFT]) > 1:
        raise ValueError(f"{' and '.join(soft)}: one soft prompt at a time")
    chosen = prompts if EVERY in names else names
    return {name.partition(":")[0]: Recovered(prompts[name]) for name in chosen}


def sized(prompt: Group, name: str) -> SoftPrompt:
    """The soft prompt with the number of vectors in ``softprompt:N``."""
    assert isinstance(prompt, SoftPrompt)
    count = name.partition(":")[2]
    if not count.isdecimal():
        raise ValueError(f"{name!r}: give a number of vectors, as in softprompt:8")
    return replace(prompt, tokens=int(count))


def attacks(
    source: Questions,
    count: int | None,
    solved: Questions,
    *,
    between: str = "\n\n",
    budget: Budget = Budget(),
    seed: int = 0,
) -> dict[str, Group]:
    """Every attack that needs only questions; ``solved`` are the few-shot examples."""
    questions = SampledQuestions(source, count)
    few, some, many = (OtherQuestions(source, count, most) for most in (FEW, SOME, MANY))
    prefilled, train = (tuple(Prefilled(q, text) for text in BEGINNINGS) for q in (questions, some))
    return {
        "direct": Wordings("direct", (questions,)),
        "fewshot": Wordings("fewshot", (FewShotChoice(questions, solved, between=between),)),
        "prefilled": Wordings("prefilled", prefilled, train),
        "suffix": Suffix(questions, few, replace(budget, seed=seed)),
        "lens": LogitLens(questions, some),
        "probe": LinearProbe(questions, many, seed=seed),
        "latent": LatentShift(questions, some, seed=seed),
        "sampling": Sampling(questions, seed=seed),
        SOFT: SoftPrompt(questions, many, seed=seed),
    }


def users(request: SuiteRequest, seed: int = 0) -> dict[str, Group]:
    """Attacks on half of the user's questions, learned from the other half.

    A column ``paraphrases`` with lists of other wordings adds an attack that uses the best of them.
    A linear probe needs recurring answers, so there is none for cloze questions.
    """
    source = choice_rows(request)
    groups = attacks(source, None, OtherQuestions(source, None, FEW), seed=seed)
    if request.form == "cloze":
        del groups["probe"]
    return {**groups, "reworded": Reworded(source)}
