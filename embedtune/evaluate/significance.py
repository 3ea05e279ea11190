"""Whether a difference is more than chance: paired tests on per-query values, intervals, Holm's correction.

The queries are the sample: a test says whether other queries of the same kind would show the difference as well. It
says nothing about other training seeds; those are tested apart, with the seeds' means as the sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import InputError

Values = npt.NDArray[np.float64]
EXACT_UP_TO = 20  # 2^20 signings of the differences are enumerated; beyond, they are drawn
RESAMPLES = 10_000
CONFIDENCE = 0.95
RIGHT = 0.5  # a query is answered right where its value is at least this
TIE = 1e-12  # differences of the same values, added in another order, are no difference
_AT_ONCE = 1_000_000  # numbers held while drawing


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Two sets of values on the same queries. The difference is other - baseline; `low` and `high` hold its mean.

    p: two-sided paired randomisation. t_p: two-sided paired t-test; None where it is not defined (a single query, or
    all differences the same). low, high: the bootstrap interval; None for a single query. negative_flips: the share of
    queries that were right (a value of at least 0.5) and no longer are.
    """

    queries: int
    baseline: float
    value: float
    difference: float
    low: float | None
    high: float | None
    p: float
    t_p: float | None
    wins: int
    ties: int
    losses: int
    negative_flips: float


def paired(baseline: Mapping[str, float], other: Mapping[str, float], *, seed: int = 0) -> Paired:
    """Compares query_id -> value on the same queries.

    Raises InputError where the queries are not the same or a value is not a finite number.
    """
    if baseline.keys() != other.keys():
        unshared = sorted(baseline.keys() ^ other.keys())
        raise InputError(
            f"paired tests need the same queries twice; {len(unshared)} stand on one side only, first {unshared[0]!r}"
        )
    before, after = finite(list(baseline.values())), finite([other[query_id] for query_id in baseline])
    differences = after - before  # (Q,)
    low, high = bootstrap_interval(differences, seed=seed) if len(differences) > 1 else (None, None)
    return Paired(
        queries=len(differences),
        baseline=_mean(before),
        value=_mean(after),
        difference=_mean(differences),
        low=low,
        high=high,
        p=randomisation_p(differences, seed=seed),
        t_p=t_test_p(differences),
        wins=int((differences > TIE).sum()),
        ties=int((np.abs(differences) <= TIE).sum()),
        losses=int((differences < -TIE).sum()),
        negative_flips=float(np.mean((before >= RIGHT) & (after < RIGHT))),
    )


def randomisation_p(differences: Sequence[float] | Values, *, seed: int = 0) -> float:
    """The two-sided p-value of Fisher's paired randomisation test.

    Were the two systems alike, each query's difference could as well have the other sign: p is the share of all
    signings whose mean is at least as far from 0. Exact for up to 20 differences; else from 10,000 drawn signings, with
    the observed one counted in: (1 + count) / (1 + 10,000). Differences of 0 have no sign, so they are not counted
    among the 20. Raises InputError for no differences and for values that are not finite.
    """
    values = finite(differences)
    values = values[np.abs(values) > TIE]
    if not len(values):
        return 1.0
    bound = abs(float(values.sum())) - TIE * max(1.0, float(np.abs(values).sum()))
    if len(values) <= EXACT_UP_TO:
        return float(np.mean(np.abs(_all_signed_sums(values)) >= bound))
    count = sum(int((np.abs(sums) >= bound).sum()) for sums in _drawn_signed_sums(values, seed))
    return (1 + count) / (1 + RESAMPLES)


def _all_signed_sums(values: Values) -> Values:
    """(2^n,) the sum under every choice of signs."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _drawn_signed_sums(values: Values, seed: int) -> Iterator[Values]:
    generator = np.random.default_rng(seed)
    block = max(1, _AT_ONCE // len(values))
    for start in range(0, RESAMPLES, block):
        size = (min(block, RESAMPLES - start), len(values))
        signs = 2.0 * generator.integers(0, 2, size, dtype=np.int8) - 1.0  # (block, Q)
        yield signs @ values


def t_test_p(differences: Sequence[float] | Values) -> float | None:
    """The two-sided p-value of the paired t-test; 1 where all differences are 0.

    None where it is not defined: for a single difference, and where all are the same.
    """
    from scipy import stats

    values = finite(differences)
    if not np.any(np.abs(values) > TIE):
        return 1.0
    if len(values) < 2 or float(np.ptp(values)) <= TIE:
        return None
    return float(stats.ttest_1samp(values, 0.0).pvalue)


def bootstrap_interval(values: Sequence[float] | Values, *, seed: int = 0) -> tuple[float, float]:
    """The 95% percentile bootstrap interval of the mean, from 10,000 seeded resamples.

    Raises InputError for fewer than two values: one says nothing about how they spread.
    """
    from scipy import stats

    found = finite(values)
    if len(found) < 2:
        raise InputError("an interval needs at least two queries; there is one")
    if float(np.ptp(found)) == 0.0:
        return float(found[0]), float(found[0])
    interval = stats.bootstrap(
        (found,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, _AT_ONCE // len(found)),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment over a family of tests, in the order given.

    An adjusted value below .05 keeps the chance of any false finding in the family below 5%. Holm, 1979.
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def finite(values: Sequence[float] | Values) -> Values:
    """(n,) as float64. Raises InputError where there are none, or one is not a finite number."""
    array = np.asarray(values, dtype=np.float64)
    if not len(array):
        raise InputError("no values to compare: there is no query")
    if not np.isfinite(array).all():
        place = int(np.flatnonzero(~np.isfinite(array))[0])
        raise InputError(f"value {place + 1} of {len(array)} is {array[place]}; every value must be a finite number")
    return array


def _mean(values: Values) -> float:
    return math.fsum(values.tolist()) / len(values)
