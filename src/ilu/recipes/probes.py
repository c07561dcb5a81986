"""Attacks by prompts and activations, without weight changes, as probes of a run or as a suite."""

from collections.abc import Sequence

from ilu.attacks.prompting.kind import ProbeInputs
from ilu.attacks.prompting.prompts import Recovered, Wordings
from ilu.attacks.registry import probe_kinds
from ilu.data.splits import OtherQuestions, SampledQuestions
from ilu.lab.sources import Facts, Form
from ilu.recipes.suite_data import choice_rows
from ilu.recipes.suite_request import SuiteRequest
from ilu.system.errors import unknown
from ilu.types import Group, Questions

EVERY = "all"
FEW, SOME, MANY = 12, 40, 400
"""Numbers of training questions: for gradient attacks, for a choice among few, for a fit."""
LAB_FORMS: tuple[Form, ...] = ("reworded", "cloze", "sentence", "record")


def lab(count: int = 100, seed: int = 0) -> dict[str, Group]:
    """Attacks on ``count`` questions about agents, learned from questions about other facts."""
    return with_direct(lab_inputs(count, seed), names_for(None))


def users(request: SuiteRequest, seed: int = 0) -> dict[str, Group]:
    """Attacks on half of the user's questions, learned from the other half."""
    return with_direct(users_inputs(request, seed), names_for(request))


def with_direct(inputs: ProbeInputs, names: Sequence[str]) -> dict[str, Group]:
    """The plain questions, then the attacks of these names."""
    direct = Wordings("direct", (inputs.questions,))
    return {"direct": direct, **{name: built(name, inputs) for name in names}}


def probes(
    request: SuiteRequest, names: Sequence[str] = (EVERY,), seed: int = 0
) -> dict[str, Group]:
    """The same as probes of a run: only their accuracies, without that of the plain question.

    ``names`` are names of attacks with their arguments, such as ``softprompt:8``, or ``all``.
    """
    own = request.data is None
    known = names_for(None if own else request)
    inputs = lab_inputs(request.limit or 100, seed) if own else users_inputs(request, seed)
    kinds = [check_name(name, known) for name in names if name != EVERY]
    if twice := [kind for i, kind in enumerate(kinds) if kind in kinds[:i]]:
        those = " and ".join(name for name in names if name.partition(":")[0] == twice[0])
        raise ValueError(f"{those}: one {twice[0]} at a time")
    chosen = [name for name in known if name not in kinds] if EVERY in names else []
    every = [*chosen, *(name for name in names if name != EVERY)]
    return {name.partition(":")[0]: Recovered(built(name, inputs)) for name in every}


def check_name(name: str, known: Sequence[str]) -> str:
    """The kind of an attack; ValueError for an unknown one or for an unread argument."""
    kind, colon, _ = name.partition(":")
    if kind not in known:
        raise unknown("probe", kind, [*known, EVERY])
    if colon and not probe_kinds()[kind].argument:
        raise ValueError(f"probe {name!r}: leave out what follows the colon")
    return kind


def built(name: str, inputs: ProbeInputs) -> Group:
    """The attack of that name."""
    kind, _, argument = name.partition(":")
    try:
        return probe_kinds()[kind].build(inputs, argument)
    except ValueError as error:
        raise ValueError(f"probe {name!r}: {error}") from None


def names_for(request: SuiteRequest | None) -> list[str]:
    """The attacks on the user's questions, or on the lab's without a request."""
    kinds = probe_kinds().items()
    if request is None:
        return [name for name, _ in kinds]
    cloze = request.form == "cloze"
    return [name for name, kind in kinds if not (kind.only_lab or (kind.letters and cloze))]


def lab_inputs(count: int, seed: int) -> ProbeInputs:
    """Questions about agents; those about people are solved."""
    forms = [Facts("agents", form) for form in LAB_FORMS]
    wordings = (
        tuple(SampledQuestions(form, count) for form in forms),
        tuple(OtherQuestions(form, count, SOME) for form in forms),
    )
    solved = SampledQuestions(Facts("people"), SOME)
    few, some, many = others(Facts("agents"), count)
    return ProbeInputs(
        questions=SampledQuestions(Facts("agents"), count), few=few, some=some, many=many,
        solved=solved, between=" ", wordings=wordings, seed=seed,
    )  # fmt: skip


def users_inputs(request: SuiteRequest, seed: int) -> ProbeInputs:
    """One half of the user's questions, and the other half to learn from."""
    source = choice_rows(request)
    few, some, many = others(source, None)
    return ProbeInputs(
        questions=SampledQuestions(source, None), few=few, some=some, many=many, solved=few,
        rows=source, seed=seed,
    )  # fmt: skip


def others(source: Questions, count: int | None) -> tuple[OtherQuestions, ...]:
    """Training questions in the three numbers."""
    return tuple(OtherQuestions(source, count, most) for most in (FEW, SOME, MANY))
