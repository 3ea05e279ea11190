from __future__ import annotations

import torch
from torch import Tensor

from ...errors import InputError
from ...types import Scores
from .. import MethodSpec
from ._columns import append, embeddings, shares, with_length

SPEC = MethodSpec(kind="vectors", neutral={"type1": 0, "type2": 0})


def mochi(
    scores: Scores,
    keep: Tensor,
    *,
    hardest: int = 32,
    type1: int = 16,
    type2: int = 16,
    type1_start: float = 0.0,
    type2_start: float = 0.0,
    generator: torch.Generator,
) -> tuple[Scores, Tensor]:
    """Mixes each query's hardest negatives, among themselves and with the query (MoCHi, arXiv 2010.01028).

    hardest: the number of the query's most similar kept negatives that are mixed.
    type1: the number of mixtures a k + (1 - a) k' of two of those negatives, a uniform from 0 to 1; 0 is off.
    type2: the number of mixtures b q + (1 - b) k, b uniform from 0 to 1/2, so that the negative prevails; 0 is off.
    type1_start, type2_start: the progress (0 to 1) from which they are made. An unofficial code starts at steps 1,024
        and 2,048, when its queue is warm; the paper too trains without them first.

    A mixture has the length between its parents' (1 among normalised embeddings), is a constant, the query in it too,
    and is a negative of its own query only: Q * (type1 + type2) columns. k and k' may be the same. The defaults are the
    unofficial code's; the paper's are larger. Mixes all kept columns, those of a memory queue before it too.
    """
    if min(hardest - 1, type1, type2) < 0:
        raise InputError("synthesis.mochi: expected hardest of at least 1, type1 and type2 of at least 0")
    first, second = type1 * (scores.progress >= type1_start), type2 * (scores.progress >= type2_start)
    if not first + second or not bool(keep.any()):
        return scores, keep
    queries, documents = embeddings(scores, "mochi")
    similar = scores.student.detach().masked_fill(~keep, -torch.inf)
    order = similar.topk(min(hardest, keep.shape[1]), dim=1).indices
    known = keep.sum(dim=1, keepdim=True).clamp(min=1, max=hardest)  # a row without negatives is not allowed any

    def drawn(count: int) -> Tensor:  # (Q, count, H)
        ranks = (shares((len(order), count), queries, generator) * known).long().minimum(known - 1)
        return documents[order.gather(1, ranks)]

    between = mixed(drawn(first), drawn(first), shares((len(order), first, 1), queries, generator))
    toward = mixed(queries[:, None], drawn(second), shares((len(order), second, 1), queries, generator) / 2)
    made = torch.cat([between, toward], dim=1)  # (Q, M, H)
    own_rows = torch.eye(len(order), dtype=torch.bool, device=keep.device).repeat_interleave(made.shape[1], dim=1)
    return append(scores, keep, made.flatten(0, 1), own_rows & keep.any(dim=1, keepdim=True), own_negatives=True)


def mixed(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """The direction of share * first + (1 - share) * second (..., H), at the lengths' own mixture."""
    length = share * first.norm(dim=-1, keepdim=True) + (1 - share) * second.norm(dim=-1, keepdim=True)
    return with_length(share * first + (1 - share) * second, length)
