from __future__ import annotations

import pytest
import torch
from fixture_f import F, fixture, no_weights

from embedtune.errors import InputError
from embedtune.methods.loss.infonce import Infonce
from embedtune.methods.loss.listwise_kl import listwise_kl
from embedtune.types import Scores


def list_of(student: list[float], teacher: list[float]) -> Scores:
    """One query whose first column is the positive."""
    return fixture(torch.tensor([student]), teacher=torch.tensor([teacher]))


def value_of(scores: Scores, **options: float) -> float:
    return float(listwise_kl(scores, scores.candidate, no_weights(scores), **options)[0])


def test_the_recipes_temperatures_by_hand() -> None:
    assert value_of(list_of([0.9, 0.5, 0.3], [1.0, 0.7, 0.2])) == pytest.approx(1.880297, abs=2e-6)


def test_plain_logits_by_hand() -> None:
    scores = list_of([2.0, 1.0, 0.0], [3.0, 1.0, 1.0])
    assert value_of(scores, temperature=1.0, teacher_temperature=1.0) == pytest.approx(0.061554, abs=2e-6)
    swapped = list_of([3.0, 1.0, 1.0], [2.0, 1.0, 0.0])
    assert value_of(swapped, temperature=1.0, teacher_temperature=1.0) == pytest.approx(0.076667, abs=2e-6)


def test_equal_distributions_cost_nothing() -> None:
    assert value_of(fixture(teacher=F.clone()), temperature=0.1, teacher_temperature=0.1) == pytest.approx(0, abs=1e-6)


def test_a_sure_teacher_makes_it_infonce() -> None:
    student = F.clone().requires_grad_()
    scores = fixture(student, teacher=torch.eye(3))
    weights = torch.rand(3, 3, generator=torch.Generator().manual_seed(0)).masked_fill(scores.positive, 0.0)
    value, _ = listwise_kl(scores, scores.candidate, weights, temperature=0.1, teacher_temperature=1e-3)
    expected, _ = Infonce(temperature=0.1)(scores, scores.candidate, weights)
    assert value.item() == pytest.approx(expected.item(), abs=1e-6)
    torch.testing.assert_close(*(torch.autograd.grad(loss, student)[0] for loss in (value, expected)))


def test_what_the_teacher_has_not_scored_is_not_in_the_list() -> None:
    student = torch.tensor([[0.9, 0.8, 0.5, 0.3]], requires_grad=True)
    scores = fixture(student, teacher=torch.tensor([[1.0, torch.nan, 0.7, 0.2]]))
    value, _ = listwise_kl(scores, scores.candidate, no_weights(scores))
    value.backward()
    assert value.item() == pytest.approx(1.880297, abs=2e-6)
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad[0, 1] == 0


def test_no_gradient_reaches_the_teacher() -> None:
    teacher = F.clone().requires_grad_()
    scores = fixture(F.clone().requires_grad_(), teacher=teacher)
    listwise_kl(scores, scores.candidate, no_weights(scores))[0].backward()
    assert teacher.grad is None


def test_without_a_teacher_it_is_refused() -> None:
    with pytest.raises(InputError, match=r"^loss.listwise_kl: needs a teacher's scores$"):
        value_of(fixture())
