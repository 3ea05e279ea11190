from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...types import Scores
from .. import MethodSpec
from .._numerics import full
from ._pairs import mean_by_group, row_counts

SPEC = MethodSpec(kind="objective", needs=("teacher",), scheduled=("scale",), by_query=True)


class MarginMse(nn.Module):
    """Fits the student's margins s+ - s- to the teacher's by squared error (MarginMSE, arXiv 2010.02666).

    scale: multiplies the student's margins. The paper fits dot products; cosines cannot fit a teacher's margins
        beyond 2 without a scale. learn_scale: makes it a parameter.

    A log-weight multiplies its negative's squared error. Negatives that the teacher has not scored (NaN) are left out;
    so are rows without any, which are counted. The mean is over negatives, positives, then rows. Raises InputError
    without a teacher.
    """

    def __init__(self, *, scale: float = 1.0, learn_scale: bool = False) -> None:
        super().__init__()
        if not scale > 0:
            raise InputError(f"loss.margin_mse.scale: must be above 0, got {scale}")
        self.scale = scale
        self.log_scale = nn.Parameter(torch.tensor(scale).log()) if learn_scale else None

    def forward(self, scores: Scores, keep: Tensor, log_weights: Tensor) -> tuple[Tensor, dict[str, float | Tensor]]:
        if scores.teacher is None:
            raise InputError("loss.margin_mse: needs a teacher's scores")
        teacher = full(scores.teacher.detach())
        rows, columns = (scores.positive & ~teacher.isnan()).nonzero(as_tuple=True)  # (P,) each
        scored = (keep & ~teacher.isnan())[rows]  # (P, D)
        valid = scored.any(dim=1)
        parts = row_counts(rows, valid, len(keep))
        scale = self.scale if self.log_scale is None else self.log_scale.exp()
        student = full(scores.student) * scale
        margins = student[rows, columns][:, None] - student[rows]  # (P, D)
        wanted = teacher[rows, columns][:, None] - teacher[rows].nan_to_num()
        errors = ((margins - wanted) ** 2 * log_weights[rows].exp()).masked_fill(~scored, 0.0)
        values = errors.sum(dim=1) / scored.sum(dim=1).clamp(min=1)
        if isinstance(scale, Tensor):
            parts["scale"] = scale.detach()
        return mean_by_group(values, rows, valid, len(keep)), parts
