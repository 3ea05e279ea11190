from __future__ import annotations

import pytest
import torch
from fixture_f import F, fixture, no_weights

from embedtune.methods.loss.focal_infonce import focal_infonce


@pytest.mark.parametrize(("margin", "expected"), [(0.3, 0.440564), (0.0, 0.024063)])
def test_values_on_the_fixture(margin: float, expected: float) -> None:
    value, _ = focal_infonce(fixture(), fixture().candidate, no_weights(fixture()), margin=margin)
    assert float(value) == pytest.approx(expected, abs=2e-6)


def test_single_logits() -> None:
    """s = .5 gives a negative's logit of 8 and s = .9 a positive's of 16.2: the pair costs softplus(8 - 16.2)."""
    scores = fixture(torch.tensor([[0.9, 0.5], [0.5, 0.9]]))
    value, _ = focal_infonce(scores, scores.candidate, no_weights(scores), margin=0.3)
    assert float(value) == pytest.approx(float(torch.nn.functional.softplus(torch.tensor(8.0 - 16.2))), rel=1e-4)


def test_a_positive_below_zero_is_still_pulled() -> None:
    student = (-F).requires_grad_()
    scores = fixture(student)
    focal_infonce(scores, scores.candidate, no_weights(scores))[0].backward()
    assert student.grad is not None
    assert (student.grad.diagonal() < 0).all()


def test_force_grows_with_similarity() -> None:
    """d logit / d s is (2s + m) / t for a negative."""
    student = torch.tensor([[0.2, 0.4, 0.1]], requires_grad=True)
    scores = fixture(student)
    focal_infonce(scores, scores.candidate, no_weights(scores), margin=0.3)[0].backward()
    logits = torch.tensor([0.2**2, 0.4 * 0.7, 0.1 * 0.4]) / 0.05
    chance = logits.softmax(0)
    assert student.grad is not None
    assert float(student.grad[0, 1]) == pytest.approx(float(chance[1]) * (2 * 0.4 + 0.3) / 0.05, rel=1e-4)
