from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from fixture_f import TEMPERATURE, F, fixture, fixture_with_own, no_weights
from torch import Tensor

from embedtune.errors import InputError
from embedtune.methods.loss.infonce import Infonce
from embedtune.methods.weighting.hardness import hardness
from embedtune.types import Scores


def loss_of(scores: Scores, keep: Tensor | None = None, weights: Tensor | None = None, **options: object) -> Tensor:
    loss = Infonce(**{"temperature": TEMPERATURE, **options})  # type: ignore[arg-type]
    value, _ = loss(
        scores, scores.candidate if keep is None else keep, no_weights(scores) if weights is None else weights
    )
    return value


@pytest.mark.parametrize(
    ("directions", "expected"),
    [
        (["query_document"], 0.126736),
        (["document_query"], 0.091808),
        (["query_document", "document_query"], 0.109272),
    ],
)
def test_values_on_the_fixture(directions: list[str], expected: float) -> None:
    assert float(loss_of(fixture(), directions=directions)) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(("row", "expected"), [(0, 0.007049), (1, 0.054985), (2, 0.318175)])
def test_each_row_alone(row: int, expected: float) -> None:
    keep = fixture().candidate & (torch.arange(3) == row)[:, None]
    assert float(loss_of(fixture(), keep)) == pytest.approx(expected, abs=2e-6)


def test_own_negatives_join_the_row() -> None:
    assert float(loss_of(fixture_with_own(2))) == pytest.approx(0.464184, abs=2e-6)
    assert float(loss_of(fixture_with_own(1))) == pytest.approx(0.441824, abs=2e-6)


def test_a_column_that_is_no_positive_is_no_row_of_the_other_direction() -> None:
    assert float(loss_of(fixture_with_own(2), directions=["document_query"])) == pytest.approx(0.091808, abs=2e-6)


@pytest.mark.parametrize(("alpha", "q2d", "symmetric"), [(0.0, 0.126736, 0.109272), (2.0, 0.318542, 0.279299)])
def test_log_weights_count_in_both_directions(alpha: float, q2d: float, symmetric: float) -> None:
    weights = hardness(fixture(), fixture().candidate, alpha=alpha)
    assert float(loss_of(fixture(), weights=weights)) == pytest.approx(q2d, abs=2e-6)
    both = loss_of(fixture(), weights=weights, directions=["query_document", "document_query"])
    assert float(both) == pytest.approx(symmetric, abs=2e-6)


def batch() -> tuple[Scores, Tensor, Tensor]:
    """3 queries, 6 documents; query 0 has two positives, document 1 has two queries, column 4 is query 2's own."""
    generator = torch.Generator().manual_seed(0)
    queries = torch.nn.functional.normalize(torch.randn(3, 5, generator=generator), dim=1)
    documents = torch.nn.functional.normalize(torch.randn(6, 5, generator=generator), dim=1)
    positive = torch.zeros(3, 6, dtype=torch.bool)
    positive[[0, 0, 1, 2, 2], [0, 3, 1, 2, 1]] = True
    own = torch.zeros_like(positive)
    own[2, 4] = True
    student = queries @ documents.T
    scores = Scores(
        student=student, positive=positive, candidate=~positive, own=own, queries=queries, documents=documents
    )
    keep = ~positive
    keep[0, 5] = keep[1, 2] = False
    return scores, keep, torch.rand(3, 6, generator=generator).masked_fill(~keep, 0.0)


def brute_force(
    direction: str, scores: Scores, keep: Tensor, weights: Tensor, query: int, document: int
) -> list[float]:
    """The negatives' logits for one positive pair, by loops."""
    assert scores.queries is not None
    assert scores.documents is not None
    assert scores.own is not None
    columns, rows = range(keep.shape[1]), range(keep.shape[0])
    found = []
    if direction == "query_document":
        for j in columns:
            if keep[query, j]:
                found.append(scores.student[query, j] / TEMPERATURE + weights[query, j])
    elif direction == "document_query":
        for i in rows:
            if keep[i, document]:
                found.append(scores.student[i, document] / TEMPERATURE + weights[i, document])
    elif direction == "query_query":
        for i in rows:
            if all(keep[query, j] for j in columns if scores.positive[i, j]):
                found.append(scores.queries[query] @ scores.queries[i] / TEMPERATURE)
    else:
        for j in columns:
            if keep[query, j] and not scores.own[query, j]:
                found.append(scores.documents[document] @ scores.documents[j] / TEMPERATURE)
    return [float(logit) for logit in found]


def oracle(directions: list[str], joint: bool, scores: Scores, keep: Tensor, weights: Tensor) -> float:
    pairs = [(int(i), int(j)) for i, j in scores.positive.nonzero()]

    def pair_loss(query: int, document: int, parts: list[str]) -> float:
        positive = float(scores.student[query, document]) / TEMPERATURE
        negatives = [x for part in parts for x in brute_force(part, scores, keep, weights, query, document)]
        return math.log(sum(math.exp(x) for x in [positive, *negatives])) - positive

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    def by(side: int, parts: list[str]) -> float:
        groups = sorted({pair[side] for pair in pairs})
        return mean([mean([pair_loss(*pair, parts) for pair in pairs if pair[side] == group]) for group in groups])

    if joint:
        return by(0, directions)
    return mean([by(1 if direction == "document_query" else 0, [direction]) for direction in directions])


ALL_DIRECTIONS = ["query_document", "document_query", "query_query", "document_document"]


@pytest.mark.parametrize("denominator", ["separate", "joint"])
@pytest.mark.parametrize("directions", [*([d] for d in ALL_DIRECTIONS), ALL_DIRECTIONS[:2], ALL_DIRECTIONS])
def test_every_direction_equals_the_loops(directions: list[str], denominator: str) -> None:
    scores, keep, weights = batch()
    value = loss_of(scores, keep, weights, directions=directions, denominator=denominator)
    expected = oracle(directions, denominator == "joint", scores, keep, weights)
    assert value.item() == pytest.approx(expected, abs=1e-5)


def test_a_document_that_is_positive_for_two_queries_is_no_negative_between_them() -> None:
    scores, keep, weights = batch()
    assert brute_force("query_query", scores, keep, weights, 1, 1) != []
    assert len(brute_force("query_query", scores, keep, weights, 2, 2)) == 1  # query 0, and not query 1


def test_gradient_is_the_reweighted_softmax() -> None:
    student = F.clone().requires_grad_()
    scores = fixture(student)
    only_first = scores.candidate & (torch.arange(3) == 0)[:, None]
    loss_of(scores, only_first, hardness(scores, only_first, alpha=2.0)).backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad[0], torch.tensor([-0.151716, 0.147681, 0.004035]), atol=2e-6, rtol=0)


def test_a_row_without_negatives_has_no_gradient_and_is_counted() -> None:
    student = F.clone().requires_grad_()
    scores = fixture(student)
    keep = scores.candidate.clone()
    keep[1] = False
    value, parts = Infonce(temperature=TEMPERATURE)(scores, keep, no_weights(scores))
    value.backward()
    assert value.item() == pytest.approx((0.007049 + 0.318175) / 2, abs=2e-6)
    assert student.grad is not None
    assert not student.grad[1].any()
    assert parts == {"rows_without_negatives": 1, "mean_over": 2}


def test_a_learned_temperature_gets_a_gradient_and_stays_within_its_bound() -> None:
    loss = Infonce(temperature=0.02, learn_temperature=True)
    assert loss.log_scale is not None
    value, parts = loss(fixture(), fixture().candidate, no_weights(fixture()))
    value.backward()
    assert loss.log_scale.grad is not None
    assert parts["temperature"] == pytest.approx(0.02)
    with torch.no_grad():
        loss.log_scale.fill_(9.0)
    _, parts = loss(fixture(), fixture().candidate, no_weights(fixture()))
    assert parts["temperature"] == pytest.approx(0.01)
    assert "log_scale" in loss.state_dict()
    assert not list(Infonce().parameters())


def test_wrong_options_are_refused() -> None:
    with pytest.raises(InputError, match=r"^loss.infonce.temperature: must be above 0, got 0.0$"):
        Infonce(temperature=0.0)
    with pytest.raises(InputError, match=r"must be at least 0.01 where it is learned, got 0.005$"):
        Infonce(temperature=0.005, learn_temperature=True)
    with pytest.raises(InputError, match=r"^loss.infonce.directions: expected each direction once, at least one"):
        Infonce(directions=[])


def test_directions_between_queries_need_embeddings() -> None:
    scores, keep, weights = batch()
    bare = dataclasses.replace(scores, queries=None)
    with pytest.raises(InputError, match="query_query needs embeddings"):
        loss_of(bare, keep, weights, directions=["query_query"])


def test_label_smoothing_is_that_of_torch() -> None:
    scores = fixture(F.clone().requires_grad_())
    value, _ = Infonce(temperature=TEMPERATURE, label_smoothing=0.1)(scores, scores.candidate, no_weights(scores))
    expected = torch.nn.functional.cross_entropy(scores.student / TEMPERATURE, torch.arange(3), label_smoothing=0.1)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, scores.student)[0] for loss in (value, expected)))
    with pytest.raises(InputError, match=r"^loss.infonce.label_smoothing: expected 0 to below 1, got 1.0$"):
        Infonce(label_smoothing=1.0)


def test_a_dropped_column_takes_no_share_of_the_smoothed_target() -> None:
    scores = fixture()
    keep = scores.candidate & torch.tensor([True, True, False])
    value, _ = Infonce(temperature=TEMPERATURE, label_smoothing=0.1)(scores, keep & (torch.arange(3) == 0)[:, None],
                                                                    no_weights(scores))  # fmt: skip
    by_hand = torch.nn.functional.cross_entropy(torch.tensor([[9.0, 4.0]]), torch.tensor([0]), label_smoothing=0.1)
    assert value.item() == pytest.approx(float(by_hand), abs=1e-6)


def test_own_negatives_alone() -> None:
    scores = fixture_with_own()
    value, _ = Infonce(temperature=TEMPERATURE, negatives="own")(scores, scores.candidate, no_weights(scores))
    assert value.item() == pytest.approx(0.385658, abs=2e-6)
    with pytest.raises(InputError, match="has a negative left"):
        Infonce(negatives="own")(fixture(), fixture().candidate, no_weights(fixture()))
