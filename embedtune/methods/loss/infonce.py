from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...types import Scores
from .. import MethodSpec
from .._numerics import full
from ._pairs import cross_entropy, mean_by_group, negatives_of, own_negatives, row_counts

SPEC = MethodSpec(
    kind="objective",
    scheduled=("temperature", "label_smoothing"),
    by_query={"directions": ["query_document"]},
    needs_if={"own": {"negatives": "own"}},
)
LARGEST_SCALE = 100.0


class Infonce(nn.Module):
    """Cross-entropy of each positive against the kept negatives, in up to four directions (InfoNCE, arXiv 1807.03748).

    temperature: divides the scores. learn_temperature: starts from it (log(1/temperature) is a parameter, and
        1/temperature is held at 100 at most, as in CLIP, arXiv 2103.00020).
    directions: which negatives stand against the positive pair (query q, document d):
        query_document: other documents for q; document_query: other queries for d; query_query: other queries against
        q itself; document_document: other documents against d itself, but not those mined for q, which are meant to be
        near d. Another query counts as negative for q where all its positives are kept negatives of q.
    denominator: separate takes one cross-entropy per direction and their mean (with the first two directions the
        symmetric loss of CLIP); joint puts the negatives of all directions into one (GTE, arXiv 2308.03281).
    negatives: own leaves each query only the negatives mined or made for it, none of the batch's others (the text loss
        of MMGeoLM, arXiv 2505.20152).
    label_smoothing: the share of the target that is spread over the positive and its negatives (Sample4Geo, 2303.11851:
        0.1 with both directions and a learned temperature).

    In the first two directions with made hard negatives (`word_swap`) it is the loss of NegCLIP (arXiv 2210.01936):
    images as queries see all captions and all hard captions, captions see the images.

    Several positives: the mean over a query's positives (for document_query, over a document's queries) of the loss
    with the other positives masked out. A query without any negative is left out of the mean and counted. Log-weights
    are added to the logits of query_document and document_query.

    Departures: GTE and sentence-transformers count the positive pair once per direction in a joint denominator, here
    it stands there once, so that a pair without negatives has loss 0; sentence-transformers weights query_document
    only.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.05,
        learn_temperature: bool = False,
        directions: list[Literal["query_document", "document_query", "query_query", "document_document"]] = [  # noqa: B006 - read only
            "query_document"
        ],
        denominator: Literal["separate", "joint"] = "separate",
        negatives: Literal["all", "own"] = "all",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if not temperature > 0 or (learn_temperature and temperature < 1 / LARGEST_SCALE):
            least = f"at least {1 / LARGEST_SCALE} where it is learned" if learn_temperature else "above 0"
            raise InputError(f"loss.infonce.temperature: must be {least}, got {temperature}")
        if not directions or len(set(directions)) < len(directions):
            raise InputError(f"loss.infonce.directions: expected each direction once, at least one, got {directions}")
        if not 0 <= label_smoothing < 1:
            raise InputError(f"loss.infonce.label_smoothing: expected 0 to below 1, got {label_smoothing}")
        self.directions = tuple(directions)
        self.own_only, self.label_smoothing = negatives == "own", label_smoothing
        self.joint = denominator == "joint"
        self.temperature = temperature
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature))) if learn_temperature else None

    def forward(self, scores: Scores, keep: Tensor, log_weights: Tensor) -> tuple[Tensor, dict[str, float | Tensor]]:
        scale = self._scale()
        rows, columns = scores.pairs  # (P,) each
        positive = full(scores.student)[rows, columns] * scale
        keep = own_negatives(scores, keep) if self.own_only else keep
        with torch.autocast(scores.student.device.type, enabled=False):
            negatives = [negatives_of(d, scores, keep, log_weights, scale, (rows, columns)) for d in self.directions]
        groups = [columns if direction == "document_query" else rows for direction in self.directions]
        if self.joint:
            negatives, groups = [torch.cat(negatives, dim=1)], [rows]
        valid = [(block != -torch.inf).any(dim=1) for block in negatives]
        parts = row_counts(rows, torch.stack(valid).any(dim=0), len(keep))
        losses = [
            mean_by_group(cross_entropy(positive, block, self.label_smoothing), group, has_negatives, max(keep.shape))
            for block, group, has_negatives in zip(negatives, groups, valid, strict=True)
        ]
        if self.log_scale is not None:
            parts["temperature"] = (-self.log_scale.detach()).exp()
        return torch.stack(losses).mean(), parts

    def _scale(self) -> float | Tensor:
        if self.log_scale is None:
            return 1 / self.temperature
        with torch.no_grad():  # on the parameter itself: a clamp inside the graph would have no way back
            self.log_scale.clamp_(max=math.log(LARGEST_SCALE))
        return self.log_scale.exp()
