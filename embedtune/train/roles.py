"""Filters that decide about two queries, or two documents, as they do about a query and a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from .. import methods
from ..methods.loss._pairs import other_queries
from ..recipe import Recipe
from ..types import Scores

WITHIN_ROLES = {"query_query", "document_document"}


def asks_within_roles(loss: Any) -> bool:
    """Whether a loss (InfoNCE, or one around it) compares items of one role."""
    return bool(WITHIN_ROLES & set(getattr(loss, "directions", ())))


def limits_of(recipe: Recipe) -> dict[int, Any]:
    """Filter's index -> its limit, for the filters that also decide within a role (`same_role` in their SPEC)."""
    return {
        index: methods.bind_limit(chosen.name, chosen.options)
        for index, chosen in enumerate(recipe.negatives.filtering)
        if methods.describe("filtering", chosen.name).spec.same_role
    }


def within_roles(scores: Scores, keep: Tensor, limits: Sequence[Any]) -> Scores:
    """Scores with what the teacher leaves of other queries, and of other documents; as they are without limits.

    keep: (Q, D) what the other filters left, which within roles are followed.
    """
    if not limits or scores.teacher_queries is None or scores.teacher_documents is None:
        return scores
    rows, columns = scores.positive.nonzero(as_tuple=True)
    queries, documents = other_queries(scores, keep), keep[rows]
    for limit in limits:
        bar = limit(scores)  # (Q, 1)
        queries = queries & ~(scores.teacher_queries > bar)
        documents = documents & ~(scores.teacher_documents[columns] > bar[rows])
    return replace(scores, kept_queries=queries, kept_documents=documents)
