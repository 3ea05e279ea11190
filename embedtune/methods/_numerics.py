"""Reading similarities, as filters, weightings and losses do: in full precision, and against the positives."""

from __future__ import annotations

import torch
from torch import Tensor


def full(values: Tensor) -> Tensor:
    """Half precision becomes float32, so that nothing overflows; float64 stays what it is."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def lowest_positive(values: Tensor, positive: Tensor) -> Tensor:
    """(Q, 1) the lowest value (Q, D) among each row's positives; +inf where a row has none, or none with a value.

    The lowest, as NV-Retriever (arXiv 2407.15831) takes it: a candidate is suspect from the weakest positive on.
    """
    return values.masked_fill(~positive | values.isnan(), torch.inf).amin(dim=1, keepdim=True)
