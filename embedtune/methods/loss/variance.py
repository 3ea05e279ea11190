from __future__ import annotations

from torch import Tensor

from ...types import Scores
from .. import MethodSpec
from .._numerics import full
from ._pairs import MEAN_OVER

SPEC = MethodSpec(kind="regulariser", by_query=True)


def variance(
    scores: Scores, keep: Tensor, log_weights: Tensor, *, target: float = 0.0
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Moves all negatives' similarities towards one value: mean (s - target)^2 (VRN, arXiv 2506.09781).

    Added to an objective with weight 30 in the paper; meant for small batches, whose negatives spread too far.
    target: the paper's -1 / (k - 1) for k training pairs, so about 0 for real data; above 0 it invites collapse.
    The mean is over all kept negatives of the batch. Log-weights are ignored.
    """
    errors = (full(scores.student) - target)[keep] ** 2
    return errors.sum() / max(errors.numel(), 1), {MEAN_OVER: errors.numel()}
