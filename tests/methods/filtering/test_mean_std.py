from __future__ import annotations

import pytest
import torch
from fixture_f import fixture

from embedtune.methods.filtering.mean_std import mean_std

LIST = torch.tensor([[0.9, 0.1, 0.2, 0.3, 0.4]])  # the positive first


def test_the_threshold_by_hand() -> None:
    """Mean + std of (.1, .2, .3, .4) is 0.379099 (over n - 1; 0.361803 would be over n), so .4 goes.

    It stays from (0.4 - 0.25) / 0.129099 = 1.161895 deviations on (1.3416, were it over n).
    """
    assert mean_std(fixture(LIST)).tolist() == [[False, True, True, True, False]]
    assert not mean_std(fixture(LIST), deviations=1.1618)[0, 4]
    assert mean_std(fixture(LIST), deviations=1.1620)[0, 4]


def test_the_hard_ones_alone() -> None:
    assert mean_std(fixture(LIST), drop="below").tolist() == [[False, False, False, False, True]]


@pytest.mark.parametrize("row", [[0.9, 0.5], [0.9, 0.1, 0.1, 0.1], [0.9]])
def test_too_few_or_equal_scores_drop_nothing(row: list[float]) -> None:
    scores = fixture(torch.tensor([row]))
    assert torch.equal(mean_std(scores, deviations=0.0), scores.candidate)
    assert torch.equal(mean_std(scores, deviations=0.0, drop="below"), scores.candidate)
