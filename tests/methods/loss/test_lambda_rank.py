from __future__ import annotations

import math

import pytest
import torch
from fixture_f import fixture, no_weights

from embedtune.errors import InputError
from embedtune.methods.loss.lambda_rank import lambda_rank
from embedtune.types import Scores


def test_a_list_by_hand() -> None:
    scores = fixture(torch.tensor([[1.0, 2.0, 0.0]]))
    value, _ = lambda_rank(scores, scores.candidate, no_weights(scores), temperature=1.0)
    assert 2 * value.item() == pytest.approx(0.708841, abs=2e-6)  # 0.5 * 1.313262 + 0.166667 * 0.313262, two pairs


def test_beyond_the_cut_a_rank_is_worth_nothing() -> None:
    scores = fixture(torch.tensor([[0.0, 3.0, 2.0, 1.0]]))  # ranks 4, 1, 2, 3
    value, _ = lambda_rank(scores, scores.candidate, no_weights(scores), temperature=1.0, cut=2)
    by_hand = (1.0 * math.log1p(math.exp(3)) + 0.5 * math.log1p(math.exp(2))) / 3
    assert value.item() == pytest.approx(by_hand, abs=1e-6)


def test_several_positives_by_brute_force() -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.rand(2, 7, generator=generator)
    positive = torch.zeros(2, 7, dtype=torch.bool)
    positive[0, [1, 4]] = positive[1, 6] = True
    keep = ~positive
    keep[0, 2] = keep[1, 0] = False
    scores = Scores(student=student, positive=positive, candidate=~positive)
    expected = 0.0
    for row in range(2):
        listed = [column for column in range(7) if positive[row, column] or keep[row, column]]
        ranked = sorted(listed, key=lambda column: -float(student[row, column]))
        rank = {column: place + 1 for place, column in enumerate(ranked)}
        pairs = [(i, j) for i in listed if positive[row, i] for j in listed if keep[row, j]]
        expected += sum(
            abs(1 / rank[i] - 1 / rank[j]) * math.log1p(math.exp(float(student[row, j] - student[row, i]) / 0.5))
            for i, j in pairs
        ) / len(pairs)
    value, _ = lambda_rank(scores, keep, no_weights(scores), temperature=0.5)
    assert value.item() == pytest.approx(expected / 2, abs=1e-6)


def test_ranks_are_constants() -> None:
    student = torch.tensor([[1.0, 2.0]], requires_grad=True)
    scores = fixture(student)
    lambda_rank(scores, scores.candidate, no_weights(scores), temperature=1.0)[0].backward()
    share = 1 / (1 + math.exp(-1.0))  # d log(1 + e^(s_j - s_i)), times |1/2 - 1|
    assert student.grad is not None
    torch.testing.assert_close(student.grad, torch.tensor([[-0.5 * share, 0.5 * share]]))


def test_options_that_mean_nothing_are_refused() -> None:
    with pytest.raises(InputError, match=r"^loss.lambda_rank: expected temperature above 0 and cut at least 1, got 0"):
        lambda_rank(fixture(), fixture().candidate, no_weights(fixture()), temperature=0.0)
