from __future__ import annotations

import torch
from torch import Tensor

from ...types import Scores
from .. import MethodSpec
from .._numerics import full
from ._pairs import mean_by_group, row_counts

SPEC = MethodSpec(kind="objective", by_query=True)


def triplet_semihard(
    scores: Scores, keep: Tensor, log_weights: Tensor, *, margin: float = 0.2
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Triplet loss on the semi-hard negative: the nearest one that is farther than the positive (FaceNet, 1503.03832).

    relu(d+ - d- + margin) with distance d = 1 - score; where no negative is farther than the positive, the farthest
    one is taken, as in sentence-transformers. margin: in score units.

    Departures: cosine distance; FaceNet and sentence-transformers have Euclidean ones. The chosen negative's log-weight
    multiplies its triplet. Several positives: the mean over them.
    """
    rows, columns = scores.pairs  # (P,) each
    valid = keep.any(dim=1)[rows]
    parts = row_counts(rows, valid, len(keep))
    student = full(scores.student)
    positive = student[rows, columns][:, None]
    negatives = student[rows]  # (P, D)
    farther = keep[rows] & (negatives < positive)
    nearest_farther = negatives.masked_fill(~farther, -torch.inf).argmax(dim=1, keepdim=True)
    farthest = negatives.masked_fill(~keep[rows], torch.inf).argmin(dim=1, keepdim=True)
    chosen = torch.where(farther.any(dim=1, keepdim=True), nearest_farther, farthest)  # (P, 1)
    triplets = (negatives.gather(1, chosen) - positive + margin).relu() * log_weights[rows].gather(1, chosen).exp()
    return mean_by_group(triplets.squeeze(1) * valid, rows, valid, len(keep)), parts
