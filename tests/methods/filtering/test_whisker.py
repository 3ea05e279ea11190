from __future__ import annotations

import torch
from fixture_f import fixture
from torch import Tensor

from embedtune.methods.filtering.whisker import whisker

VALUES = [-0.2, 0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.9]


def scores_of(values: list[float]) -> Tensor:
    return torch.tensor([[0.95, *values]])  # the positive first


def kept(keep: Tensor, scores: Tensor) -> list[float]:
    return [round(value, 4) for value in scores[keep].tolist()]


def test_the_box_by_hand() -> None:
    """Q1 = .05 and Q3 = .25, so the whiskers end at -.25 and .55: only .9 lies outside."""
    student = scores_of(VALUES)
    assert kept(whisker(fixture(student)), student) == VALUES[:-1]
    assert kept(whisker(fixture(student), reach=0.0), student) == [0.05, 0.1, 0.15, 0.2, 0.25]


def test_both_ends_are_cut() -> None:
    student = scores_of([-3.0, *VALUES[1:]])
    assert -3.0 not in kept(whisker(fixture(student)), student)


def test_the_order_of_columns_does_not_matter() -> None:
    order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    student = torch.cat([torch.tensor([0.95]), torch.tensor(VALUES)[order]])[None]
    assert sorted(kept(whisker(fixture(student)), student)) == VALUES[:-1]


def test_over_the_batch_all_rows_share_the_box() -> None:
    student = torch.tensor([[0.9, 0.10, 0.20, 0.70], [0.11, 0.9, 0.15, 0.12]])
    keep = whisker(fixture(student), over="batch")
    assert (fixture(student).candidate & ~keep).nonzero().tolist() == [[0, 3]]
    assert torch.equal(whisker(fixture(student)), fixture(student).candidate)  # alone, row 0 is too spread


def test_a_row_without_candidates_is_no_trouble() -> None:
    assert whisker(fixture(torch.tensor([[0.9]]))).tolist() == [[False]]
