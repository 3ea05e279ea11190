from __future__ import annotations

from typing import Literal

from torch import Tensor

from ...errors import InputError
from ...types import Scores
from .. import MethodSpec
from .._numerics import full, lowest_positive


def guide(scores: Scores, *, margin: float = 0.0, margin_kind: Literal["absolute", "relative"] = "absolute") -> Tensor:
    """Drops candidates that a frozen guide model scores above the positive (GISTEmbed, arXiv 2402.16829).

    margin: a candidate is dropped where guide score > p - margin (absolute) or > p - |p| * margin (relative), p being
    the query's lowest positive score by the guide. Raises InputError without a teacher, who is the guide.

    GISTEmbed's four blocks: this call decides about documents for a query (in-batch and own negatives); in the
    directions query_query and document_document of infonce the guide's scores of two queries, or of the positive and
    another document, are held against the same limit. Where the guide gave no score (NaN) the candidate stays.
    """
    if scores.teacher is None:
        raise InputError("filtering.guide: needs a teacher's scores; give a teacher, or use positive_margin")
    return scores.candidate & ~(full(scores.teacher) > limit(scores, margin=margin, margin_kind=margin_kind))


def limit(scores: Scores, *, margin: float = 0.0, margin_kind: Literal["absolute", "relative"] = "absolute") -> Tensor:
    """(Q, 1) what a candidate's score is compared with."""
    positive = lowest_positive(full(scores.judge), scores.positive)
    return positive - (margin * positive.abs() if margin_kind == "relative" else margin)


SPEC = MethodSpec(needs=("teacher",), by_query=True, same_role=True, limit=limit)
