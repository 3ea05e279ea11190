from __future__ import annotations

from torch import Tensor

from ..types import Scores


def absolute(scores: Scores, *, below: float = 0.7) -> Tensor:
    """Keeps candidates scored below a fixed cap (TopK-Abs of NV-Retriever, arXiv 2407.15831).

    below: the cap, in the judge's units (teacher where given, else student); the default is meant for cosine. Where
    there is no score (NaN) the candidate stays.
    """
    return scores.candidate & ~(scores.judge >= below)
