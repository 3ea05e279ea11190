"""Significance against hand-worked values, brute force and scipy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from embedtune.errors import InputError
from embedtune.evaluate.significance import bootstrap_interval, holm, paired, randomisation_p, t_test_p


def drawn(count: int, seed: int = 0) -> list[float]:
    return [float(value) for value in np.random.default_rng(seed).normal(0.1, 0.3, count)]


def test_the_exact_p_of_four_gains_is_two_sixteenths() -> None:
    assert randomisation_p([0.1, 0.2, 0.3, 0.4]) == 0.125
    assert randomisation_p([-0.1, -0.2, -0.3, -0.4]) == 0.125


def test_equal_sums_in_another_order_of_addition_count_as_equal() -> None:
    # (.1, .2, .3): sums .6, .4, .2, 0 and their negatives; with -.3 the observed 0 is reached by every signing.
    assert randomisation_p([0.1, 0.2, -0.3]) == 1.0
    # Observed .1 + .2 + .3 - .6 = 0 as well, although floats leave 1e-16.
    assert randomisation_p([0.1, 0.2, 0.3, -0.6]) == 1.0
    # Observed .4 = .1 + .3 (in units of .1: 1, 3): 4 and -4 of {4, -2, 2, -4}.
    assert randomisation_p([0.1, 0.3]) == 0.5


def test_exact_p_is_what_enumeration_gives() -> None:
    differences = drawn(9)
    signed = [
        sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in itertools.product((1, -1), repeat=9)
    ]
    expected = sum(abs(total) >= abs(sum(differences)) - 1e-12 for total in signed) / 2**9
    assert randomisation_p(differences) == expected
    assert randomisation_p([*differences, *[0.0] * 40]) == expected  # a difference of 0 has no sign


def test_exact_p_is_scipys() -> None:
    differences = drawn(12, seed=3)
    found = stats.permutation_test((differences, [0.0] * 12), lambda x, y, axis: np.mean(x - y, axis=axis),
                                   permutation_type="samples", n_resamples=np.inf)  # fmt: skip
    assert randomisation_p(differences) == pytest.approx(found.pvalue, abs=1e-12)


def test_drawn_p_is_near_the_exact_one_and_seeded() -> None:
    differences = [1.0] * 15 + [-1.0] * 6
    # |sum| >= 9 of 21 signs: at most 6 or at least 15 of one kind.
    exact = 2 * sum(math.comb(21, k) for k in range(7)) / 2**21
    found = randomisation_p(differences, seed=0)
    assert found == pytest.approx(exact, abs=0.012)
    assert (found * 10_001) == pytest.approx(round(found * 10_001), abs=1e-6)
    assert randomisation_p(differences, seed=0) == found


def test_drawn_p_of_many_queries_is_the_share_of_drawn_signings() -> None:
    differences = np.array(drawn(50, seed=4)) - 0.1
    signs = 2 * np.random.default_rng(0).integers(0, 2, (10_000, 50), dtype=np.int8) - 1.0
    count = int((np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12).sum())
    assert 1 < count < 9_999
    assert randomisation_p(differences) == (1 + count) / 10_001


def test_drawn_p_is_never_zero() -> None:
    assert randomisation_p([0.5] * 100) == 1 / 10_001


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_t_test_is_scipys() -> None:
    before, after = drawn(30, seed=1), drawn(30, seed=2)
    differences = [b - a for a, b in zip(before, after, strict=True)]
    assert t_test_p(differences) == pytest.approx(float(stats.ttest_rel(after, before).pvalue))


def test_the_interval_is_the_percentiles_of_resampled_means() -> None:
    values = drawn(40, seed=5)
    means = np.random.default_rng(0).choice(values, (10_000, 40)).mean(axis=1)
    low, high = bootstrap_interval(values)
    assert (low, high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.004)
    assert bootstrap_interval(values) == (low, high)


def test_paired_by_hand() -> None:
    found = paired({"a": 0.5, "b": 0.5, "c": 0.0, "d": 1.0}, {"d": 0.5, "c": 0.0, "b": 1.0, "a": 1.0})
    assert (found.queries, found.baseline, found.value, found.difference) == (4, 0.5, 0.625, 0.125)
    assert (found.wins, found.ties, found.losses) == (2, 1, 1)
    # Signings of (.5, .5, .5): the sum's size is 1.5 in 2 of 8, else .5, which is what was seen: all of them.
    assert found.p == 1.0
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.125 < found.high


def test_negative_flips_by_hand() -> None:
    old, new = dict(enumerate([1, 1, 0, 1])), dict(enumerate([1, 0, 1, 1]))
    found = paired({str(q): v for q, v in old.items()}, {str(q): v for q, v in new.items()})
    assert (found.negative_flips, found.difference) == (0.25, 0.0)


def test_no_difference_at_all() -> None:
    found = paired({"a": 0.5, "b": 0.25}, {"a": 0.5, "b": 0.25})
    assert (found.p, found.t_p, found.low, found.high, found.ties) == (1.0, 1.0, 0.0, 0.0, 2)


def test_one_query_says_nothing() -> None:
    found = paired({"a": 0.0}, {"a": 1.0})
    assert (found.difference, found.p, found.t_p, found.low, found.high) == (1.0, 1.0, None, None, None)
    with pytest.raises(InputError, match="an interval needs at least two queries"):
        bootstrap_interval([0.5])


def test_equal_differences_have_no_t() -> None:
    assert t_test_p([0.3 - 0.2, 0.2 - 0.1]) is None
    assert bootstrap_interval([0.25, 0.25]) == (0.25, 0.25)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_a_number_is_refused(bad: float) -> None:
    for test in (randomisation_p, t_test_p, bootstrap_interval):
        with pytest.raises(InputError, match=f"value 2 of 2 is {bad}; every value must be a finite number"):
            test([0.1, bad])


def test_no_queries_and_other_queries_are_refused() -> None:
    with pytest.raises(InputError, match="no values to compare: there is no query"):
        paired({}, {})
    with pytest.raises(InputError, match="need the same queries on both sides; 2 are on one side only, the first 'a'"):
        paired({"a": 1.0, "b": 1.0}, {"b": 1.0, "c": 1.0})
