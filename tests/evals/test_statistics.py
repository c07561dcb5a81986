"""Intervals and tests against published and hand-computed values."""

import pytest

from ilu.evals.statistics import holm, overlap, sign_test, student, wilson


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.706), (2, 4.303), (10, 2.228), (11, 2.201), (20, 2.086), (60, 2.000)],
)
def test_students_t_is_that_of_the_tables(freedom, quantile):
    assert student(freedom) == pytest.approx(quantile, abs=5.1e-4)


def test_wilsons_interval_is_that_of_the_literature():
    # 81 of 263: Newcombe 1998, table I, method 3; 0 of 20: the same.
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(1.0, 20)[1] == 1.0


def test_the_sign_test_counts_coin_flips():
    assert sign_test(1, 9) == sign_test(9, 1) == pytest.approx(2 * (1 + 10) / 2**10)
    assert sign_test(0, 6) == pytest.approx(2 / 2**6)
    assert sign_test(5, 5) == sign_test(0, 0) == 1.0
    assert 0 < sign_test(900, 1100) < 1e-4  # numbers far beyond a float's range in between


def test_holm_raises_the_smallest_most_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_intervals_that_touch_overlap():
    assert overlap((0, 1), (1, 2))
    assert not overlap((0, 1), (1.1, 2))
