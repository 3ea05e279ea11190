"""What the losses share: positive pairs, their mean over rows, and the refusal of a batch without negatives."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import InputError
from ...types import Scores
from .._numerics import full

MEAN_OVER = "mean_over"
"""Among a loss's parts: how many (queries, pairs) its value is the mean over. With it, the values of some queries and
of the others make that of all; each loss that says BY_QUERY gives it. It is not logged."""


REFUSED = "batches_refused"
"""Among a loss's parts: the batches in which no query has a negative (0 or 1). It is not logged; a step with one is
refused before the weights change."""


def cross_entropy(positive: Tensor, negatives: Tensor, smoothing: float = 0.0) -> Tensor:
    """(P,) minus the log-probability of each positive logit (P,) against its own row of negative logits (P, N).

    A dropped negative is -inf. A pair without negatives has loss 0 and gradient 0, exactly. smoothing: the share of the
    target that is spread evenly over the positive and the kept negatives (label smoothing, 1512.00567).
    """
    logits = torch.cat([positive[:, None], negatives], dim=1)
    # Not logsumexp - positive: that difference of large numbers costs digits where the loss is small.
    log_shares = logits.log_softmax(dim=1)
    if not smoothing:
        return -log_shares[:, 0]
    present = logits != -torch.inf
    even = log_shares.masked_fill(~present, 0.0).sum(dim=1) / present.sum(dim=1)
    return -(1 - smoothing) * log_shares[:, 0] - smoothing * even


def negatives_of(
    direction: str,
    scores: Scores,
    keep: Tensor,
    log_weights: Tensor,
    scale: float | Tensor,
    pairs: tuple[Tensor, Tensor],
) -> Tensor:
    """(P, ·) the logits of a direction's negatives for each positive pair, -inf where dropped.

    The directions are those of the loss `infonce`. pairs: (P,) rows and (P,) columns.
    """
    rows, columns = pairs
    if direction in ("query_document", "document_query"):
        logits = full(scores.student) * scale + log_weights  # (Q, D)
        logits = logits.masked_fill(~keep, -torch.inf)
        return logits[rows] if direction == "query_document" else logits.T[columns]
    if scores.queries is None or scores.documents is None:
        raise InputError(f"the direction {direction} needs embeddings, and here are scores only")
    if direction == "query_query":
        kept = scores.kept_queries if scores.kept_queries is not None else other_queries(scores, keep)
        logits = full(scores.queries) @ full(scores.queries).T * scale
        return logits.masked_fill(~kept, -torch.inf)[rows]
    kept = keep[rows]
    if scores.kept_documents is not None:  # which has no columns for what was made after the filters
        kept = torch.cat([scores.kept_documents, kept[:, scores.kept_documents.shape[1] :]], dim=1)
    if scores.own is not None:
        kept = kept & ~scores.own[rows]
    logits = full(scores.documents)[columns] @ full(scores.documents).T * scale  # (P, D)
    return logits.masked_fill(~kept, -torch.inf)


def other_queries(scores: Scores, keep: Tensor) -> Tensor:
    """(Q, Q) bool, the queries that are negatives of the row: those whose positives are all kept as negatives."""
    return ~((~keep).float() @ scores.positive.float().T > 0)


def own_negatives(scores: Scores, keep: Tensor) -> Tensor:
    """(Q, D) bool, each query's own hard negatives among those that are kept."""
    return keep & scores.own if scores.own is not None else torch.zeros_like(keep)


def mean_by_group(values: Tensor, group: Tensor, valid: Tensor, groups: int) -> Tensor:
    """Mean of the valid values (P,) within each group, then over the groups that have any; 0 where none has.

    groups: more than the largest number of a group.
    """
    size = torch.zeros(groups, dtype=values.dtype, device=values.device).index_add(0, group, valid.to(values.dtype))
    weights = valid / size[group].clamp(min=1)
    return (values * weights).sum() / (size > 0).sum().clamp(min=1)


class WithoutNegatives(InputError):
    """No query of a batch has a negative, so that the batch teaches nothing."""

    def __init__(self, queries: int) -> None:
        super().__init__(
            f"no query of this batch of {queries} has a negative left: every other document is a positive "
            "or was dropped by the filters; use larger batches, mine negatives, or loosen the filters"
        )
        self.queries = queries


def row_counts(rows: Tensor, valid: Tensor, queries: int) -> dict[str, float | Tensor]:
    """A loss's counts of rows: those its mean is over (MEAN_OVER), and those with a positive pair but no valid one.

    A pair is valid where it has a negative. Where no pair is, it raises WithoutNegatives; on a device, which must not
    be waited for, it counts the batch in REFUSED instead.
    """
    flags = torch.stack([torch.ones_like(valid), valid]).long()  # (2, P)
    by_row = torch.zeros(2, queries, dtype=torch.int64, device=rows.device).index_add(1, rows, flags)
    present, counted = (by_row > 0).sum(dim=1)
    parts: dict[str, float | Tensor] = {"rows_without_negatives": present - counted, MEAN_OVER: counted}
    if not at_hand(valid):
        return {**parts, REFUSED: (counted == 0).long()}
    if not bool(counted):
        raise WithoutNegatives(int(present))
    return parts


def at_hand(values: Tensor) -> bool:
    """Whether the host can read the values without waiting for a device."""
    return values.device.type == "cpu"
