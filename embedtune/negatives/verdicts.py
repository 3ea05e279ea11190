"""Filters at work on one query's candidates: what each says, by which number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import nn

from .. import methods
from ..methods.mining import numbered
from ..recipe import Chosen
from ..types import Scores
from .evidence import Verdict


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A filter in place, and what it takes to say its limit."""

    name: str
    decide: Any
    limit: Any

    @property
    def started(self) -> bool:
        """A filter that learns on the way has nothing to say before it has seen a batch: its state is still empty."""
        return not isinstance(self.decide, nn.Module) or all(state.numel() for state in self.decide.buffers())


def judges_of(chosen: Sequence[Chosen], filters: Sequence[Any] | None = None) -> list[Judge]:
    """The recipe's filters in place, a number behind a name that comes twice.

    filters: the same filters, where they exist already and may have learned something.
    """
    names = numbered([c.name for c in chosen])
    made = filters if filters is not None else [methods.bind("filtering", c.name, c.options) for c in chosen]
    return [
        Judge(name=name, decide=decide, limit=limit_of(c.name, decide))
        for name, c, decide in zip(names, chosen, made, strict=True)
    ]


def limit_of(name: str, decide: Any) -> Any:
    """The function `limit` of the filter's file, with the filter's own options."""
    limit = getattr(import_module(f"embedtune.methods.filtering.{name}"), "limit", None)
    if limit is None:
        return None
    if isinstance(decide, methods.Scheduled):
        return methods.Scheduled(limit, decide.fixed, decide.schedules)
    return partial(limit, **decide.keywords)


def verdicts_of(judge: Judge, scores: Scores) -> list[Verdict]:
    """What a filter says of one query's columns (1, D)."""
    if isinstance(judge.decide, nn.Module):
        was_training = judge.decide.training
        judge.decide.eval()
        with torch.inference_mode():
            keep = judge.decide(scores)
        judge.decide.train(was_training)
    else:
        keep = judge.decide(scores)
    if judge.limit is None:
        return [Verdict(name=judge.name, keep=said) for said in keep[0].tolist()]
    limit = float(judge.limit(scores))
    number = limit if math.isfinite(limit) else None
    values = scores.judge[0].tolist()
    return [
        Verdict(name=judge.name, keep=said, value=value, limit=number)
        for said, value in zip(keep[0].tolist(), values, strict=True)
    ]
