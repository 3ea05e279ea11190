from __future__ import annotations

from torch import Tensor

from ..errors import InputError
from ..similarities import full
from ..types import Scores
from .infonce import Infonce

KIND = "objective"


def bsc(
    scores: Scores, keep: Tensor, log_weights: Tensor, *, temperature: float = 0.1, contrast: float = 0.5
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Symmetric in-batch softmax mixed with a squared error on the labelled pairs (BSC, arXiv 2110.15725).

    loss = contrast * InfoNCE in both directions, averaged as in the released code (the paper's text has their sum)
    + (1 - contrast) * mean (s - y)^2, where y is 1 for positives and 0 for the kept negatives mined for the query.

    contrast: 0.1 to 0.9 in the paper, 0.5 in the code; at 1 it is symmetric InfoNCE.
    """
    if not 0 <= contrast <= 1:
        raise InputError(f"loss.bsc.contrast: expected 0 to 1, got {contrast}")
    infonce = Infonce(temperature=temperature, directions=["query_document", "document_query"])
    batch_softmax, parts = infonce(scores, keep, log_weights)
    labelled = scores.positive if scores.own is None else scores.positive | (keep & scores.own)
    errors = (full(scores.student) - scores.positive.float()) ** 2
    squared = errors[labelled].mean()
    parts |= {"batch_softmax": batch_softmax.detach(), "squared_error": squared.detach()}
    return contrast * batch_softmax + (1 - contrast) * squared, parts
