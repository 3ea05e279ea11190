from __future__ import annotations

import torch
from torch import Tensor

from ...errors import InputError
from ...types import Scores
from .. import MethodSpec


def complementary(scores: Scores, *, at_most: float = 0.9) -> Tensor:
    """Drops candidates that a frozen second encoder finds too similar (the instance weights of DCLR, arXiv 2205.00656).

    at_most: the largest similarity that stays, in the teacher's units (the paper: 0.9 for BERT, 0.85 for RoBERTa).
    Raises InputError without a teacher, who is the second encoder. Where it gave no score (NaN) the candidate stays.

    Departure: the paper's weight 0 takes the candidate out of the denominator, as here; the released code multiplies
    the logit by it, which leaves exp(0) there.
    """
    if scores.teacher is None:
        raise InputError("filtering.complementary: needs a teacher's scores; give a teacher, or use absolute")
    return scores.candidate & ~(scores.teacher > at_most)


def limit(scores: Scores, *, at_most: float = 0.9) -> Tensor:
    """(Q, 1) what a candidate's score is compared with, for the evidence."""
    return torch.full((len(scores.candidate), 1), at_most)


SPEC = MethodSpec(needs=("teacher",), by_query=True, cosine="cap", limit=limit)
