from __future__ import annotations

import pytest
import torch
from fixture_f import TEMPERATURE, fixture, fixture_with_own, no_weights

from embedtune.errors import InputError
from embedtune.methods.loss.fsc_clip import fsc_clip
from embedtune.methods.loss.infonce import Infonce


@pytest.mark.parametrize(
    ("focus", "smoothing", "expected"),
    [(0.0, 0.0, 0.385658), (2.0, 0.0, 0.056717), (0.0, 0.02, 0.430102), (2.0, 0.02, 0.100933)],
)
def test_the_fixture_by_hand(focus: float, smoothing: float, expected: float) -> None:
    scores = fixture_with_own()
    value, parts = fsc_clip(
        scores, scores.candidate, no_weights(scores), temperature=TEMPERATURE, focus=focus, smoothing=smoothing
    )
    assert value.item() == pytest.approx(expected, abs=2e-6)
    assert parts["hard_negatives"] == 6


def test_unfocused_and_unsmoothed_it_is_infonce_over_the_querys_own_negatives() -> None:
    scores = fixture_with_own()
    scores.student.requires_grad_()
    weights = torch.rand(scores.student.shape, generator=torch.Generator().manual_seed(0))
    options = {"temperature": TEMPERATURE, "focus": 0.0, "smoothing": 0.0}
    value, _ = fsc_clip(scores, scores.candidate, weights, **options)
    expected, _ = Infonce(temperature=TEMPERATURE, negatives="own")(scores, scores.candidate, weights)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, scores.student)[0] for loss in (value, expected)))


def test_the_smoothing_spreads_over_what_is_left() -> None:
    scores = fixture_with_own()
    keep = scores.candidate.clone()
    keep[0, 4] = keep[1, 5] = keep[1, 6] = False  # one negative left, and none
    value, _ = fsc_clip(scores, keep, no_weights(scores), temperature=TEMPERATURE, focus=0.0, smoothing=0.1)
    first = torch.tensor([9.0, 7.0]).log_softmax(0)
    third = torch.tensor([7.0, 6.5, 5.0]).log_softmax(0)
    by_hand = -(0.95 * first[0] + 0.05 * first[1]), -((1 - 0.2 / 3) * third[0] + 0.1 / 3 * (third[1] + third[2]))
    assert value.item() == pytest.approx(float(sum(by_hand)) / 2, abs=1e-6)


def test_a_dropped_negative_gets_no_gradient_and_no_nan() -> None:
    scores = fixture_with_own()
    student = scores.student.requires_grad_()
    keep = scores.candidate.clone()
    keep[0, 4] = False
    value, _ = fsc_clip(scores, keep, no_weights(scores), temperature=0.001)
    (gradient,) = torch.autograd.grad(value, student)
    assert gradient.isfinite().all()
    assert gradient[0, 4] == 0


def test_without_own_negatives_it_costs_nothing() -> None:
    value, parts = fsc_clip(fixture(), fixture().candidate, no_weights(fixture()))
    assert value.item() == 0
    assert parts["hard_negatives"] == 0


def test_options_that_mean_nothing_are_refused() -> None:
    with pytest.raises(InputError, match=r"^loss.fsc_clip: expected temperature above 0, focus from 0 up"):
        fsc_clip(fixture(), fixture().candidate, no_weights(fixture()), smoothing=1.0)
