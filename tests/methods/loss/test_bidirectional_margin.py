from __future__ import annotations

import pytest
import torch
from fixture_f import F, fixture, no_weights

from embedtune.errors import InputError
from embedtune.methods.loss.bidirectional_margin import bidirectional_margin


@pytest.mark.parametrize(("difference", "expected"), [(-0.2, 0.0), (0.0, 0.1), (-0.5, 0.2)])
def test_one_pair_by_hand(difference: float, expected: float) -> None:
    scores = fixture(torch.tensor([[0.6, 0.6 + difference, 0.9]]))
    keep = torch.tensor([[False, False, True]])  # a filter dropped column 1
    value, parts = bidirectional_margin(scores, keep, no_weights(scores))
    assert float(value) == pytest.approx(expected, abs=1e-6)
    assert parts == {"soft_negatives": 1, "mean_over": 1}


def test_the_mean_is_over_soft_pairs_only() -> None:
    scores = fixture(torch.tensor([[0.6, 0.6, 0.1, 0.9]]))
    keep = torch.tensor([[False, False, False, True]])
    value, _ = bidirectional_margin(scores, keep, no_weights(scores))
    assert float(value) == pytest.approx((0.1 + 0.2) / 2)


def test_made_columns_can_be_the_soft_ones() -> None:
    scores = fixture(torch.tensor([[0.6, 0.6, 0.1]]), made=torch.tensor([False, True, False]))
    value, _ = bidirectional_margin(scores, scores.candidate, no_weights(scores), soft="made")
    assert float(value) == pytest.approx(0.1)


def test_without_soft_negatives_it_is_zero_and_has_a_gradient() -> None:
    student = F.clone().requires_grad_()
    scores = fixture(student)
    for soft in ("dropped", "made"):
        value, _ = bidirectional_margin(scores, scores.candidate, no_weights(scores), soft=soft)  # type: ignore[arg-type]
        value.backward()
        assert value == 0


def test_wrong_margins_are_refused() -> None:
    with pytest.raises(InputError, match=r"^loss.bidirectional_margin: expected 0 < alpha < beta, got 0.3 and 0.1$"):
        bidirectional_margin(fixture(), fixture().candidate, no_weights(fixture()), alpha=0.3, beta=0.1)
