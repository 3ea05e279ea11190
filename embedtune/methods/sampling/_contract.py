"""The contract of samplers, as functions that try one method."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._trial import (
    Contract,
    Trial,
    require,
)


def draws_without_replacement(trial: Trial) -> None:
    """A sampler draws `count` different candidates, or all that there are, and the same ones by the same seed."""
    candidates = torch.linspace(0.9, 0.1, 12)
    for count in (0, 1, 3, 12, 40):
        sampler = trial.make(count=count)

        def drawn(scores: Tensor, sampler: Any = sampler) -> list[int]:
            rows: list[int] = sampler(scores, 0.8, generator=torch.Generator().manual_seed(0)).tolist()
            return rows

        rows = drawn(candidates)
        expected = min(count, len(candidates))
        require(len(set(rows)) == len(rows) == expected, f"draws {rows} for count {count} of {len(candidates)}")
        require(set(rows) <= set(range(len(candidates))), f"draws {rows} of {len(candidates)} candidates")
        require(drawn(candidates) == rows, "draws others by the same seed")
        require(drawn(candidates[:0]) == [], "draws where there is no candidate")


def problem_of(rows: Any, scores: Tensor, positive_score: float) -> str:
    """What is wrong with what a call with these arguments returned; empty where nothing is."""
    if not isinstance(rows, Tensor) or rows.dtype != torch.int64 or rows.ndim != 1:
        return "expected a tensor of row numbers (n,), of int64"
    if len(set(rows.tolist())) < len(rows) or not set(rows.tolist()) <= set(range(len(scores))):
        return f"returned the rows {rows.tolist()} of {len(scores)} candidates, expected each at most once"
    return ""


def contracts(trial: Trial) -> list[Contract]:
    """The contracts of a sampler."""
    return [draws_without_replacement]
