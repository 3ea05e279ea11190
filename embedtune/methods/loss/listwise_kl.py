from __future__ import annotations

from torch import Tensor

from ...errors import InputError
from ...types import Scores
from .. import MethodSpec
from ._lists import lists

SPEC = MethodSpec(kind="objective", needs=("teacher",), by_query=True)


def listwise_kl(
    scores: Scores,
    keep: Tensor,
    log_weights: Tensor,
    *,
    temperature: float = 0.05,
    teacher_temperature: float = 0.3,
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Fits the student's distribution over each query's list to the teacher's by KL(teacher || student) (2502.19712).

    A query's list is its positives and its kept negatives, those that the teacher has scored (not NaN). The defaults
    are those of the paper: cosines at 0.05, rescaled reranker scores at 0.3. As teacher_temperature falls to 0 this
    becomes InfoNCE with the teacher's best document as the positive.

    Log-weights are added to the student's logits. No factor temperature^2. Rows without a scored negative are left out
    and counted. Raises InputError without a teacher.
    """
    if not (temperature > 0 and teacher_temperature > 0):
        raise InputError(f"loss.listwise_kl: temperatures must be above 0, got {temperature} and {teacher_temperature}")
    if scores.teacher is None:
        raise InputError("loss.listwise_kl: needs a teacher's scores")
    listing = lists(
        scores,
        keep,
        log_weights,
        scores.teacher,
        temperature=temperature,
        teacher_temperature=teacher_temperature,
    )
    divergence = (listing.teacher.exp() * (listing.teacher - listing.student)).masked_fill(~listing.listed, 0.0)
    return divergence.sum(dim=1).mean(), listing.counts
