"""What makers of vectors share: embeddings as constants, random shares, and the columns that scores gain."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ...errors import InputError
from ...types import Scores
from .._numerics import full


def embeddings(scores: Scores, name: str) -> tuple[Tensor, Tensor]:
    """(Q, H) queries and (D, H) documents as scored, in full precision, without gradient."""
    if scores.queries is None or scores.documents is None:
        raise InputError(f"synthesis.{name}: needs the embeddings of queries and documents")
    return full(scores.queries.detach()), full(scores.documents.detach())


def shares(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Random numbers from 0 up to 1, drawn where the generator lives: the same ones for every device."""
    return torch.rand(shape, generator=generator, device=generator.device).to(like)


def with_length(vectors: Tensor, length: Tensor | float) -> Tensor:
    """The vectors' directions at this length: 1 among normalised embeddings."""
    return torch.nn.functional.normalize(vectors, dim=-1, eps=1e-12) * length


def append(
    scores: Scores, keep: Tensor, made: Tensor, allowed: Tensor, *, own_negatives: bool = False
) -> tuple[Scores, Tensor]:
    """Scores and keep (Q, D + M) with the made embeddings (M, H) as columns that nothing trains and no query is for.

    allowed: (Q, M) where a made column is a negative of the row. own_negatives: the columns are the row's own
    negatives. A gradient reaches the queries alone.
    """
    if not len(made) or scores.queries is None or scores.documents is None:
        return scores, keep
    made = made.detach()
    student = (full(scores.queries) @ made.T).to(scores.student.dtype)
    nowhere, nan = torch.zeros_like(allowed), torch.full_like(student.detach(), torch.nan)
    before = scores.made if scores.made is not None else torch.zeros_like(scores.positive[0])
    of_rows = scores.own if scores.own is not None or not own_negatives else torch.zeros_like(scores.positive)

    def beside(values: Tensor | None, more: Tensor) -> Tensor | None:
        return None if values is None else torch.cat([values, more.to(values)], dim=1)

    extended = dataclasses.replace(
        scores,
        student=torch.cat([scores.student, student], dim=1),
        positive=torch.cat([scores.positive, nowhere], dim=1),
        candidate=torch.cat([scores.candidate, allowed], dim=1),
        own=beside(of_rows, allowed if own_negatives else nowhere),
        teacher=beside(scores.teacher, nan),
        mined=beside(scores.mined, nan),
        documents=torch.cat([scores.documents, made.to(scores.documents)]),
        doc_ids=scores.doc_ids + ("",) * len(made) if scores.doc_ids else (),
        made=torch.cat([before, before.new_ones(len(made))]),
        made_by=scores.made_by + ("",) * len(made) if scores.made_by else (),
    )
    return extended, torch.cat([keep, allowed], dim=1)
