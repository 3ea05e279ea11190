"""What every method of a family must do. A new file of a family is tested here by being there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from contract_values import COLUMNS, DOCUMENTS, QUERIES, ROWS, kind_of, neutral_options, permuted, value_of
from torch import Tensor

from embedtune import methods
from embedtune.errors import InputError
from embedtune.methods.batching import BatchContext
from embedtune.types import Pair, Scores


@pytest.mark.parametrize("family", ["filtering", "sampling", "batching", "synthesis", "weighting", "loss"])
def test_no_family_is_empty(family: str) -> None:
    assert methods.names(family)


@pytest.mark.parametrize("name", methods.names("filtering"))
def test_a_filter_only_takes_candidates_away(name: str, scores: Scores, bound: Callable[..., Any]) -> None:
    keep = bound("filtering", name)(scores)
    assert keep.dtype == torch.bool
    assert keep.shape == scores.candidate.shape
    assert not (keep & ~scores.candidate).any()
    assert not (keep & scores.positive).any()
    assert torch.equal(bound("filtering", name)(scores), keep)
    moved = bound("filtering", name)(permuted(scores, ROWS, COLUMNS))
    if name != "cluster":  # which chooses its centroids in the documents' order
        assert torch.equal(moved, keep[ROWS][:, COLUMNS])


@pytest.mark.parametrize("name", methods.names("filtering"))
def test_a_filter_works_on_one_querys_mined_candidates(name: str, scores: Scores, bound: Callable[..., Any]) -> None:
    row = torch.tensor([0])
    alone = permuted(scores, row, torch.arange(DOCUMENTS))
    keep = bound("filtering", name)(alone)
    assert keep.shape == (1, DOCUMENTS)
    assert not (keep & ~alone.candidate).any()
    nothing = dataclasses.replace(alone, candidate=torch.zeros_like(alone.candidate))
    assert not bound("filtering", name)(nothing).any()


@pytest.mark.parametrize("name", sorted(set(methods.names("filtering")) - {"cluster", "judge"}))  # without teacher
def test_a_candidate_without_a_teachers_score_is_left_alone(
    name: str, scores: Scores, bound: Callable[..., Any]
) -> None:
    unscored = dataclasses.replace(scores, teacher=torch.full_like(scores.student, torch.nan))
    assert torch.equal(bound("filtering", name)(unscored), scores.candidate)


@pytest.mark.parametrize("name", methods.names("sampling"))
@pytest.mark.parametrize("count", [0, 1, 3, 12, 40])
def test_a_sampler_draws_without_replacement(name: str, count: int, bound: Callable[..., Any]) -> None:
    candidates = torch.linspace(0.9, 0.1, 12)
    sampler = bound("sampling", name)

    def drawn(scores: Tensor, seed: int = 0) -> Tensor:
        indices: Tensor = sampler(scores, 0.8, count=count, generator=torch.Generator().manual_seed(seed))
        return indices

    indices = drawn(candidates)
    assert indices.dtype == torch.int64
    assert len(indices) == len(set(indices.tolist())) == min(count, 12)
    assert set(indices.tolist()) <= set(range(12))
    assert torch.equal(drawn(candidates), indices)
    assert drawn(candidates[:0]).tolist() == []


PAIRS = [Pair(query_id=f"q{n // 2}", positives=(f"d{n}",)) for n in range(23)]  # two pairs a query, one has one


def context_of(pairs: list[Pair]) -> BatchContext:
    generator = torch.Generator().manual_seed(5)
    queries = torch.nn.functional.normalize(torch.randn(len(pairs), 4, generator=generator), dim=1)
    documents = torch.nn.functional.normalize(queries + torch.randn(len(pairs), 4, generator=generator), dim=1)
    return BatchContext(
        query_texts={pair.query_id: f"text of {pair.query_id}" for pair in pairs},
        lengths=[7 * number % 13 for number in range(len(pairs))],
        query_embeddings=queries,
        document_embeddings=documents,
        dataset_of={pair.query_id: "ab"[int(pair.query_id[1:]) % 3 == 0] for pair in pairs},
        progress=0.5,
    )


@pytest.mark.parametrize("name", sorted(set(methods.names("batching")) - {"replay"}))  # which obeys its file
@pytest.mark.parametrize("pairs", [PAIRS, PAIRS[:9], PAIRS[:1], []])
def test_a_batching_uses_every_pair_once(name: str, pairs: list[Pair]) -> None:
    def batches(seed: int) -> list[list[Pair]]:
        generator = torch.Generator().manual_seed(seed)
        made: list[list[Pair]] = methods.bind("batching", name, {})(pairs, 4, context_of(pairs), generator=generator)
        return made

    found = batches(0)
    used = [pair for batch in found for pair in batch]
    assert sorted(used, key=PAIRS.index) == pairs
    assert all(len(batch) > 1 for batch in found) or len(pairs) == 1
    assert all(len(batch) <= 5 for batch in found)  # one more than asked, for a single left-over
    assert batches(0) == found
    if len(pairs) > 1:
        assert any(batches(seed) != found for seed in range(1, 5))


@pytest.mark.parametrize("name", methods.names("weighting"))
def test_a_weighting_is_finite_and_touches_negatives_only(name: str, scores: Scores, bound: Callable[..., Any]) -> None:
    keep = scores.candidate.clone()
    keep[1] = False  # a query without negatives
    keep[2, 9] = False
    log_weights = bound("weighting", name)(scores, keep)
    assert log_weights.dtype == torch.float32
    assert log_weights.shape == keep.shape
    assert log_weights.isfinite().all()
    assert (log_weights[~keep] == 0).all()
    moved = bound("weighting", name)(permuted(scores, ROWS, COLUMNS), keep[ROWS][:, COLUMNS])
    torch.testing.assert_close(moved, log_weights[ROWS][:, COLUMNS])


@pytest.mark.parametrize("name", methods.names("weighting"))
def test_a_weighting_weighs_nothing_with_neutral_options(name: str, scores: Scores) -> None:
    neutral = neutral_options("weighting", name)
    assert neutral is not None, f"embedtune/methods/weighting/{name}.py must state its neutral options in SPEC"
    log_weights = methods.bind("weighting", name, neutral)(scores, scores.candidate)
    torch.testing.assert_close(log_weights, torch.zeros_like(log_weights), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", methods.names("loss"))
def test_a_loss_says_its_kind_and_does_not_mind_the_order(name: str, scores: Scores, bound: Callable[..., Any]) -> None:
    assert kind_of(name) in ("objective", "regulariser")
    value = value_of(bound("loss", name), scores, scores.candidate)
    moved = value_of(bound("loss", name), permuted(scores, ROWS, COLUMNS), scores.candidate[ROWS][:, COLUMNS])
    torch.testing.assert_close(moved, value)


OBJECTIVES = [name for name in methods.names("loss") if kind_of(name) == "objective"]
BOTH_DIRECTIONS = {"bsc", "ncu", "tripletclip"}  # where a row without negatives may still be one for documents


def gradient_of(loss: Callable[..., Any], scores: Scores, keep: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    value = value_of(loss, scores, keep, weights)
    (gradient,) = torch.autograd.grad(value, scores.student)
    return value.detach(), gradient


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_falls_as_a_positive_rises(name: str, scores: Scores, bound: Callable[..., Any]) -> None:
    _, gradient = gradient_of(bound("loss", name), scores, scores.candidate, torch.zeros_like(scores.student))
    assert gradient.isfinite().all()
    assert (gradient[scores.positive] <= 1e-7).all()
    assert gradient[scores.positive].sum() < -1e-4
    assert (gradient[~scores.positive & ~scores.candidate] == 0).all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_dropping_a_column_equals_deleting_it(name: str, scores: Scores, bound: Callable[..., Any]) -> None:
    keep = scores.candidate.clone()
    keep[:, 9] = False
    weights = torch.rand(keep.shape, generator=torch.Generator().manual_seed(1)).masked_fill(~scores.candidate, 0)
    value, gradient = gradient_of(bound("loss", name), scores, keep, weights)
    rest = torch.tensor([column for column in range(DOCUMENTS) if column != 9])
    student = scores.student.detach()[:, rest].requires_grad_()
    without = dataclasses.replace(permuted(scores, torch.arange(QUERIES), rest), student=student)
    deleted, deleted_gradient = gradient_of(bound("loss", name), without, keep[:, rest], weights[:, rest])
    torch.testing.assert_close(value, deleted)
    torch.testing.assert_close(gradient[:, rest], deleted_gradient)
    assert (gradient[:, 9] == 0).all()


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - BOTH_DIRECTIONS))
def test_a_row_without_negatives_is_left_out_and_counted(name: str, scores: Scores, bound: Callable[..., Any]) -> None:
    keep = scores.candidate.clone()
    keep[2] = False
    value, parts = bound("loss", name)(scores, keep, torch.zeros_like(scores.student))
    assert float(parts["rows_without_negatives"]) == 1
    rest = torch.tensor([0, 1, 3])
    without = permuted(scores, rest, torch.arange(DOCUMENTS))
    torch.testing.assert_close(value, value_of(bound("loss", name), without, keep[rest]))
    (gradient,) = torch.autograd.grad(value, scores.student)
    assert (gradient[2] == 0).all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_batch_without_any_negative_is_refused(name: str, scores: Scores, bound: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"^no query of this batch of 4 has a negative left: every other"):
        bound("loss", name)(scores, torch.zeros_like(scores.candidate), torch.zeros_like(scores.student))


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if neutral_options("loss", name) is not None])
def test_an_objective_with_neutral_options_is_infonce(name: str, scores: Scores) -> None:
    neutral, temperature = neutral_options("loss", name) or {}, 0.2
    weights = torch.rand(scores.student.shape, generator=torch.Generator().manual_seed(1))
    loss = methods.bind("loss", name, {**neutral, "temperature": temperature})
    infonce = methods.bind("loss", "infonce", {"temperature": temperature})
    value, gradient = gradient_of(loss, scores, scores.candidate, weights)
    expected, expected_gradient = gradient_of(infonce, scores, scores.candidate, weights)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("name", methods.names("loss"))
def test_half_precision_scores_do_not_overflow(name: str, scores: Scores, bound: Callable[..., Any]) -> None:
    half = dataclasses.replace(scores, student=scores.student.detach().half().requires_grad_())
    value = value_of(bound("loss", name), half, scores.candidate)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, value_of(bound("loss", name), scores, scores.candidate), rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("name", methods.names("loss"))
def test_double_precision_stays(name: str, scores: Scores, bound: Callable[..., Any]) -> None:
    double = dataclasses.replace(scores, student=scores.student.detach().double())
    if name == "orthogonal":
        double = dataclasses.replace(double, queries=scores.queries.double(), documents=scores.documents.double())
    assert value_of(bound("loss", name), double, scores.candidate).dtype == torch.float64
