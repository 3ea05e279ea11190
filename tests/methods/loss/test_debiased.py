from __future__ import annotations

import math

import pytest
import torch
from fixture_f import F, fixture, no_weights

from embedtune.errors import InputError
from embedtune.methods.loss.debiased import debiased


@pytest.mark.parametrize(
    ("temperature", "positive_rate", "beta", "rows"),
    [
        (0.1, 0.0, 0.0, [0.007049, 0.054985, 0.318175]),  # InfoNCE
        (0.1, 0.0, 1.0, [0.012787, 0.085545, 0.543932]),
        (0.1, 0.1, 0.0, [0.0, 0.0, 0.177325]),  # the first two clamped
        (0.5, 0.0, 0.0, [0.450933, 0.650600, 0.782352]),
        (0.5, 0.1, 0.0, [0.344201, 0.585742, 0.740142]),
        (0.5, 0.1, 1.0, [0.381574, 0.607591, 0.827052]),
    ],
)
def test_rows_of_the_fixture(temperature: float, positive_rate: float, beta: float, rows: list[float]) -> None:
    for row, expected in enumerate(rows):
        keep = fixture().candidate & (torch.arange(3) == row)[:, None]
        value, _ = debiased(
            fixture(), keep, no_weights(fixture()), temperature=temperature, positive_rate=positive_rate, beta=beta
        )
        assert value.item() == pytest.approx(expected, abs=5e-6)


def test_the_clamp_is_counted_and_takes_the_gradient_of_negatives() -> None:
    student = F.clone().requires_grad_()
    scores = fixture(student)
    value, parts = debiased(scores, scores.candidate, no_weights(scores), temperature=0.1, beta=0.0)
    value.backward()
    assert parts["clamped_share"] == pytest.approx(2 / 3)
    assert student.grad is not None
    assert student.grad[0, 1:].abs().sum() == 0  # clamped
    assert student.grad[2, :2].abs().sum() > 0


def test_nothing_is_clamped_at_a_rate_of_zero_even_below_a_score_of_minus_one() -> None:
    scores = fixture(F - 3)
    value, parts = debiased(scores, scores.candidate, no_weights(scores), temperature=0.1, positive_rate=0.0, beta=0.0)
    assert parts["clamped_share"] == 0
    assert value.item() == pytest.approx(0.126736, abs=2e-6)


def test_log_space_survives_small_temperatures() -> None:
    student = F.clone().requires_grad_()
    scores = fixture(student)
    value, _ = debiased(scores, scores.candidate, no_weights(scores), temperature=0.001, positive_rate=0.0)
    value.backward()
    assert value.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_importance_can_be_detached() -> None:
    gradients = []
    for detach in (False, True):
        student = F.clone().requires_grad_()
        scores = fixture(student)
        options = {"temperature": 0.5, "positive_rate": 0.0, "beta": 1.0, "detach_importance": detach}
        debiased(scores, scores.candidate, no_weights(scores), **options)[0].backward()  # type: ignore[arg-type]
        assert student.grad is not None
        gradients.append(student.grad)
    assert not torch.allclose(*gradients)
    # Detached, a negative's gradient is its probability over the temperature: row 0, weights of mean 1.
    logits, weights = F[0, 1:] / 0.5, torch.exp(F[0, 1:] / 0.5)
    mass = torch.exp(logits) * weights / weights.mean()
    expected = mass / (mass.sum() + torch.exp(F[0, 0] / 0.5)) / 0.5 / 3
    torch.testing.assert_close(gradients[1][0, 1:], expected)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(InputError, match=r"got 0.5 and 1.0$"):
        debiased(fixture(), fixture().candidate, no_weights(fixture()), positive_rate=1.0)


@pytest.mark.parametrize(("positive_rate", "beta"), [(0.0, 0.0), (0.1, 0.0), (0.1, 1.0), (0.05, 0.5)])
def test_two_views_by_brute_force(positive_rate: float, beta: float) -> None:
    """The loss of two views of n things: each of the 2n vectors against its other view and 2n - 2 others."""
    generator, temperature = torch.Generator().manual_seed(0), 0.5
    views = torch.nn.functional.normalize(torch.randn(8, 5, generator=generator), dim=1)
    expected = []
    for row in range(8):
        other = (row + 4) % 8
        negatives = [math.exp(float(views[row] @ views[j]) / temperature) for j in range(8) if j not in (row, other)]
        positive = math.exp(float(views[row] @ views[other]) / temperature)
        importance = [n**beta for n in negatives]
        reweighted = sum(i * n for i, n in zip(importance, negatives, strict=True)) / (sum(importance) / 6)
        group = max((reweighted - positive_rate * 6 * positive) / (1 - positive_rate), 6 * math.exp(-1 / temperature))
        expected.append(-math.log(positive / (positive + group)))
    scores = fixture(views[:4] @ views[4:].T, queries=views[:4], documents=views[4:])
    options = {"positive_rate": positive_rate, "beta": beta, "temperature": temperature}
    value, _ = debiased(scores, scores.candidate, no_weights(scores), two_views=True, **options)
    assert value.item() == pytest.approx(sum(expected) / 8, abs=1e-5)


def test_two_views_need_embeddings() -> None:
    with pytest.raises(InputError, match="query_query needs embeddings"):
        debiased(fixture(), fixture().candidate, no_weights(fixture()), two_views=True)
