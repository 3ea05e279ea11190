"""Whether a difference is more than chance: paired tests on per-query values, intervals, Holm's correction.

The queries are the sample: a test says whether other queries of the same kind would show the difference as well. It
says nothing about other training seeds, whose means are tested apart as a sample of their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError

Values = npt.NDArray[np.float64]
RESAMPLES = 10_000
CONFIDENCE = 0.95
RIGHT = 0.5  # a query is answered right from this value on
TIE = 1e-12  # differences of equal values that were added in another order stay below it
_BATCH = 1_000_000  # numbers held at once while resampling


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Two sets of values on the same queries. The difference is other - baseline; `low` and `high` hold its mean.

    p: two-sided paired randomisation test. t_p: two-sided paired t-test; None if it is not defined (a single query, or
    all differences the same). low, high: the 95% bootstrap interval; None for a single query. negative_flips: the share
    of queries that were right (a value of at least 0.5) and no longer are.
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
            f"paired tests need the same queries on both sides; {len(unshared)} are on one side only, the first "
            f"{unshared[0]!r}"
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

    If the two systems are alike, each query's difference could as well have the other sign: p is the share of all
    signings whose mean is at least as far from 0. All signings are counted for up to 13 differences (2^13 < 10,000);
    beyond, 10,000 are drawn and the observed one is counted in: (1 + count) / (1 + 10,000). Differences of 0 have no
    sign and are left out. Raises InputError for no differences and for values that are not finite.
    """
    from scipy import stats

    values = finite(differences)
    values = values[np.abs(values) > TIE]
    if len(values) < 2:
        return 1.0
    bound = abs(float(values.sum())) - TIE * max(1.0, float(np.abs(values).sum()))

    def as_far(signed: Values, axis: int) -> Values:
        sums: Values = np.abs(signed.sum(axis=axis))
        return np.where(sums >= bound, 1.0, 0.0)

    batch = max(1, _BATCH // len(values))
    options: dict[str, Any] = {"n_resamples": RESAMPLES, "batch": batch, "alternative": "greater"}
    if 2 ** len(values) <= RESAMPLES:
        test = stats.permutation_test((values,), as_far, permutation_type="samples", vectorized=True, **options)
    else:
        generator = np.random.default_rng(seed)

        def drawn(size: tuple[int, int]) -> Values:
            return (2.0 * generator.integers(0, 2, size, dtype=np.int8) - 1.0) * values

        # permutation_test draws the same signings by permuting pairs one by one, 20 times as slowly.
        test = stats.monte_carlo_test(values, drawn, as_far, vectorized=True, **options)
    return float(test.pvalue)


def t_test_p(differences: Sequence[float] | Values) -> float | None:
    """The two-sided p-value of the paired t-test; 1 where all differences are 0.

    None if it is not defined: for a single difference, and if all are the same.
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

    sample = finite(values)
    if len(sample) < 2:
        raise InputError("an interval needs at least two queries; there is one")
    if float(np.ptp(sample)) == 0.0:
        return float(sample[0]), float(sample[0])
    interval = stats.bootstrap(
        (sample,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, _BATCH // len(sample)),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment over a family of tests, in the order given.

    An adjusted value below .05 keeps the chance of any false finding in the family below 5%. Holm, 1979.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def finite(values: Sequence[float] | Values) -> Values:
    """The values as an array (n,) of float64. Raises InputError for none, and for one that is not a finite number."""
    array = np.asarray(values, dtype=np.float64)
    if not len(array):
        raise InputError("no values to compare: there is no query")
    if not np.isfinite(array).all():
        index = int(np.flatnonzero(~np.isfinite(array))[0])
        raise InputError(f"value {index + 1} of {len(array)} is {array[index]}; every value must be a finite number")
    return array


def _mean(values: Values) -> float:
    return math.fsum(values.tolist()) / len(values)
