"""Faster kernels and less memory on a CPU. `EMBEDTUNE_CPU_TRICKS=0` in the environment switches all of them off.

- Attention in bf16 whose backward pass is plain matrix products, where torch's fused kernel is slow. Backward, torch
  2.13's kernel (heads of 32) takes 4 times as long as forward at 256 tokens and 8 times at 64; the products take one
  and a half times. As in attention without a fused kernel, scores are rounded to bf16 there.
- Linear layers in bf16 whose weights are packed for oneDNN once instead of at every call; the bits are the same.
- Memory that is returned to the system between chunks: chunks by length have hundreds of shapes, and libraries keep
  memory for each of them.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.overrides import _get_current_function_mode_stack as _modes

SWITCH = "EMBEDTUNE_CPU_TRICKS"
SCORES_AT_ONCE = 2**20  # 2 MiB of attention scores: more leave the cache, fewer are calls with too little work
PACKED_FOR_ROWS = 4096  # the packed layout is chosen for about so many tokens at once; others work as well
KERNELS_KEPT = "32"  # those of about two chunks; the library's own bound of a thousand takes 200 MiB
GROWTH = 64 * 2**20  # bytes
_PAGES = Path("/proc/self/statm")
_PACKING_OPS = ("_linear_pointwise", "_reorder_linear_weight", "_is_mkldnn_bf16_supported")
has_bf16_in_onednn = (
    torch._C._has_mkldnn
    and all(hasattr(torch.ops.mkldnn, name) for name in _PACKING_OPS)
    and torch.ops.mkldnn._is_mkldnn_bf16_supported()
)


def enabled() -> bool:
    """Whether the switch leaves the tricks on, as it does by default."""
    return os.environ.get(SWITCH, "1") != "0"


def while_training(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Around a forward pass that records a graph. Not with gradient checkpointing, whose second forward pass runs
    outside of it."""
    return BackwardByProducts() if _in_bf16(device, dtype) else nullcontext()


def while_encoding(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Around many forward passes without a graph and with the same weights."""
    packs = _in_bf16(device, dtype) and not any(isinstance(mode, PackedWeights) for mode in _modes())  # type: ignore[no-untyped-call]
    return PackedWeights() if packs else nullcontext()


def _in_bf16(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cpu" and dtype == torch.bfloat16 and enabled()


class BackwardByProducts(TorchFunctionMode):
    """While it is entered, the backward pass of attention is matrix products. Torch computes what these do not support:
    other precisions, dropout, a causal flag, grouped heads, a mask with a gradient."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        output = _attention(*args, **options) if func is scaled_dot_product_attention else None
        return func(*args, **options) if output is None else output


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *rest: Any, **options: Any
) -> Tensor | None:
    """As scaled_dot_product_attention; None where torch computes it.

    query (B, heads, T, H), key (B, heads, K, H), value (B, heads, K, V); attn_mask broadcasts to (B, heads, T, K).
    """
    scale = options.pop("scale", None)
    inputs = (query, key, value)
    supported = all(t.ndim == 4 and t.dtype == torch.bfloat16 and t.device.type == "cpu" for t in inputs)
    records = torch.is_grad_enabled() and any(t.requires_grad for t in inputs)
    learned = attn_mask is not None and attn_mask.requires_grad
    if rest or not supported or not records or learned or any(options.values()):
        return None
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return cast(Tensor, _Attention.apply(query, key, value, attn_mask, scale))  # type: ignore[no-untyped-call]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        ctx.save_for_backward(query, key, value, mask)
        ctx.scale = scale
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask = ctx.saved_tensors
        shape, heads = (*query.shape[:3], key.shape[2]), query.shape[1]
        # (B * heads, T, H), contiguous: products of other layouts are copied first, each time
        query, key, value, gradient = (
            t.flatten(0, 1).contiguous() for t in (query * ctx.scale, key, value, gradients[0])
        )
        to_query, to_key, to_value = (torch.empty_like(t) for t in (query, key, value))
        hidden = ~mask if mask is not None and mask.dtype == torch.bool else mask
        blind = hidden is not None and _hides_all_from_a_token(hidden)
        for rows in _pieces(*shape):
            scores = torch.bmm(query[rows], key[rows].mT)
            if hidden is not None:
                _hide(scores, _part(hidden.expand(shape), rows))
            shares = torch._softmax(scores, -1, False)
            if blind:  # a token that sees no other (padding beyond a window) has no share and no gradient
                shares.masked_fill_((scores == -torch.inf).all(-1, keepdim=True), 0.0)
            to_shares = torch.bmm(gradient[rows], value[rows].mT)
            to_scores = torch._softmax_backward_data(to_shares, shares, -1, shares.dtype)
            torch.bmm(to_scores, key[rows], out=to_query[rows])
            torch.bmm(to_scores.mT, query[rows], out=to_key[rows])
            torch.bmm(shares.mT, gradient[rows], out=to_value[rows])
        to_query.mul_(ctx.scale)
        return *(t.view(-1, heads, *t.shape[1:]) for t in (to_query, to_key, to_value)), None, None


def _hides_all_from_a_token(hidden: Tensor) -> bool:
    return bool((hidden if hidden.dtype == torch.bool else hidden == -torch.inf).all(-1).any())


def _pieces(sequences: int, heads: int, tokens: int, keys: int) -> Iterator[slice]:
    """Rows of (B * heads) whose scores stay in the cache: whole sequences, or some heads of one sequence."""
    at_once = max(1, SCORES_AT_ONCE // (tokens * keys))
    group, step = (heads, at_once) if at_once < heads else (sequences * heads, at_once // heads * heads)
    for first in range(0, sequences * heads, group):
        for start in range(first, first + group, step):
            yield slice(start, min(start + step, first + group))


def _part(hidden: Tensor, rows: slice) -> Tensor:
    """The rows of one piece, of (B, heads, T, K)."""
    heads, last = hidden.shape[1], rows.stop - 1
    return hidden[rows.start // heads : last // heads + 1, rows.start % heads : last % heads + 1]


def _hide(scores: Tensor, hidden: Tensor) -> None:
    """In place. scores (n, T, K). hidden (sequences, heads, T, K): True where a key is hidden, or what is added."""
    by_head = scores.view(hidden.shape)
    if hidden.dtype == torch.bool:
        by_head.masked_fill_(hidden, -torch.inf)
    else:
        by_head += hidden


class PackedWeights(TorchFunctionMode):
    """While it is entered and no graph is recorded, linear layers under bf16 autocast use packed weights.

    A weight is packed at its second use: for one short text packing would cost more than it saves. A weight that has
    changed since is packed again.
    """

    def __init__(self) -> None:
        super().__init__()
        # id of a weight -> the weight, its version, its bias in bf16, the packed weight
        self._packed: dict[int, tuple[Tensor, int, Tensor | None, Tensor | None]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if func is linear and has_bf16_in_onednn and not options and _packs(*args):
            return self._linear(*args)
        return func(*args, **options)

    def _linear(self, values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        entry = self._packed.get(id(weight))
        if entry is None or entry[1] != weight._version:
            # converted here, because autocast would keep what it has converted
            low = None if bias is None else bias.detach().bfloat16()
            self._packed[id(weight)] = (weight, weight._version, low, None)  # held, so that no other gets its id
            return linear(values.bfloat16(), weight.detach().bfloat16(), low)
        _, version, low, packed = entry
        if packed is None:
            packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().bfloat16(), PACKED_FOR_ROWS)
            self._packed[id(weight)] = (weight, version, low, packed)
        return torch.ops.mkldnn._linear_pointwise(values.bfloat16(), packed, low, "none", [], "")  # type: ignore[no-any-return]


def _packs(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    lowered = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    floats = {values.dtype, weight.dtype} <= {torch.float32, torch.bfloat16}
    stays = isinstance(weight, torch.nn.Parameter)  # a weight that is computed at each call is never used twice
    return lowered and floats and stays and weight.device.type == "cpu" and not torch.is_grad_enabled()


def bound_kernels() -> None:
    """Limits the kernels that oneDNN keeps, one for each shape. It has an effect before oneDNN's first use only."""
    if enabled():
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KERNELS_KEPT)


def between_chunks(device: torch.device) -> None:
    """Keeps the memory of many chunks steady."""
    if device.type == "cpu" and enabled():  # a GPU's memory is not the C library's
        _memory.check()


@dataclass
class SteadyMemory:
    """Returns freed memory to the system when the process has grown since the first chunk after the last time. Not at
    every chunk: the system hands returned memory out again page by page, which takes up to a seventh of a step."""

    level: int | None = None  # bytes

    def check(self) -> None:
        now = resident()
        if self.level is None:
            self.level = now
        elif now > self.level + GROWTH:
            give_back()
            self.level = None


_memory = SteadyMemory()  # memory belongs to the whole process


def resident() -> int:
    """Bytes of this process in memory; 0 where the system has no /proc."""
    try:
        return int(_PAGES.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def give_back() -> None:
    """Returns freed memory to the system. Otherwise it stays in pieces that do not fit tensors of other shapes."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> ctypes._NamedFuncPointer | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # not the GNU C library
        return None
