from __future__ import annotations

import pytest
import torch
from fixture_f import TEMPERATURE, F, fixture, no_weights

from embedtune.errors import InputError
from embedtune.methods.filtering.complementary import complementary
from embedtune.methods.loss.infonce import Infonce


def test_the_fixture_by_hand() -> None:
    scores = fixture(F, teacher=F)
    keep = complementary(scores, at_most=0.55)
    assert (scores.candidate & ~keep).nonzero().tolist() == [[2, 1]]
    value, _ = Infonce(temperature=TEMPERATURE)(scores, keep, no_weights(scores))
    assert float(value) == pytest.approx(0.022916, abs=2e-6)  # and not 0.023218, which a logit of 0 would give


def test_above_one_nothing_is_dropped() -> None:
    assert torch.equal(complementary(fixture(F, teacher=F), at_most=1.01), fixture().candidate)


def test_without_a_teacher_it_is_refused() -> None:
    with pytest.raises(InputError, match=r"^filtering.complementary: needs a teacher's scores"):
        complementary(fixture())
