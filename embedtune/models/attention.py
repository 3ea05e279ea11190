"""Attention on a CPU in bf16 that goes backward by products of whole matrices, where torch's fused kernel is slow.

Backward, torch 2.13's kernel (heads of 32) takes 4 times as long as forward at 256 tokens and 8 times at 64, the
products one and a half times; forward they gain nothing. They are taken over some sequences or heads at once, so that
the scores stay in the cache, and none is kept from the way forward. As in attention without a fused kernel, scores are
rounded to bf16 there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

SCORES_AT_ONCE = 2**20  # 2 MiB of them: more leave the cache, fewer are calls with too little work


class BackwardByProducts(TorchFunctionMode):
    """While it is entered, attention whose gradient is wanted goes backward by products. What these do not know
    (another precision, dropout, a causal mask, grouped heads, a mask that learns) is left to torch."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        found = _attention(*args, **given) if func is scaled_dot_product_attention else None
        return func(*args, **given) if found is None else found


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """As scaled_dot_product_attention; None for what the products do not know, or are not wanted for. query (B, heads,
    T, H), key (B, heads, K, H), value (B, heads, K, V), attn_mask broadcastable to (B, heads, T, K)."""
    three = (query, key, value)
    fits = all(t.ndim == 4 and t.dtype == torch.bfloat16 and t.device.type == "cpu" for t in three)
    wanted = torch.is_grad_enabled() and any(t.requires_grad for t in three)
    learned = attn_mask is not None and attn_mask.requires_grad
    if not (fits and wanted) or learned or dropout_p or is_causal or enable_gqa:
        return None
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    return cast(Tensor, _Attention.apply(query, key, value, attn_mask, factor))  # type: ignore[no-untyped-call]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, factor: float) -> Tensor:
        ctx.save_for_backward(query, key, value, mask)
        ctx.factor = factor
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=factor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask = ctx.saved_tensors
        heads = query.shape[1]
        query, key, value, gradient = (_flat(t) for t in (query * ctx.factor, key, value, gradients[0]))
        found = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        hidden = ~mask if mask is not None and mask.dtype == torch.bool else mask
        blind = hidden is not None and _sees_nothing(hidden)
        for piece in _pieces(len(query) // heads, heads, query.shape[1] * key.shape[1]):
            some = piece.rows(heads)
            scores = torch.bmm(query[some], key[some].mT)
            if hidden is not None:
                piece.hide(scores, hidden)
            shares = torch._softmax(scores, -1, False)
            if blind:  # a token that sees nothing (padding beyond a window) takes no part
                shares.masked_fill_((scores == -torch.inf).all(-1, keepdim=True), 0.0)
            of_shares = torch.bmm(gradient[some], value[some].mT)
            of_scores = torch._softmax_backward_data(of_shares, shares, -1, shares.dtype)
            torch.bmm(of_scores, key[some], out=found[0][some])
            torch.bmm(of_scores.mT, query[some], out=found[1][some])
            torch.bmm(shares.mT, gradient[some], out=found[2][some])
        found[0].mul_(ctx.factor)
        return *(t.view(-1, heads, *t.shape[1:]) for t in found), None, None


def _sees_nothing(hidden: Tensor) -> bool:
    """Whether any token does not see a single other one, nor itself."""
    return bool((hidden if hidden.dtype == torch.bool else hidden == -torch.inf).all(-1).any())


def _flat(values: Tensor) -> Tensor:
    """(B * heads, T, H), contiguous: products of other layouts are copied first, each time."""
    return values.flatten(0, 1).contiguous()


@dataclass(frozen=True)
class _Piece:
    """All heads of some sequences, or some heads of one."""

    sequences: slice
    heads: slice

    def rows(self, heads: int) -> slice:
        """Where it is in (B * heads)."""
        last = (self.sequences.stop - 1) * heads + self.heads.stop
        return slice(self.sequences.start * heads + self.heads.start, last)

    def hide(self, scores: Tensor, hidden: Tensor) -> None:
        """In place. scores (n, T, K). hidden: True where nothing is seen, or what is added, broadcastable to (B, heads,
        T, K)."""
        if hidden.ndim == 4:
            hidden = hidden[self.sequences] if len(hidden) > 1 else hidden
            hidden = hidden[:, self.heads] if hidden.shape[1] > 1 else hidden
        by_head = scores.view(-1, self.heads.stop - self.heads.start, *scores.shape[1:])
        if hidden.dtype == torch.bool:
            by_head.masked_fill_(hidden, -torch.inf)
        else:
            by_head += hidden


def _pieces(sequences: int, heads: int, scores: int) -> Iterator[_Piece]:
    """scores: of one head of one sequence."""
    at_once = max(1, SCORES_AT_ONCE // scores)  # heads
    step = max(1, at_once // heads)
    for first in range(0, sequences, step):
        for head in range(0, heads, min(at_once, heads)):
            yield _Piece(slice(first, min(first + step, sequences)), slice(head, min(head + at_once, heads)))
