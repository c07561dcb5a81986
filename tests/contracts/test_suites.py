"""Every suite of the package obeys the contract of suites. A new file is picked up by itself."""

import inspect
import json

import pytest

from ilu.recipes.suite import suite_of, suites
from ilu.recipes.suite_request import SuiteRequest
from ilu.system.record import describe, restore


def smallest(name: str) -> SuiteRequest:
    """A request with all that the suite needs, and two items of each set."""
    kind = suites()[name]
    data = None if kind.data == "own" else "d.jsonl"
    return SuiteRequest(
        limit=2,
        data=data,
        nonmembers="n.jsonl" if kind.nonmembers else None,
        original="lab" if kind.original else None,
    )


@pytest.mark.parametrize("name", suites())
def test_it_can_be_recorded_and_restored(name):
    suite = suite_of(name, smallest(name))
    assert suite.parts
    assert restore(json.loads(json.dumps(describe(suite)))) == suite


@pytest.mark.parametrize("name", suites())
def test_one_sentence_says_what_it_measures(name):
    first = (inspect.getdoc(suites()[name].build) or "").split("\n\n")[0]
    assert first.endswith(".")
    assert len(first) > 10


@pytest.mark.parametrize("name", suites())
def test_it_refuses_data_and_splits_that_it_does_not_have(name):
    kind = suites()[name]
    with pytest.raises(ValueError, match=f"the suite {name} has no split 'nowhere'"):
        suite_of(name, SuiteRequest(data=smallest(name).data, split="nowhere",
                                    nonmembers=smallest(name).nonmembers))  # fmt: skip
    if kind.data == "own":
        with pytest.raises(ValueError, match=f"the suite {name} has its own data"):
            suite_of(name, SuiteRequest(data="d.jsonl"))
    elif kind.data != "optional":
        with pytest.raises(ValueError, match=f"the suite {name} needs `data`"):
            suite_of(name, SuiteRequest())
