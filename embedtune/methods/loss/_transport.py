"""Optimal transport between queries and documents, by Sinkhorn's iterations."""

from __future__ import annotations

import torch
from torch import Tensor


def transport(
    similar: Tensor, allowed: Tensor, *, regularisation: float = 0.03, iterations: int = 100, tolerance: float = 1e-4
) -> Tensor:
    """(R, N) the plan that moves equal parts of all rows to equal parts of all columns at the least cost, smoothed.

    similar: (R, N) similarities; the cost is (1 - similar) over its largest value. allowed: (R, N) False where nothing
    may be moved. Stops when the columns' sums are met to the tolerance. Where they cannot all be met, it stops at the
    last iteration, with the rows' sums met. As in NCU (arXiv 2507.03434); in logarithms, so that nothing underflows.
    """
    cost = 1 - similar
    largest = cost.masked_fill(~allowed, 0.0).max().clamp(min=1e-12)
    log_kernel = (-cost / largest / regularisation).masked_fill(~allowed, -torch.inf)
    rows, columns = allowed.any(dim=1), allowed.any(dim=0)
    log_rows = -torch.tensor(len(similar)).to(similar).log()
    log_columns = -torch.tensor(similar.shape[1]).to(similar).log()
    of_rows, of_columns = torch.zeros_like(similar[:, 0]), torch.zeros_like(similar[0])
    for _ in range(iterations):
        of_columns = torch.where(columns, log_columns - (log_kernel + of_rows[:, None]).logsumexp(dim=0), 0.0)
        of_rows = torch.where(rows, log_rows - (log_kernel + of_columns).logsumexp(dim=1), 0.0)
        moved = (log_kernel + of_rows[:, None] + of_columns).exp()
        if bool((moved.sum(dim=0) - log_columns.exp())[columns].abs().max() < tolerance):
            break
    return (log_kernel + of_rows[:, None] + of_columns).exp()
