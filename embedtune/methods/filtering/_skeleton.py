from __future__ import annotations

from torch import Tensor

from embedtune.methods import MethodSpec
from embedtune.types import Scores


def skeleton(scores: Scores, *, margin: float = 0.1) -> Tensor:
    """Drops candidates that come near the best positive: say in one line what yours does (and cite its paper).

    margin: a candidate is dropped where score > p - margin, p being the query's best positive score. Say what each
    option does and where you depart. Where there is no score (NaN) the candidate stays.
    """
    return scores.candidate & ~(scores.judge > limit(scores, margin=margin))


def limit(scores: Scores, *, margin: float = 0.1) -> Tensor:
    """(Q, 1) the number that a candidate's score is compared with. The evidence of mining records it."""
    positives = scores.judge.masked_fill(~scores.positive | scores.judge.isnan(), float("-inf"))
    return positives.amax(dim=1, keepdim=True) - margin


SPEC = MethodSpec(by_query=True, reads_teacher=True, cosine="margin", limit=limit)
