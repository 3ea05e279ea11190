from __future__ import annotations

import dataclasses

import pytest
import torch
from fixture_f import F, fixture, no_weights

from embedtune.errors import InputError
from embedtune.methods.loss.margin_mse import MarginMse
from embedtune.types import Scores


def list_of(student: list[float], teacher: list[float] | None) -> Scores:
    """One query whose first column is the positive."""
    return fixture(torch.tensor([student]), teacher=None if teacher is None else torch.tensor([teacher]))


def value_of(scores: Scores, scale: float = 1.0) -> float:
    return float(MarginMse(scale=scale)(scores, scores.candidate, no_weights(scores))[0])


def test_margins_by_hand() -> None:
    assert value_of(list_of([2.0, 1.0, 0.0], [3.0, 1.0, 1.0])) == pytest.approx(0.5)


def test_a_constant_on_the_teacher_changes_nothing() -> None:
    assert value_of(list_of([2.0, 1.0, 0.0], [8.0, 6.0, 6.0])) == pytest.approx(0.5)


def test_a_scale_multiplies_the_students_margins() -> None:
    assert value_of(list_of([1.0, 0.5, 0.0], [3.0, 1.0, 1.0]), scale=2.0) == pytest.approx(0.5)


def test_a_learned_scale_is_a_parameter() -> None:
    loss = MarginMse(scale=4.0, learn_scale=True)
    scores = list_of([1.0, 0.5, 0.0], [3.0, 1.0, 1.0])
    value, parts = loss(scores, scores.candidate, no_weights(scores))
    value.backward()
    assert parts["scale"] == pytest.approx(4.0)
    assert loss.log_scale.grad is not None
    assert not any(parameter.requires_grad for parameter in MarginMse().parameters())


def test_a_negative_without_a_teachers_score_is_left_out() -> None:
    student = torch.tensor([[2.0, 1.0, 0.0]], requires_grad=True)
    scores = fixture(student, teacher=torch.tensor([[3.0, torch.nan, 1.0]]))
    value, _ = MarginMse()(scores, scores.candidate, no_weights(scores))
    value.backward()
    assert value.item() == pytest.approx(0.0)
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_a_log_weight_multiplies_its_error() -> None:
    scores = list_of([2.0, 1.0, 0.0], [3.0, 1.0, 1.0])
    weights = torch.tensor([[0.0, 3.0, 1.0]]).log().nan_to_num(neginf=0.0)
    assert float(MarginMse()(scores, scores.candidate, weights)[0]) == pytest.approx(1.5)  # errors 1 and 0


def test_no_gradient_reaches_the_teacher() -> None:
    teacher = F.clone().requires_grad_()
    scores = dataclasses.replace(fixture(F.clone().requires_grad_()), teacher=teacher)
    MarginMse()(scores, scores.candidate, no_weights(scores))[0].backward()
    assert teacher.grad is None


def test_without_a_teacher_it_is_refused() -> None:
    with pytest.raises(InputError, match=r"^loss.margin_mse: needs a teacher's scores$"):
        value_of(list_of([2.0, 1.0], None))
