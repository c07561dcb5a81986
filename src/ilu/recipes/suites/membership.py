"""Membership inference on the user's texts."""

from ilu.evals.metrics.membership import MembershipInference, reference_attack
from ilu.evals.suite import Suite
from ilu.recipes.suite import SuiteKind
from ilu.recipes.suite_data import user_dataset
from ilu.recipes.suite_request import SuiteRequest
from ilu.recipes.user_data import dataset


def membership(request: SuiteRequest) -> Suite:
    """Membership inference attacks on the user's texts; one of them needs a reference model."""
    others = dataset(request.nonmembers or "", request.data_columns, request.truncate)
    attacks = MembershipInference(user_dataset(request), others, gradient=True, limit=request.limit)
    return Suite({"membership": attacks}, compared=reference_attack)


SUITES = {"membership": SuiteKind(membership, truncates=True, nonmembers=True)}
