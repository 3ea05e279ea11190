"""The contract of losses, as functions that try one method."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from ...types import Scores
from .. import _seam as seam
from .._returns import tensor_problem
from .._trial import (
    COLUMNS,
    DOCUMENTS,
    QUERIES,
    ROWS,
    Contract,
    ContractBroken,
    Trial,
    require,
    selected,
    shuffled,
    trial_scores,
)


def value_of(loss: Any, scores: Scores, keep: Tensor, log_weights: Tensor | None = None) -> Tensor:
    """The loss's value. Raises ContractBroken for one that is not finite or not a scalar."""
    value: Tensor = loss(scores, keep, torch.zeros_like(scores.student) if log_weights is None else log_weights)[0]
    require(value.shape == () and value.isfinite(), f"returns {value}, expected one finite number")
    return value


def gradient_of(loss: Any, scores: Scores, keep: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """The loss's value and its gradient with respect to the student's scores (Q, D)."""
    value = value_of(loss, scores, keep, log_weights)
    (gradient,) = torch.autograd.grad(value, scores.student)
    return value.detach(), gradient


def does_not_mind_the_order(trial: Trial) -> None:
    """A loss is the same in any order of queries and documents."""
    scores = trial_scores()
    value = value_of(trial.make(), scores, scores.candidate).detach()
    moved = value_of(trial.make(), shuffled(scores), scores.candidate[ROWS][:, COLUMNS]).detach()
    require(
        torch.allclose(moved, value, rtol=1e-4, atol=1e-5), f"is {float(moved)} reordered, and {float(value)} before"
    )


def falls_as_a_positive_rises(trial: Trial) -> None:
    """An objective falls as a positive's score rises, and ignores columns that are neither positive nor candidate."""
    scores = trial_scores()
    _, gradient = gradient_of(trial.make(), scores, scores.candidate, torch.zeros_like(scores.student))
    require(gradient.isfinite().all(), "has a gradient that is not finite")
    require((gradient[scores.positive] <= 1e-7).all(), "rises as a positive's score rises")
    require(gradient[scores.positive].sum() < -1e-4, "does not fall as the positives' scores rise")
    require((gradient[~scores.positive & ~scores.candidate] == 0).all(), "moves a column that is no candidate")


def drops_as_if_deleted(trial: Trial) -> None:
    """An objective treats a dropped column as if it did not exist, in value and gradient."""
    scores = trial_scores()
    keep = scores.candidate.clone()
    keep[:, 9] = False
    weights = torch.rand(keep.shape, generator=torch.Generator().manual_seed(1)).masked_fill(~scores.candidate, 0)
    value, gradient = gradient_of(trial.make(), scores, keep, weights)
    rest = torch.tensor([column for column in range(DOCUMENTS) if column != 9])
    student = scores.student.detach()[:, rest].requires_grad_()
    without = dataclasses.replace(selected(scores, torch.arange(QUERIES), rest), student=student)
    deleted, deleted_gradient = gradient_of(trial.make(), without, keep[:, rest], weights[:, rest])
    require(torch.allclose(value, deleted, rtol=1e-4, atol=1e-6), "has another value where a dropped column is deleted")
    require(torch.allclose(gradient[:, rest], deleted_gradient, atol=1e-5), "has another gradient there")
    require((gradient[:, 9] == 0).all(), "moves a dropped column")


def leaves_out_rows_without_negatives(trial: Trial) -> None:
    """An objective leaves a query without negatives out of its mean and counts it (`rows_without_negatives`)."""
    scores = trial_scores()
    keep = scores.candidate.clone()
    keep[2] = False
    value, parts = trial.make()(scores, keep, torch.zeros_like(scores.student))
    require(float(parts.get("rows_without_negatives", 0)) == 1, "does not count a query without negatives")
    rest = torch.tensor([0, 1, 3])
    without = value_of(trial.make(), selected(scores, rest, torch.arange(DOCUMENTS)), keep[rest])
    require(torch.allclose(value, without, rtol=1e-4, atol=1e-6), "counts a query without negatives in its mean")
    (gradient,) = torch.autograd.grad(value, scores.student)
    require((gradient[2] == 0).all(), "moves a query without negatives")


def refuses_a_batch_without_negatives(trial: Trial) -> None:
    """An objective refuses a batch in which no query has a negative, by `WithoutNegatives`."""
    scores = trial_scores()
    try:
        trial.make()(scores, torch.zeros_like(scores.candidate), torch.zeros_like(scores.student))
    except InputError as error:
        require(str(error).startswith("no query of this batch"), f"refuses it by another sentence: {error}")
    else:
        raise ContractBroken("trains on a batch without any negative")


def is_infonce_when_neutral(trial: Trial) -> None:
    """An objective with the neutral options of its SPEC is InfoNCE, in value and gradient."""
    scores, temperature = trial_scores(), 0.2
    weights = torch.rand(scores.student.shape, generator=torch.Generator().manual_seed(1))
    loss = trial.make(**dict(trial.spec.neutral or {}), temperature=temperature)
    infonce = seam.bind("loss", "infonce", {"temperature": temperature})
    value, gradient = gradient_of(loss, scores, scores.candidate, weights)
    expected, expected_gradient = gradient_of(infonce, scores, scores.candidate, weights)
    require(torch.allclose(value, expected, rtol=1e-4), f"is {float(value)} where InfoNCE is {float(expected)}")
    require(torch.allclose(gradient, expected_gradient, atol=1e-5), "has another gradient than InfoNCE")


def computes_half_precision_in_full(trial: Trial) -> None:
    """A loss computes scores of half precision in float32, and scores of float64 in float64."""
    scores = trial_scores()
    half = dataclasses.replace(scores, student=scores.student.detach().half().requires_grad_())
    value = value_of(trial.make(), half, scores.candidate).detach()
    full = value_of(trial.make(), scores, scores.candidate).detach()
    require(value.dtype == torch.float32, f"returns {value.dtype} for half precision")
    require(
        torch.allclose(value, full, rtol=0.02, atol=1e-3), f"is {float(value)} in half precision, {float(full)} in full"
    )
    assert scores.queries is not None
    assert scores.documents is not None
    double = dataclasses.replace(
        scores,
        student=scores.student.detach().double(),
        queries=scores.queries.double(),
        documents=scores.documents.double(),
    )
    value = value_of(trial.make(), double, scores.candidate)
    require(value.dtype == torch.float64, f"returns {value.dtype} for float64")


def problem_of(returned: Any, scores: Scores, keep: Tensor, log_weights: Tensor) -> str:
    """What is wrong with what a call with these arguments returned; empty where nothing is."""
    if not isinstance(returned, tuple) or len(returned) != 2 or not isinstance(returned[1], dict):
        return f"returned {type(returned).__name__}, expected a loss and a dict of its parts"
    value, parts = returned
    problem = tensor_problem(value, (), "float")
    if not problem and bool(scores.student.isfinite().all()) and not bool(value.isfinite()):
        return f"returned a loss of {float(value.detach())}"
    for key, part in parts.items():
        tensor = isinstance(part, Tensor) and part.numel() == 1 and not part.requires_grad
        if not tensor and not isinstance(part, int | float):
            return f"returned the part {key!r}, expected a number without gradient"
    return problem


def contracts(trial: Trial) -> list[Contract]:
    """The contracts of a loss: those of every loss, and those of an objective, which stands alone."""
    always: list[Contract] = [does_not_mind_the_order, computes_half_precision_in_full]
    if trial.spec.kind != "objective":
        return always
    by_query = seam.by_query("loss", trial.method.name, trial.options)
    return [
        *always,
        falls_as_a_positive_rises,
        drops_as_if_deleted,
        refuses_a_batch_without_negatives,
        *([leaves_out_rows_without_negatives] if by_query else []),
        *([is_infonce_when_neutral] if trial.spec.neutral is not None else []),
    ]
