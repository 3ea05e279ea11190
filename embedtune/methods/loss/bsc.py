from __future__ import annotations

import dataclasses
from typing import Literal

from torch import Tensor, nn

from ...errors import InputError
from ...types import Scores
from .. import MethodSpec
from .._numerics import full
from .infonce import Infonce

SPEC = MethodSpec(kind="objective", scheduled=("temperature", "contrast"))


class Bsc(nn.Module):
    """Symmetric in-batch softmax mixed with a squared error on the labelled pairs (BSC, arXiv 2110.15725).

    loss = contrast * InfoNCE in both directions, averaged as in the released code (the paper's text has their sum)
    + (1 - contrast) * mean (s - y)^2, where y is 1 for positives and 0 for the kept negatives mined for the query.

    contrast: 0.1 to 0.9 in the paper, 0.5 in the code; at 1 it is symmetric InfoNCE.
    temperature, learn_temperature: as in infonce; the paper has 0.055 to 0.1.
    normalisation: of the embeddings in the softmax. model: as the model scores them (cosine or dot); range: each
        coordinate divided by its range over the batch, separately for queries and documents, without centring. The
        squared error keeps the model's scores.

    Its groups of similar texts are the batching methods `shingles`, and `neighbours` with nearest: 1.0 and select: 9.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        learn_temperature: bool = False,
        contrast: float = 0.5,
        normalisation: Literal["model", "range"] = "model",
    ) -> None:
        super().__init__()
        if not 0 <= contrast <= 1:
            raise InputError(f"loss.bsc.contrast: expected 0 to 1, got {contrast}")
        self.temperature, self.contrast, self.by_range = temperature, contrast, normalisation == "range"
        both: list[Literal["query_document", "document_query", "query_query", "document_document"]] = [
            "query_document",
            "document_query",
        ]
        self.softmax = Infonce(temperature=temperature, learn_temperature=learn_temperature, directions=both)

    def forward(self, scores: Scores, keep: Tensor, log_weights: Tensor) -> tuple[Tensor, dict[str, float | Tensor]]:
        self.softmax.temperature = self.temperature  # which may follow a schedule
        compared = by_range(scores) if self.by_range else scores
        batch_softmax, parts = self.softmax(compared, keep, log_weights)
        labelled = scores.positive if scores.own is None else scores.positive | (keep & scores.own)
        errors = (full(scores.student) - scores.positive.float()) ** 2
        squared = errors[labelled].mean()
        parts |= {"batch_softmax": batch_softmax.detach(), "squared_error": squared.detach()}
        return self.contrast * batch_softmax + (1 - self.contrast) * squared, parts


def by_range(scores: Scores) -> Scores:
    """The scores of embeddings whose coordinates are divided by their range over the batch."""
    if scores.queries is None or scores.documents is None:
        raise InputError("loss.bsc.normalisation: range needs embeddings, and here are scores only")

    def divided(embeddings: Tensor) -> Tensor:
        ranges = embeddings.amax(dim=0) - embeddings.amin(dim=0)
        return embeddings / ranges.clamp(min=1e-6)

    student = divided(full(scores.queries)) @ divided(full(scores.documents)).T
    return dataclasses.replace(scores, student=student)
