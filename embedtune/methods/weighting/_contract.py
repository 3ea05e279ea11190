"""The contract of weightings, as functions that try one method."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...types import Scores
from .._returns import tensor_problem
from .._trial import (
    COLUMNS,
    ROWS,
    Contract,
    Trial,
    require,
    shuffled,
    trial_scores,
)


def weighs_negatives_only(trial: Trial) -> None:
    """A weighting is float32, finite, and 0 where keep is False: on positives and on dropped candidates."""
    scores = trial_scores()
    keep = _some_dropped(scores)
    log_weights = trial.make()(scores, keep)
    require(log_weights.dtype == torch.float32, f"returns {log_weights.dtype}, expected float32")
    require(
        log_weights.shape == keep.shape, f"returns the shape {tuple(log_weights.shape)}, expected {tuple(keep.shape)}"
    )
    require(log_weights.isfinite().all(), "returns a log-weight that is not finite")
    require((log_weights[~keep] == 0).all(), "returns a log-weight other than 0 where keep is False")
    moved = trial.make()(shuffled(scores), keep[ROWS][:, COLUMNS])
    require(torch.allclose(moved, log_weights[ROWS][:, COLUMNS], atol=1e-5), "depends on the order of rows and columns")


def weighs_nothing_when_neutral(trial: Trial) -> None:
    """A weighting returns 0 everywhere with the neutral options of its SPEC."""
    scores = trial_scores()
    log_weights = trial.make(**dict(trial.spec.neutral or {}))(scores, scores.candidate)
    require(torch.allclose(log_weights, torch.zeros_like(log_weights), atol=1e-6), "weighs with its neutral options")


def _some_dropped(scores: Scores) -> Tensor:
    keep = scores.candidate.clone()
    keep[1] = False  # a query without negatives
    keep[2, 9] = False
    return keep


def problem_of(log_weights: Any, scores: Scores, keep: Tensor) -> str:
    """What is wrong with what a call with these arguments returned; empty where nothing is."""
    problem = tensor_problem(log_weights, keep.shape, "float")
    if problem:
        return problem
    if bool(scores.student.isfinite().all()) and not bool(log_weights.isfinite().all()):
        return "returned log-weights that are not finite"
    return "returned log-weights other than 0 where keep is False" if bool((log_weights[~keep] != 0).any()) else ""


def contracts(trial: Trial) -> list[Contract]:
    """The contracts of a weighting."""
    return [weighs_negatives_only, *([weighs_nothing_when_neutral] if trial.spec.neutral is not None else [])]
