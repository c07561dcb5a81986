"""Facts of common knowledge: what was forgotten, and what was kept without being trained on."""

from ilu.data.facts.selection import Selection, full_name, selections
from ilu.data.facts.sources import FactItems
from ilu.data.facts.topics import topic_names
from ilu.evals.metrics.facts import CHANCE, FactScores, KnownItems
from ilu.evals.metrics.known_facts import KnownFacts
from ilu.evals.score import mean_score
from ilu.evals.statistics import wilson
from ilu.evals.suite import Scores, Suite
from ilu.models.named import full_name as full_model
from ilu.recipes.facts_data import others, retained
from ilu.recipes.suite import SuiteKind
from ilu.recipes.suite_request import SuiteRequest
from ilu.types import Score

FORGET, UTILITY, TRAINED, ALL = "forget", "utility", "trained", "facts"
"""Groups of facts: to forget; kept and not trained on; kept and trained on; all without roles."""
BY_CHOICE = "_accuracy"
KINDS = (BY_CHOICE, "_generated")
AT_CHANCE, BOTH = "_at_chance", "_at_chance_in_both"


def facts(request: SuiteRequest) -> Suite:
    """Accuracy by choice and by generation, for each topic and for each group of topics.

    With a topic to forget, the facts to keep are divided into those that were trained on and those
    that were not, on which utility is measured.
    """
    groups = roles(request) if request.forget or request.retain else {ALL: every_topic()}
    parts = {
        f"{group}_{each.topic}": FactScores(f"{group}_{each.topic}", items(each, request))
        for group, chosen in groups.items()
        for each in chosen
    }
    return Suite(parts, derived=pooled, compared=at_chance_in_both)


def every_topic() -> list[Selection]:
    """All facts."""
    return [Selection(topic, "all") for topic in topic_names()]


def roles(request: SuiteRequest) -> dict[str, list[Selection]]:
    """The parts of topics in each group, for the data that the model was trained on."""
    forget = selections(request.forget) if request.forget else ()
    names = [request.forget] if request.forget else []
    trained = retained(request.retain or "facts:rest", names)
    return {FORGET: list(forget), UTILITY: others(trained), TRAINED: list(trained)}


def items(each: Selection, request: SuiteRequest) -> FactItems | KnownItems:
    """The facts of a part of a topic that are used."""
    found = FactItems(full_name([each]), request.limit)
    if request.known is None:
        return found
    return KnownItems(found, KnownFacts(found.name, full_model(request.known)))


def pooled(scores: Scores) -> Scores:
    """Each group's mean over the facts of its topics, and what is not above chance."""
    found: dict[str, Score] = {}
    for group in (FORGET, UTILITY, TRAINED, ALL):
        for kind in KINDS:
            name = UTILITY if (group, kind) == (UTILITY, BY_CHOICE) else f"{group}{kind}"
            values = facts_of(scores, group, kind)
            found |= {name: mean_score(values)} if values else {}
    return {**found, **marked({**scores, **found}, AT_CHANCE)}


def facts_of(scores: Scores, group: str, kind: str) -> list[float | None]:
    """The value of each fact of a group."""
    names = (f"{group}_{topic}{kind}" for topic in topic_names())
    return [value for name in names if name in scores for value in scores[name].items]


def marked(scores: Scores, mark: str) -> dict[str, Score]:
    """A score of 1 for every topic whose accuracy by choice is not above chance."""
    return {
        f"{name.removesuffix(BY_CHOICE)}{mark}": Score(1.0, 0.0, score.n)
        for name, score in scores.items()
        if name.endswith(BY_CHOICE) and not above_chance(score)
    }


def above_chance(score: Score) -> bool:
    """Whether the 95 % interval of an accuracy among four options lies above that of guessing."""
    return wilson(score.value, score.n)[0] > CHANCE


def at_chance_in_both(scores: Scores, reference: Scores) -> Scores:
    """A score of 1 for every topic that neither the model nor the reference knows."""
    own, other = marked(scores, BOTH), marked(reference, BOTH)
    return {name: score for name, score in own.items() if name in other}


SUITES = {"facts": SuiteKind(facts, data="own", roles=True)}
