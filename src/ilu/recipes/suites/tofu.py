"""TOFU (arXiv 2401.06121)."""

from typing import Literal, get_args

from ilu.data.names import place
from ilu.data.tofu import Perturbed
from ilu.evals.metrics.tofu import Answers, Replies, among, closeness, forget_quality, model_utility
from ilu.evals.suite import Suite
from ilu.recipes.suite import SuiteKind
from ilu.recipes.suite_request import SuiteRequest
from ilu.types import Group

ForgetSet = Literal["forget01", "forget05", "forget10"]


def tofu(request: SuiteRequest) -> Suite:
    """TOFU: probability, ROUGE, truth ratio and memorisation on four sets, and model utility.

    Forget quality needs a retrained model as reference.
    """
    forget, retain, authors, facts = (
        perturbed(name, request)
        for name in (request.split or "forget10", "retain", "real_authors", "world_facts")
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


def perturbed(name: str, request: SuiteRequest) -> Perturbed:
    """A set of TOFU with its wrong answers."""
    source = place(f"tofu:{name}_perturbed")
    return Perturbed(source.name, source.revision, request.limit)


SUITES = {"tofu": SuiteKind(tofu, data="own", splits=get_args(ForgetSet))}
