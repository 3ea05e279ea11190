from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from fixture_f import fixture, no_weights

from embedtune.errors import InputError
from embedtune.methods.loss.asymmetric import Asymmetric

OFF = torch.tensor(-30.0)  # a logit of no cost, so that one entry can be looked at


def cost(positive: torch.Tensor, negative: torch.Tensor, **options: float) -> float:
    scores = fixture(torch.stack([positive, negative])[None])
    loss = Asymmetric(scale=1.0, bias=0.0, **options)  # type: ignore[arg-type]
    return loss(scores, scores.candidate, no_weights(scores))[0].item()


def logit(chance: float) -> torch.Tensor:
    return torch.tensor(chance).logit()


def test_costs_by_hand() -> None:
    assert cost(logit(0.8), OFF) == pytest.approx(0.223144, abs=2e-6)
    assert cost(-OFF, logit(0.3)) == pytest.approx(0.00112376, abs=2e-8)
    assert cost(-OFF, logit(0.04)) == pytest.approx(0.0, abs=1e-8)


def test_easy_negatives_have_no_gradient() -> None:
    student = torch.stack([logit(0.6), logit(0.04)])[None].requires_grad_()
    scores = fixture(student)
    Asymmetric(scale=1.0, bias=0.0)(scores, scores.candidate, no_weights(scores))[0].backward()
    assert student.grad is not None
    assert student.grad[0, 0] < 0
    assert student.grad[0, 1] == 0


def test_all_zero_it_is_binary_cross_entropy() -> None:
    scores = fixture(torch.tensor([[1.2, 0.3, -0.4], [0.1, 0.9, 0.2]]))
    loss = Asymmetric(gamma_negative=0.0, shift=0.0, scale=2.0, bias=-1.0)
    expected = F.binary_cross_entropy_with_logits(scores.student * 2 - 1, scores.positive.float(), reduction="sum") / 2
    value, parts = loss(scores, scores.candidate, no_weights(scores))
    assert float(value.detach()) == pytest.approx(float(expected), rel=1e-5)
    assert parts["scale"] == pytest.approx(2.0)


def test_scale_and_bias_are_learned_unless_told_otherwise() -> None:
    assert len([p for p in Asymmetric().parameters() if p.requires_grad]) == 2
    assert not [p for p in Asymmetric(learn=False).parameters() if p.requires_grad]


def test_wrong_options_are_refused() -> None:
    with pytest.raises(InputError, match=r"^loss.asymmetric: expected scale above 0"):
        Asymmetric(shift=1.0)
