from __future__ import annotations

import torch
from torch import Tensor

from ...types import Scores
from .. import MethodSpec


def absolute(scores: Scores, *, below: float = 0.7) -> Tensor:
    """Keeps candidates scored below a fixed cap (TopK-Abs of NV-Retriever, arXiv 2407.15831).

    below: the cap, in the units of the compared scores (the teacher's with a teacher, else the student's); the
    default is meant for cosine. Where
    there is no score (NaN) the candidate stays.
    """
    return scores.candidate & ~(scores.judge >= below)


def limit(scores: Scores, *, below: float = 0.7) -> Tensor:
    """(Q, 1) what a candidate's score is compared with, for the evidence."""
    return torch.full((len(scores.candidate), 1), below)


SPEC = MethodSpec(by_query=True, cosine="cap", limit=limit, reads_teacher=True)
