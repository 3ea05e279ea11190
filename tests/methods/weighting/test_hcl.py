from __future__ import annotations

import pytest
import torch
from fixture_f import TEMPERATURE, F, fixture, no_weights

from embedtune.errors import InputError
from embedtune.methods.loss.debiased import debiased
from embedtune.methods.loss.infonce import Infonce
from embedtune.methods.weighting.hcl import hcl


def test_importances_by_hand() -> None:
    scores = fixture(torch.tensor([[0.9, 0.6, 0.2]]))
    weights = hcl(scores, scores.candidate, temperature=TEMPERATURE).exp()
    assert weights[0, 1:].tolist() == pytest.approx([1.964028, 0.035972], abs=2e-6)


def test_the_fixture_by_hand() -> None:
    weights = hcl(fixture(), fixture().candidate, temperature=TEMPERATURE)
    value, _ = Infonce(temperature=TEMPERATURE)(fixture(), fixture().candidate, weights)
    assert float(value) == pytest.approx(0.214088, abs=2e-6)


@pytest.mark.parametrize("detach", [False, True])
def test_as_a_weight_it_equals_the_loss_in_value_and_gradient(detach: bool) -> None:
    student = F.clone().requires_grad_()
    scores = fixture(student)
    weights = hcl(scores, scores.candidate, beta=0.7, temperature=0.3, detach_importance=detach)
    value, _ = Infonce(temperature=0.3)(scores, scores.candidate, weights)
    expected, _ = debiased(
        scores, scores.candidate, no_weights(scores),
        temperature=0.3, positive_rate=0.0, beta=0.7, detach_importance=detach,
    )  # fmt: skip
    torch.testing.assert_close(value, expected)
    gradients = [torch.autograd.grad(loss, student, retain_graph=True)[0] for loss in (value, expected)]
    torch.testing.assert_close(*gradients)


def test_a_rows_weights_average_one() -> None:
    keep = fixture().candidate.clone()
    keep[1, 0] = False
    weights = hcl(fixture(), keep, beta=2.0).exp()
    for row in range(3):
        assert float(weights[row][keep[row]].mean()) == pytest.approx(1.0, rel=1e-5)


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(InputError, match=r"^weighting.hcl.temperature: must be above 0, got 0.0$"):
        hcl(fixture(), fixture().candidate, temperature=0.0)
