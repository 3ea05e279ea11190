"""positive_ratio, positive_margin and absolute: the three caps of NV-Retriever."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from fixture_f import F, fixture
from torch import Tensor

from embedtune.methods.filtering.absolute import absolute
from embedtune.methods.filtering.guide import guide
from embedtune.methods.filtering.positive_margin import positive_margin
from embedtune.methods.filtering.positive_ratio import positive_ratio
from embedtune.types import Scores

LIST = torch.tensor([[0.8, 0.79, 0.77, 0.755, 0.6]])  # the positive first


def kept(keep: Tensor, scores: Tensor) -> list[float]:
    return [round(value, 4) for value in scores[keep].tolist()]


def test_the_papers_example() -> None:
    scores = fixture(LIST)
    assert kept(positive_ratio(scores, at_most=0.95), LIST) == [0.755, 0.6]
    assert kept(positive_margin(scores, margin=0.05), LIST) == [0.6]
    assert kept(absolute(scores, below=0.76), LIST) == [0.755, 0.6]


def test_a_negative_positive_score_does_not_turn_the_rule_round() -> None:
    student = torch.tensor([[-0.2, -0.1, -0.195, -0.3]])
    assert kept(positive_ratio(fixture(student), at_most=0.9), student) == [-0.3]  # and not -0.195 < -0.18


def test_the_lowest_of_several_positives_decides() -> None:
    student = torch.tensor([[0.8, 0.7, 0.65, 0.5]])
    scores = dataclasses.replace(fixture(student), positive=torch.tensor([[True, False, True, False]]))
    scores = dataclasses.replace(scores, candidate=~scores.positive)
    assert kept(positive_ratio(scores, at_most=0.9), student) == [0.5]  # 0.7 is below 0.9 * 0.8, but above 0.65
    assert kept(positive_margin(scores, margin=0.05), student) == [0.5]


def test_the_teachers_scores_decide_where_given() -> None:
    scores = fixture(LIST, teacher=10 * LIST.flip(1))
    assert kept(absolute(scores, below=7.8), LIST) == [0.79, 0.77]


def test_a_row_without_a_positive_keeps_everything() -> None:
    scores = dataclasses.replace(fixture(LIST), positive=torch.zeros_like(LIST, dtype=torch.bool))
    assert torch.equal(positive_ratio(scores), scores.candidate)
    assert torch.equal(positive_margin(scores), scores.candidate)


def test_every_cell_against_the_formula() -> None:
    scores = fixture(F)
    for i in range(3):
        for j in range(3):
            assert bool(positive_ratio(scores, at_most=0.8)[i, j]) == (i != j and F[i, j] < 0.8 * F[i, i])
            assert bool(positive_margin(scores, margin=0.15)[i, j]) == (i != j and F[i, j] < F[i, i] - 0.15)


@pytest.mark.parametrize(
    "method",
    [
        partial(positive_ratio, at_most=0.8),
        partial(positive_margin, margin=0.2),
        partial(absolute, below=0.5),
        partial(guide, margin=0.2),
    ],
)
def test_filtering_twice_is_filtering_once(method: Callable[[Scores], Any]) -> None:
    scores = fixture(F, teacher=F)
    once = method(scores)
    assert torch.equal(method(dataclasses.replace(scores, candidate=once)), once)


def test_no_gradient_is_asked_for() -> None:
    assert not positive_ratio(fixture(F.clone().requires_grad_())).requires_grad
