"""relative_hardness, propensity, simans_weight and false_negative_probability, by hand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fixture_f import F, fixture

from embedtune.errors import InputError
from embedtune.methods.sampling.simans import log_preference
from embedtune.methods.weighting.false_negative_probability import false_negative_probability
from embedtune.methods.weighting.propensity import propensity
from embedtune.methods.weighting.relative_hardness import relative_hardness
from embedtune.methods.weighting.rrra_weight import RrraWeight
from embedtune.methods.weighting.simans_weight import simans_weight


def test_relative_hardness_is_the_gap_to_the_positive() -> None:
    weights = relative_hardness(fixture(), fixture().candidate, alpha=2.0)
    assert weights[0].tolist() == pytest.approx([0.0, 2 * (0.4 - 0.9), 2 * (0.1 - 0.9)])


def test_relative_hardness_takes_the_lowest_positive() -> None:
    scores = dataclasses.replace(fixture(torch.tensor([[0.9, 0.6, 0.4]])), positive=torch.tensor([[True, True, False]]))
    weights = relative_hardness(scores, ~scores.positive, alpha=1.0)
    assert weights[0].tolist() == pytest.approx([0.0, 0.0, 0.4 - 0.6])


def test_propensity_by_hand() -> None:
    """What scores like the positive is relevant with chance 1/2: weight (1 - .5) / (1 - .5 * .5) = 2/3."""
    scores = fixture(torch.tensor([[0.8, 0.8, 0.7, -1.0]]))
    weights = propensity(scores, scores.candidate, labelled=0.5, temperature=0.05).exp()[0]
    relevant = 1 / (1 + math.exp(2))  # 0.1 below the positive is two temperatures
    assert weights.tolist() == pytest.approx([1.0, 2 / 3, (1 - relevant) / (1 - relevant / 2), 1.0], rel=1e-5)


def test_propensity_follows_the_teacher_where_given() -> None:
    scores = fixture(torch.zeros(1, 2), teacher=torch.tensor([[0.5, 0.5]]))
    assert float(propensity(scores, scores.candidate, labelled=0.5).exp()[0, 1]) == pytest.approx(2 / 3)


def test_propensity_stays_finite_far_above_the_positive() -> None:
    scores = fixture(torch.tensor([[-1.0, 1.0]]))
    weights = propensity(scores, scores.candidate, temperature=0.001)
    assert float(weights[0, 1]) == pytest.approx(-2 / 0.001 + math.log(2), rel=1e-5)


def test_simans_weights_average_one_and_peak_at_the_centre() -> None:
    student = torch.tensor([[0.5, 0.9, 0.6, 0.5, 0.1]])
    scores = fixture(student)
    weights = simans_weight(scores, scores.candidate, sharpness=10.0, center_offset=0.1).exp()[0]
    chances = log_preference(student[0, 1:], 0.5, 10.0, 0.1).softmax(0)
    torch.testing.assert_close(weights[1:], 4 * chances)
    assert weights[1:].argmax() == 1  # 0.6 = 0.5 + 0.1


def test_false_negative_probability_by_hand() -> None:
    """RRRA's resampling of .8 at p = .5 and gamma 2 is .8 * .25 = .2."""
    scores = fixture(torch.tensor([[0.9, 0.8, 0.8]]), teacher=torch.tensor([[0.0, 0.5, 0.0]]))
    weights = false_negative_probability(scores, scores.candidate, gamma=2.0).exp()
    assert float(0.8 * weights[0, 1]) == pytest.approx(0.2)
    assert weights[0, 2] == 1  # no doubt, no change


def test_a_sure_false_negative_keeps_a_finite_weight() -> None:
    scores = fixture(torch.tensor([[0.9, 0.8]]), teacher=torch.tensor([[0.0, 1.0]]))
    assert float(false_negative_probability(scores, scores.candidate)[0, 1]) == pytest.approx(math.log(1e-6), rel=1e-4)


def test_what_is_no_probability_is_refused() -> None:
    scores = fixture(torch.tensor([[0.9, 0.8]]), teacher=torch.tensor([[0.0, 1.5]]))
    with pytest.raises(InputError, match=r"must be probabilities from 0 to 1, got 1.5$"):
        false_negative_probability(scores, scores.candidate)
    with pytest.raises(InputError, match="needs a teacher's scores, as probabilities"):
        false_negative_probability(fixture(), fixture().candidate)


@pytest.mark.parametrize("option", [{"labelled": 0.05}, {"temperature": 0.0}])
def test_wrong_propensities_are_refused(option: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"^weighting.propensity"):
        propensity(fixture(), fixture().candidate, **option)


@pytest.mark.parametrize("method", [relative_hardness, propensity, simans_weight])
def test_weights_are_detached_and_ignore_rows_without_positives(method: Callable[..., Any]) -> None:
    scores = fixture(F.clone().requires_grad_())
    scores = dataclasses.replace(scores, positive=scores.positive & (torch.arange(3) > 0)[:, None])
    weights = method(scores, scores.candidate)
    assert not weights.requires_grad
    torch.testing.assert_close(weights[0], torch.zeros(3))
    assert weights[1:].any()


def test_rrras_weight_is_what_its_adapter_leaves() -> None:
    """An unlearned adapter gives sigmoid(10 s - 10), so a cosine of 0.8 weighs 1 - sigmoid(-2)."""
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    documents = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    positive = torch.tensor([[True, False, False], [False, True, False]])
    scores = fixture(queries @ documents.T)
    scores = dataclasses.replace(scores, positive=positive, candidate=~positive, queries=queries, documents=documents)
    method = RrraWeight(gamma=2.0)
    weights = method(scores, ~positive)
    assert weights[0].tolist() == pytest.approx(
        [0, 2 * math.log1p(-1 / (1 + math.exp(10))), -2 * math.log1p(math.exp(-2))], abs=1e-6
    )
    assert method.adapter.steps == 1
    before = method.adapter.weights.clone()
    assert not torch.equal(method(scores, ~positive), weights)  # it has learned from the first batch
    method.eval()
    method(scores, ~positive)
    assert method.adapter.steps == 2
    assert not torch.equal(method.adapter.weights, before)
