from __future__ import annotations

import pytest
from fixture_f import fixture, fixture_with_own, no_weights

from embedtune.errors import InputError
from embedtune.loss.bsc import bsc


def test_alone_it_is_the_symmetric_softmax() -> None:
    value, parts = bsc(fixture(), fixture().candidate, no_weights(fixture()), contrast=1.0)
    assert float(value) == pytest.approx(0.109272, abs=2e-6)
    assert 2 * float(parts["batch_softmax"]) == pytest.approx(0.218545, abs=2e-6)  # the paper's sum


def test_the_squared_error_is_over_positives_and_own_negatives() -> None:
    value, _ = bsc(fixture(), fixture().candidate, no_weights(fixture()), contrast=0.0)
    assert float(value) == pytest.approx((0.1**2 + 0.2**2 + 0.3**2) / 3)
    scores = fixture_with_own(1)
    value, _ = bsc(scores, scores.candidate, no_weights(scores), contrast=0.0)
    assert float(value) == pytest.approx((0.1**2 + 0.2**2 + 0.3**2 + 0.7**2 + 0.75**2 + 0.65**2) / 6)


def test_the_mix() -> None:
    value, parts = bsc(fixture(), fixture().candidate, no_weights(fixture()), contrast=0.25)
    assert float(value) == pytest.approx(0.25 * 0.109272 + 0.75 * float(parts["squared_error"]), abs=2e-6)


def test_a_share_above_one_is_refused() -> None:
    with pytest.raises(InputError, match=r"^loss.bsc.contrast: expected 0 to 1, got 1.5$"):
        bsc(fixture(), fixture().candidate, no_weights(fixture()), contrast=1.5)
