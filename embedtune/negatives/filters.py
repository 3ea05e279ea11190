"""Applies the recipe's filters to one query's candidates, and records each verdict with its numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .. import methods
from ..methods.mining import numbered
from ..recipe import Chosen
from ..types import Scores
from .evidence import FilterVerdict


@dataclass(frozen=True, kw_only=True)
class AppliedFilter:
    """A filter with its options. limit: the function that gives the number it compares scores with, or None."""

    name: str
    decide: Any
    limit: Any

    @property
    def started(self) -> bool:
        """False for a filter that learns in training and has seen no batch yet: its buffers are still empty."""
        return not isinstance(self.decide, nn.Module) or all(state.numel() for state in self.decide.buffers())


def applied(chosen: Sequence[Chosen], learned: Sequence[Any] | None = None) -> list[AppliedFilter]:
    """The filters that a recipe chooses. The second of one name is called `name-2`.

    learned: the same filters as training has them; None makes new ones.
    """
    names = numbered([c.name for c in chosen])
    filters = learned if learned is not None else [methods.bind("filtering", c.name, c.options) for c in chosen]
    return [
        AppliedFilter(name=name, decide=decide, limit=methods.bind_limit(c.name, c.options))
        for name, c, decide in zip(names, chosen, filters, strict=True)
    ]


def verdicts_of(applied_filter: AppliedFilter, scores: Scores) -> list[FilterVerdict]:
    """The filter's verdict on each of one query's columns (1, D)."""
    decide = applied_filter.decide
    if isinstance(decide, nn.Module):
        was_training = decide.training
        decide.eval()
        with torch.inference_mode():
            keep = decide(scores)[0].tolist()
        decide.train(was_training)
    else:
        keep = decide(scores)[0].tolist()
    if applied_filter.limit is None:
        return [FilterVerdict(name=applied_filter.name, keep=kept) for kept in keep]
    number = float(applied_filter.limit(scores))
    limit = number if math.isfinite(number) else None
    return [
        FilterVerdict(name=applied_filter.name, keep=kept, value=value, limit=limit)
        for kept, value in zip(keep, scores.judge[0].tolist(), strict=True)
    ]
