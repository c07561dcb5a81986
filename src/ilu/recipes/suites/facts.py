"""Facts of common knowledge: what was forgotten, and what was kept without being trained on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ilu.data.facts.selection import PREFIX, REST, Selection, full_name, selections
from ilu.data.facts.sources import FactDocuments, FactItems
from ilu.data.facts.topics import topic_names
from ilu.evals.metrics.facts import CHANCE, FactScores, KnownItems
from ilu.evals.metrics.known_facts import KnownFacts
from ilu.evals.score import mean_score
from ilu.evals.statistics import wilson
from ilu.evals.suite import Scores, Suite
from ilu.models.named import full_name as full_model
from ilu.recipes.facts_data import others, retained
from ilu.recipes.free_text import of_documents
from ilu.recipes.suite import SuiteKind
from ilu.recipes.suite_request import SuiteRequest
from ilu.system.scores import Score

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
    kept = f"{PREFIX}{','.join(topic_names())}"
    if request.forget is None and request.retain is None:
        sets = {ALL: by_topic(ALL, [Selection(topic, "all") for topic in topic_names()])}
    else:
        names = [request.forget] if request.forget else []
        forget = selections(request.forget) if request.forget else ()
        trained = retained(request.retain or f"{PREFIX}{REST}", names)
        sets = {FORGET: by_topic(FORGET, forget), UTILITY: by_topic(UTILITY, others(trained))}
        sets[TRAINED] = {TRAINED: full_name(trained)} if trained else {}
        kept = full_name(trained) if trained else kept
    items = {
        name: FactItems(facts_of, request.limit)
        for group in sets.values()
        for name, facts_of in group.items()
    }
    groups = {group: tuple(sets[group]) for group in sets if group != TRAINED}
    texts = of_documents(FactDocuments(kept), request.limit)
    return Suite(
        {**parts(items, request.known), **texts},
        derived=Pooled(groups),
        compared=at_chance_in_both,
    )


def by_topic(group: str, chosen: Sequence[Selection]) -> dict[str, str]:
    """The name of the scores of each part of a topic, and the name of its facts."""
    counts = Counter(each.topic for each in chosen)
    return {
        f"{group}_{each.topic}{f'_{each.part}' if counts[each.topic] > 1 else ''}": full_name(
            [each]
        )
        for each in chosen
    }


def parts(items: Mapping[str, FactItems], known: str | None) -> dict[str, FactScores]:
    """The metrics; with a model in ``known``, on the facts that it knows."""
    if known is None:
        return {name: FactScores(name, each) for name, each in items.items()}
    facts = KnownFacts(tuple(items.values()), full_model(known))
    return {name: FactScores(name, KnownItems(each, facts)) for name, each in items.items()}


@dataclass(frozen=True)
class Pooled:
    """The mean of each group over the facts of its topics, and what is not above chance."""

    groups: Mapping[str, tuple[str, ...]]

    def __call__(self, found: Scores) -> Scores:
        means: dict[str, Score] = {}
        for group, names in self.groups.items():
            for kind in KINDS if names else ():
                name = UTILITY if (group, kind) == (UTILITY, BY_CHOICE) else f"{group}{kind}"
                values = [value for each in names for value in found[each + kind].items]
                means[name] = mean_score(values)
        return {**means, **marked(found, AT_CHANCE)}


def marked(found: Scores, mark: str) -> dict[str, Score]:
    """A score of 1 for every topic whose accuracy by choice is not above chance."""
    return {
        f"{name.removesuffix(BY_CHOICE)}{mark}": Score(1.0, 0.0, score.n)
        for name, score in found.items()
        if name.endswith(BY_CHOICE) and not above_chance(score)
    }


def above_chance(score: Score) -> bool:
    """Whether the 95 % interval of an accuracy among four options lies above that of guessing."""
    return wilson(score.value, score.n)[0] > CHANCE


def at_chance_in_both(own: Scores, reference: Scores) -> Scores:
    """A score of 1 for every topic that neither the model nor the reference knows."""
    there = marked(reference, BOTH)
    return {name: score for name, score in marked(own, BOTH).items() if name in there}


SUITES = {"facts": SuiteKind(facts, data="own", roles=True)}
