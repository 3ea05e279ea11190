from __future__ import annotations

from collections import Counter

import pytest
import torch

from embedtune.errors import InputError
from embedtune.methods.sampling.simans import log_preference, simans

SCORES, POSITIVE = torch.tensor([10.0, 9.0, 8.0, 5.0]), 9.0


@pytest.mark.parametrize(
    ("center_offset", "chances"),
    [
        (0.0, [0.2119, 0.5761, 0.2119, 0.0]),
        (1.0, [0.7214, 0.2654, 0.0132, 0.0]),  # the paper's sign
        (-1.0, [0.0132, 0.2654, 0.7213, 0.0001]),  # the released code's
    ],
)
def test_chances_by_hand(center_offset: float, chances: list[float]) -> None:
    found = log_preference(SCORES, POSITIVE, 1.0, center_offset).softmax(0)
    assert found.tolist() == pytest.approx(chances, abs=6e-5)


def test_draws_follow_the_chances() -> None:
    source = torch.Generator().manual_seed(0)
    counts = Counter(int(simans(SCORES, POSITIVE, count=1, generator=source)) for _ in range(6000))
    for index, chance in enumerate([0.2119, 0.5761, 0.2119, 0.0]):
        assert counts[index] / 6000 == pytest.approx(chance, abs=0.02)


def test_a_sharpness_of_zero_is_uniform() -> None:
    source = torch.Generator().manual_seed(0)
    counts = Counter(int(simans(SCORES, POSITIVE, count=1, sharpness=0.0, generator=source)) for _ in range(4000))
    assert all(counts[index] / 4000 == pytest.approx(0.25, abs=0.03) for index in range(4))


def test_weights_that_would_underflow_still_rank() -> None:
    source = torch.Generator().manual_seed(0)
    assert simans(SCORES, 1000.0, count=2, sharpness=50.0, generator=source).tolist() == [0, 1]


def test_all_are_drawn_where_as_many_are_asked_for() -> None:
    assert simans(SCORES, POSITIVE, count=4, generator=torch.Generator().manual_seed(0)).tolist() == [0, 1, 2, 3]


def test_a_positive_without_a_score_is_refused() -> None:
    with pytest.raises(InputError, match=r"^sampling.simans: needs the positive's score, in the units of the cand"):
        simans(SCORES, float("nan"), generator=torch.Generator())
