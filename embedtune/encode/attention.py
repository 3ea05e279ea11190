"""Attention on a CPU in bf16 that goes backward by products of whole matrices, where torch's fused kernel is slow.

Backward, torch 2.13's kernel (heads of 32) takes 4 times as long as forward at 256 tokens and 8 times at 64, the
products twice; forward they gain nothing. They are taken over some sequences at once, so that the scores stay in the
cache, and none is kept from the way forward. As in attention without a fused kernel, scores are rounded to bf16 there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
        if func is scaled_dot_product_attention and _known(*args, **given):
            return _attention(*args, **given)
        return func(*args, **given)


def _known(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> bool:
    three = (query, key, value)
    fits = all(t.ndim == 4 and t.dtype == torch.bfloat16 and t.device.type == "cpu" for t in three)
    wanted = torch.is_grad_enabled() and any(t.requires_grad for t in three)
    learned = attn_mask is not None and attn_mask.requires_grad
    return fits and wanted and not (learned or dropout_p or is_causal or enable_gqa)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """As scaled_dot_product_attention. query (B, heads, T, H), key (B, heads, K, H), value (B, heads, K, V), attn_mask
    broadcastable to (B, heads, T, K)."""
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
        for some, shares in _shares(query, key, mask, heads):
            of_shares = torch.bmm(gradient[some], value[some].mT)
            of_scores = torch._softmax_backward_data(of_shares, shares, -1, shares.dtype)
            torch.bmm(of_scores, key[some], out=found[0][some])
            torch.bmm(of_scores.mT, query[some], out=found[1][some])
            torch.bmm(shares.mT, gradient[some], out=found[2][some])
        found[0].mul_(ctx.factor)
        return *(t.view(-1, heads, *t.shape[1:]) for t in found), None, None


def _flat(values: Tensor) -> Tensor:
    """(B * heads, T, H), contiguous: products of other layouts are copied first, each time."""
    return values.flatten(0, 1).contiguous()


def _shares(query: Tensor, key: Tensor, mask: Tensor | None, heads: int) -> Iterator[tuple[slice, Tensor]]:
    """Which rows of (B * heads), and their attention (n, T, K): each token's shares of the others, summing to 1."""
    sequences = len(query) // heads
    step = max(1, SCORES_AT_ONCE // (heads * query.shape[1] * key.shape[1]))
    hidden = ~mask if mask is not None and mask.dtype == torch.bool else mask
    for first in range(0, sequences, step):
        some = slice(first * heads, min(first + step, sequences) * heads)
        scores = torch.bmm(query[some], key[some].mT)
        if hidden is not None:
            here = hidden[first : first + step] if hidden.ndim == 4 and len(hidden) > 1 else hidden
            _hide(scores.view(-1, heads, *scores.shape[1:]), here)
        yield some, torch._softmax(scores, -1, False)


def _hide(scores: Tensor, hidden: Tensor) -> None:
    """In place. hidden: True where nothing is seen, or what is added."""
    if hidden.dtype == torch.bool:
        scores.masked_fill_(hidden, -torch.inf)
    else:
        scores += hidden
