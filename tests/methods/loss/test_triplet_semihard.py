from __future__ import annotations

import pytest
import torch
from fixture_f import fixture, no_weights

from embedtune.methods.loss.triplet_semihard import triplet_semihard


def value_of(distances: list[float], weights: list[float] | None = None) -> float:
    """One query; the first distance is the positive's."""
    scores = fixture(1 - torch.tensor([distances]))
    log_weights = no_weights(scores) if weights is None else torch.tensor([weights]).log()
    return float(triplet_semihard(scores, scores.candidate, log_weights)[0])


def test_the_nearest_that_is_farther_than_the_positive() -> None:
    assert value_of([0.5, 0.4, 0.6, 0.9]) == pytest.approx(0.1)


def test_the_farthest_where_none_is_farther() -> None:
    assert value_of([0.5, 0.1, 0.3, 0.2]) == pytest.approx(0.5 - 0.3 + 0.2)


def test_an_easy_row_costs_nothing_but_stays_in_the_mean() -> None:
    scores = fixture(1 - torch.tensor([[0.1, 0.9], [0.4, 0.5]]))
    value, parts = triplet_semihard(scores, scores.candidate, no_weights(scores))
    assert float(value) == pytest.approx((0.0 + (0.5 - 0.4 + 0.2)) / 2)
    assert parts["rows_without_negatives"] == 0


def test_the_chosen_negatives_weight_multiplies() -> None:
    assert value_of([0.5, 0.4, 0.6, 0.9], [1.0, 5.0, 3.0, 7.0]) == pytest.approx(0.3)
