from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import InputError
from ...types import Scores
from .. import MethodSpec
from .._numerics import full
from ._pairs import mean_by_group, negatives_of, row_counts

SPEC = MethodSpec(kind="objective", by_query={"two_views": False}, neutral={"positive_rate": 0.0, "beta": 0.0})
VIEWS = ("query_document", "query_query"), ("document_query", "document_document")


def debiased(
    scores: Scores,
    keep: Tensor,
    log_weights: Tensor,
    *,
    temperature: float = 0.5,
    positive_rate: float = 0.1,
    beta: float = 1.0,
    detach_importance: bool = False,
    two_views: bool = False,
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Corrects for positives among the negatives (DCL, arXiv 2007.00224) and stresses hard ones (HCL, 2010.04592).

    With N kept negatives n_j = exp(s_j / temperature) of weight w_j, importances m_j = n_j^beta, and the positive e:
    R = sum_j m_j w_j n_j / mean(m), G = max((R - positive_rate N e) / (1 - positive_rate), N exp(-1 / temperature)),
    loss = log(1 + G / e).

    positive_rate: the share of unlabelled positives among the negatives. The maximum is a clamp that takes the
        gradient from the negatives; below a temperature of 0.2 it nearly always holds, so there use 0 (no clamp then).
        `clamped_share` is logged.
    beta: 0 is plain debiasing. detach_importance: the released code lets gradients flow through m, as here by default.
    two_views: query and document are two views of one thing, as in the papers' own loss: each of them is the query
        once, against all other queries and documents (but not those mined for the query, which are meant to be near).

    With positive_rate 0 and beta 0 it is InfoNCE. All in log space. Several positives: the mean over them.
    """
    if not temperature > 0 or not 0 <= positive_rate < 1:
        raise InputError(
            "loss.debiased: expected temperature above 0 and positive_rate from 0 to below 1, "
            f"got {temperature} and {positive_rate}"
        )
    rows, columns = pairs = scores.pairs  # (P,) each
    positive = full(scores.student)[pairs] / temperature
    losses, with_negatives, clamped = [], [], []
    for directions, group in zip(VIEWS[: 2 if two_views else 1], pairs, strict=False):
        used = directions if two_views else directions[:1]
        zero = torch.zeros_like(log_weights)
        logits = [negatives_of(d, scores, keep, zero, 1 / temperature, (rows, columns)) for d in used]
        of_direction = {"query_document": log_weights[rows], "document_query": log_weights.T[columns]}
        weights = [of_direction.get(d, torch.zeros_like(block)) for d, block in zip(used, logits, strict=True)]
        plain = torch.cat(logits, dim=1)  # (P, N), -inf where dropped
        valid = (plain != -torch.inf).any(dim=1)
        plain, of_pairs = plain[valid], positive[valid]
        importance = beta * (plain.detach() if detach_importance else plain)
        importance = importance.masked_fill(plain == -torch.inf, -torch.inf)  # which 0 times infinity is not
        log_n = (plain != -torch.inf).sum(dim=1).log()
        weighted = plain + torch.cat(weights, dim=1)[valid]
        log_r = (importance + weighted).logsumexp(dim=1) - importance.logsumexp(dim=1) + log_n
        log_g, at_floor = _debiased(log_r, log_n, of_pairs, positive_rate, temperature)
        every = torch.ones_like(at_floor)
        losses.append(mean_by_group(F.softplus(log_g - of_pairs), group[valid], every, max(keep.shape)))
        with_negatives.append(valid)
        clamped.append(mean_by_group(at_floor.float(), group[valid], every, max(keep.shape)))
    parts = row_counts(rows, torch.stack(with_negatives).any(dim=0), len(keep))
    return torch.stack(losses).mean(), parts | {"clamped_share": torch.stack(clamped).mean()}


def _debiased(
    log_r: Tensor, log_n: Tensor, positive: Tensor, positive_rate: float, temperature: float
) -> tuple[Tensor, Tensor]:
    """(P,) log G, and where it is the floor."""
    if not positive_rate:
        return log_r, torch.zeros_like(log_r, dtype=torch.bool)
    floor = log_n - 1 / temperature
    excess = math.log(positive_rate) + log_n + positive - log_r  # log of the share of R that is taken away
    log_rest = (-excess.clamp(max=-1e-6).exp()).log1p()  # the clamp only where the floor is taken anyway
    log_g = log_r + log_rest - math.log1p(-positive_rate)
    at_floor = (excess >= -1e-6) | (log_g < floor)
    return torch.where(at_floor, floor, log_g), at_floor
