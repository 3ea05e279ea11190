from __future__ import annotations

import pytest
from fixture_f import F, fixture, no_weights

from embedtune.methods.loss.variance import variance


@pytest.mark.parametrize(("target", "expected"), [(0.0, 0.151667), (-1 / (3 - 1), 0.751667)])
def test_values_on_the_fixture(target: float, expected: float) -> None:
    value, _ = variance(fixture(), fixture().candidate, no_weights(fixture()), target=target)
    assert float(value) == pytest.approx(expected, abs=2e-6)


def test_it_is_zero_where_all_negatives_have_the_target() -> None:
    scores = fixture(F.masked_fill(fixture().candidate, 0.25))
    assert float(variance(scores, scores.candidate, no_weights(scores), target=0.25)[0]) == 0


def test_dropped_negatives_do_not_count() -> None:
    keep = fixture().candidate.clone()
    keep[:, 1] = False
    value, _ = variance(fixture(), keep, no_weights(fixture()))
    assert float(value) == pytest.approx((0.1**2 + 0.3**2 + 0.5**2 + 0.2**2) / 4)
