"""What the losses share: positive pairs, their mean over rows, and the refusal of a batch without negatives."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError


def cross_entropy(positive: Tensor, negatives: Tensor) -> Tensor:
    """(P,) minus the log-probability of each positive logit (P,) against its own row of negative logits (P, N).

    A dropped negative is -inf. A pair without negatives has loss 0 and gradient 0, exactly.
    """
    # Not logsumexp - positive: that difference of large numbers costs digits where the loss is small.
    return -torch.cat([positive[:, None], negatives], dim=1).log_softmax(dim=1)[:, 0]


def mean_by_group(values: Tensor, group: Tensor, valid: Tensor) -> Tensor:
    """Mean of the valid values (P,) within each group, then over the groups that have any; 0 where none has."""
    size = torch.zeros(int(group.max()) + 1 if len(group) else 1, dtype=values.dtype, device=values.device)
    size = size.index_add(0, group, valid.to(values.dtype))
    weights = valid / size[group].clamp(min=1)
    return (values * weights).sum() / (size > 0).sum().clamp(min=1)


def count_without_negatives(rows: Tensor, valid: Tensor) -> Tensor:
    """How many rows have a positive pair but none that is valid (that has a negative left).

    Raises InputError where no pair at all has a negative: such a batch teaches nothing.
    """
    all_rows = torch.bincount(rows) > 0
    if not bool(valid.any()):
        raise InputError(
            f"no query of this batch of {int(all_rows.sum())} has a negative left: every other document is a positive "
            "or was dropped by the filters; use larger batches, mine negatives, or loosen the filters"
        )
    return all_rows.sum() - (torch.bincount(rows[valid]) > 0).sum()
