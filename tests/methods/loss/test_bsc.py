from __future__ import annotations

import pytest
import torch
from fixture_f import fixture, fixture_with_own, no_weights

from embedtune.errors import InputError
from embedtune.methods.loss.bsc import Bsc


def test_alone_it_is_the_symmetric_softmax() -> None:
    value, parts = Bsc(contrast=1.0)(fixture(), fixture().candidate, no_weights(fixture()))
    assert value.item() == pytest.approx(0.109272, abs=2e-6)
    assert 2 * float(parts["batch_softmax"]) == pytest.approx(0.218545, abs=2e-6)  # the paper's sum


def test_the_squared_error_is_over_positives_and_own_negatives() -> None:
    value, _ = Bsc(contrast=0.0)(fixture(), fixture().candidate, no_weights(fixture()))
    assert value.item() == pytest.approx((0.1**2 + 0.2**2 + 0.3**2) / 3)
    scores = fixture_with_own(1)
    value, _ = Bsc(contrast=0.0)(scores, scores.candidate, no_weights(scores))
    assert value.item() == pytest.approx((0.1**2 + 0.2**2 + 0.3**2 + 0.7**2 + 0.75**2 + 0.65**2) / 6)


def test_the_mix() -> None:
    value, parts = Bsc(contrast=0.25)(fixture(), fixture().candidate, no_weights(fixture()))
    assert value.item() == pytest.approx(0.25 * 0.109272 + 0.75 * float(parts["squared_error"]), abs=2e-6)


def test_a_share_above_one_is_refused() -> None:
    with pytest.raises(InputError, match=r"^loss.bsc.contrast: expected 0 to 1, got 1.5$"):
        Bsc(contrast=1.5)


def test_coordinates_divided_by_their_range() -> None:
    queries, documents = torch.tensor([[1.0, 0.0], [3.0, 0.5]]), torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    scores = fixture(queries @ documents.T, queries=queries, documents=documents)
    loss = Bsc(temperature=1.0, contrast=1.0, normalisation="range")
    value, parts = loss(scores, scores.candidate, no_weights(scores))
    by_hand = fixture(torch.tensor([[0.5, 0.0], [2.0, 1.5]]))  # queries (.5, 0), (1.5, 1); documents (1, .5), (0, 1.5)
    expected, _ = Bsc(temperature=1.0, contrast=1.0)(by_hand, by_hand.candidate, no_weights(by_hand))
    assert value.item() == pytest.approx(float(expected), abs=1e-6)
    assert float(parts["squared_error"]) == pytest.approx(((2 - 1) ** 2 + (1.5 - 1) ** 2) / 2)  # the model's scores
    with pytest.raises(InputError, match=r"^loss.bsc.normalisation: range needs embeddings"):
        Bsc(normalisation="range")(fixture(), fixture().candidate, no_weights(fixture()))


def test_the_temperature_can_be_learned() -> None:
    loss = Bsc(temperature=0.1, learn_temperature=True)
    value, parts = loss(fixture(), fixture().candidate, no_weights(fixture()))
    value.backward()
    assert [p.grad is not None for p in loss.parameters()] == [True]
    assert float(parts["temperature"]) == pytest.approx(0.1)
