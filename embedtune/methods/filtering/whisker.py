from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ...types import Scores
from .. import MethodSpec

SPEC = MethodSpec(by_query={"over": "row"}, reads_teacher=True)


def whisker(scores: Scores, *, reach: float = 1.5, over: Literal["row", "batch"] = "row") -> Tensor:
    """Keeps candidates within the box plot's whiskers of their scores (UNPG, arXiv 2203.11593).

    reach: a candidate stays where q1 - reach * (q3 - q1) <= score <= q3 + reach * (q3 - q1). The quartiles are the
    sorted scores at int(0.25 n) and int(0.75 n), as in the released code, whose scripts use 1.5; 0 keeps the box only.
    over: row takes the quartiles of each query's candidates; batch those of all of them together.

    Departures: UNPG cuts all pairs of a batch at once; row is the default here because a mined candidate's verdict
    should not depend on which other queries are filtered with it. Where there is no score (NaN) the candidate stays.
    """
    shape = scores.candidate.shape if over == "row" else (1, scores.candidate.numel())
    judge = scores.judge.reshape(shape)
    known = scores.candidate.reshape(shape) & ~judge.isnan()
    ordered = judge.masked_fill(~known, torch.inf).sort(dim=1).values
    count = known.sum(dim=1, keepdim=True)  # (Q, 1)
    q1 = ordered.gather(1, (0.25 * count).long())
    q3 = ordered.gather(1, (0.75 * count).long())
    outside = (judge < q1 - reach * (q3 - q1)) | (judge > q3 + reach * (q3 - q1))
    return scores.candidate & ~(known & outside).reshape(scores.candidate.shape)
