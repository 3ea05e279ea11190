from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...types import Scores
from .. import MethodSpec
from .._numerics import full
from ._pairs import cross_entropy, mean_by_group, negatives_of, row_counts

SPEC = MethodSpec(kind="objective", scheduled=("temperature",))


class Tripletclip(nn.Module):
    """NegCLIP's loss twice: for images, and for images generated to fit hard captions (TripletCLIP, arXiv 2411.02545).

    Queries are images I, with captions T and own hard captions T' as documents; queries that the data marks as `made`
    are generated images I', whose positive is a T' and whose own hard caption is the T. For each of the two kinds
    of query: half the cross-entropy of each query's positive against all kept documents plus half that of each
    positive against the queries of the same kind. A generated image is thus never a negative of a real caption.

    mode: sum adds the two in every batch, as the released code does; alternate takes one of them in each batch, as
        the paper describes. Without made queries it is NegCLIP's loss (arXiv 2210.01936), in either mode.
    temperature: 0.01 is CLIP's trained scale.

    Departure: a batch need not hold an image together with its generated one. Log-weights are added to the logits.
    Pairs without a negative in either direction are left out; queries that have none in both are counted.
    """

    batches: Tensor

    def __init__(self, *, temperature: float = 0.01, mode: Literal["sum", "alternate"] = "sum") -> None:
        super().__init__()
        if not temperature > 0:
            raise InputError(f"loss.tripletclip.temperature: must be above 0, got {temperature}")
        self.temperature, self.alternate = temperature, mode == "alternate"
        if self.alternate:
            self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, scores: Scores, keep: Tensor, log_weights: Tensor) -> tuple[Tensor, dict[str, float | Tensor]]:
        rows, columns = scores.pairs  # (P,) each
        made = scores.made_queries if scores.made_queries is not None else torch.zeros_like(keep[:, 0])
        positive = full(scores.student)[rows, columns] / self.temperature
        documents, queries = (
            negatives_of(direction, scores, keep, log_weights, 1 / self.temperature, (rows, columns))
            for direction in ("query_document", "document_query")
        )
        queries = queries.masked_fill(made != made[rows, None], -torch.inf)  # (P, Q)
        valid = [(block != -torch.inf).any(dim=1) for block in (documents, queries)]
        parts = row_counts(rows, valid[0] | valid[1], len(keep))
        halves = []
        for kind in (False, True):
            of_kind = made[rows] == kind
            terms = [
                mean_by_group(cross_entropy(positive, block), group, has_negatives & of_kind, max(keep.shape))
                for block, group, has_negatives in zip((documents, queries), (rows, columns), valid, strict=True)
            ]
            halves += [torch.stack(terms).mean()] if bool(of_kind.any()) else []
        if not self.alternate or len(halves) == 1:
            return torch.stack(halves).sum(), parts
        half = int(self.batches) % 2
        if self.training:
            self.batches += 1
        return halves[half], parts
