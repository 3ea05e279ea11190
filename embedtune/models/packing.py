"""Linear layers on a CPU in bf16 with weights that are laid out for oneDNN once, instead of at every call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

ROWS = 4096  # the layout is chosen for about so many tokens at once; others work as well
_OPS = ("_linear_pointwise", "_reorder_linear_weight", "_is_mkldnn_bf16_supported")
_has_bf16_in_onednn = (
    torch._C._has_mkldnn
    and all(hasattr(torch.ops.mkldnn, name) for name in _OPS)
    and torch.ops.mkldnn._is_mkldnn_bf16_supported()
)


class PackedWeights(TorchFunctionMode):
    """While it is entered, and no graph is made, linear layers under bf16 autocast take packed weights; the results are
    the same bits. A weight is packed when it is met the second time: for one short text it would cost more than it
    saves. Weights that change meanwhile are packed anew."""

    def __init__(self) -> None:
        super().__init__()
        self._packed: dict[int, tuple[Tensor, int, Tensor | None, Tensor | None]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func is linear and _has_bf16_in_onednn and not given and _fits(*args):
            return self._linear(*args)
        return func(*args, **given)

    def _linear(self, values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        met = self._packed.get(id(weight))
        if met is None or met[1] != weight._version:
            # lowered here, for autocast would keep what it has lowered
            low = None if bias is None else bias.detach().bfloat16()
            self._packed[id(weight)] = (weight, weight._version, low, None)  # held, or its id might be another's
            return linear(values.bfloat16(), weight.detach().bfloat16(), low)
        _, version, low, packed = met
        if packed is None:
            packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().bfloat16(), ROWS)
            self._packed[id(weight)] = (weight, version, low, packed)
        return torch.ops.mkldnn._linear_pointwise(values.bfloat16(), packed, low, "none", [], "")  # type: ignore[no-any-return]


def _fits(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    lowered = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    floats = values.dtype in (torch.float32, torch.bfloat16) and weight.dtype == torch.float32
    stays = isinstance(weight, torch.nn.Parameter)  # what is computed at each call would never be met again
    return lowered and floats and stays and weight.device.type == "cpu" and not torch.is_grad_enabled()
