from __future__ import annotations

import math

import pytest
import torch
from fixture_f import TEMPERATURE, F, fixture, fixture_with_own

from embedtune.methods.loss.infonce import Infonce
from embedtune.methods.weighting.hardness import hardness
from embedtune.types import Scores


def value_of(scores: Scores, directions: list[str], alpha: float, negatives: str = "all") -> float:
    weights = hardness(scores, scores.candidate, alpha=alpha, negatives=negatives)  # type: ignore[arg-type]
    loss = Infonce(temperature=TEMPERATURE, directions=directions)  # type: ignore[arg-type]
    return float(loss(scores, scores.candidate, weights)[0])


@pytest.mark.parametrize(("alpha", "q2d", "d2q"), [(0, 0.126736, 0.091808), (2, 0.318542, 0.240057)])
def test_llave_on_the_fixture(alpha: float, q2d: float, d2q: float) -> None:
    assert value_of(fixture(), ["query_document"], alpha) == pytest.approx(q2d, abs=2e-6)
    assert value_of(fixture(), ["document_query"], alpha) == pytest.approx(d2q, abs=2e-6)


def test_llave_at_its_own_alpha() -> None:
    assert value_of(fixture(), ["query_document", "document_query"], 9.0) == pytest.approx(2.071406, abs=5e-6)


@pytest.mark.parametrize(("alpha", "expected"), [(0, 0.441824), (5, 2.609026)])
def test_embeddinggemma_weighs_own_negatives_only(alpha: float, expected: float) -> None:
    assert value_of(fixture_with_own(1), ["query_document"], alpha, "own") == pytest.approx(expected, abs=5e-6)


def test_chances_shift_by_the_weights() -> None:
    """Against the positive, a negative's chance grows by exp(alpha s): 2.225541 and 1.221403 in row 0."""
    weights = hardness(fixture(), fixture().candidate, alpha=2.0)[0]
    before, after = (F[0] / TEMPERATURE).softmax(0), (F[0] / TEMPERATURE + weights).softmax(0)
    ratio = after / before / (after[0] / before[0])
    assert ratio[1:].tolist() == pytest.approx([math.exp(0.8), math.exp(0.2)], rel=1e-4)


def test_the_three_modes_split_the_negatives() -> None:
    scores = fixture_with_own(2)
    every = hardness(scores, scores.candidate, negatives="all")
    in_batch = hardness(scores, scores.candidate, negatives="in_batch")
    own = hardness(scores, scores.candidate, negatives="own")
    assert torch.equal(in_batch + own, every)
    assert not in_batch[:, 3:].any()
    assert not own[:, :3].any()
    assert not hardness(fixture(), fixture().candidate, negatives="own").any()


def test_the_weight_is_detached() -> None:
    scores = fixture(F.clone().requires_grad_())
    assert not hardness(scores, scores.candidate).requires_grad
