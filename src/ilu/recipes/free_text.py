"""Utility that multiple choice does not show: perplexity, and whether the model still writes."""

from collections.abc import Mapping

from ilu.data.facts.selection import full_name, is_facts, selections
from ilu.data.facts.sources import FactItems, FactQuestions
from ilu.data.hub import local_rows
from ilu.data.splits import untrained
from ilu.data.stream import Feed
from ilu.data.text import Passages
from ilu.evals.metrics.degenerate import Degenerate
from ilu.evals.metrics.facts import FactReplies
from ilu.evals.metrics.perplexity import DocumentPerplexity, ExamplePerplexity
from ilu.recipes.facts_data import others
from ilu.types import Metric, Source

WIKITEXT = "Salesforce/wikitext:wikitext-2-raw-v1:validation"
PASSAGES = 24
"""Passages of WikiText, headings among them."""
DEGENERATE, PERPLEXITY, DOCUMENTS = "degenerate", "wikitext_perplexity", "documents_perplexity"
GENERATED = "utility_generated"
REPLIES, TEXTS = 40, 200
"""Most facts whose greedy reply is read in a run, and documents whose perplexity is measured."""


def wikitext() -> dict[str, Metric]:
    """Perplexity of WikiText-2's validation split, where it is on this machine."""
    try:
        found = local_rows(WIKITEXT)
    except (OSError, ValueError):
        found = None
    return {PERPLEXITY: DocumentPerplexity(Passages(WIKITEXT, limit=PASSAGES))} if found else {}


def of_documents(kept: Source, limit: int | None) -> dict[str, Metric]:
    """Perplexity of WikiText or else of retained documents, and their continuations."""
    known = wikitext() or {DOCUMENTS: ExamplePerplexity(kept, limit or TEXTS)}
    return {**known, DEGENERATE: Degenerate(kept)}


def of_run(data: Mapping[str, Feed], retain: str | None) -> dict[str, Metric]:
    """The same before and after a run that has data to keep, whose loss it measures in any case.

    Of facts to keep, the replies to questions on those that are not trained on.
    """
    if "retain" not in data:
        return {}
    kept = others(selections(retain)) if retain and is_facts(retain) else []
    questions = FactQuestions(FactItems(full_name(kept), REPLIES)) if kept else None
    replies = {GENERATED: FactReplies(questions)} if questions else {}
    return {**wikitext(), DEGENERATE: Degenerate(untrained(data["retain"].source)), **replies}
