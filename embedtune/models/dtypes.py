"""The number format of a model's weights: that of its files, that in memory, and that in which it is saved.

Weights that are trained, mixed or measured in fp32 are float32. Frozen weights may stay as small as the checkpoint has
them: `model.dtype` says how.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ..errors import InputError
from ..recipe import Dtype
from .folders import first_line
from .modules import first_modules, transformers_of
from .precision import DTYPES, Resolved

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Stored = Literal["float32", "bfloat16", "float16"]
Weights = Literal["float32", "bfloat16", "float16", "4bit"]
INSTALL = "pip install 'embedtune[4bit]'"
_IN_FILES: dict[str, Stored] = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_PRECISIONS = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}


def stored_dtype(folder: Path) -> Stored:
    """The number format of most weights in a folder's safetensors; float32 for one that is none of the three."""
    counts: Counter[str] = Counter()
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt") as weights:
                for name in weights.keys():  # noqa: SIM118
                    part = weights.get_slice(name)
                    counts[part.get_dtype()] += math.prod(part.get_shape())
        except SafetensorError:
            continue  # opening the model says what is wrong with it
    most = max(counts, key=lambda kind: counts[kind], default="F32")
    return _IN_FILES.get(most, "float32")


def common_dtype(kinds: Iterable[Stored]) -> Stored:
    """The number format of all the parts; float32 where they differ."""
    different = set(kinds)
    return different.pop() if len(different) == 1 else "float32"


def dtype_in_files(model: SentenceTransformer) -> Stored:
    """The number format of the weights in the folder that a model was loaded from, which loading notes at its parts."""
    return common_dtype(getattr(part, "stored_dtype", "float32") for part in first_modules(model).values())


def resolve_dtype(asked: Dtype, stored: Stored, frozen_in: Resolved | None) -> Weights:
    """The number format of the weights in memory. stored: that of the checkpoint. frozen_in: the precision that
    computes with weights that stay frozen; None for weights that do not, which are float32.

    Raises InputError for a number format that the precision does not compute in: each use would convert the weights.
    """
    if frozen_in is None:
        return "float32"
    computed = cast(Stored, str(DTYPES[frozen_in]).removeprefix("torch."))
    if asked == "auto":
        return stored if stored == computed else "float32"
    if asked not in ("float32", "4bit", computed):
        raise InputError(
            f"model.dtype: weights in {asked} want precision {_PRECISIONS[asked]}, and it is {frozen_in} here; change "
            "one of the two, or take dtype: auto"
        )
    return asked


def options_of(dtype: Weights, device: torch.device, frozen_in: Resolved | None) -> dict[str, Any]:
    """How transformers loads weights in this number format. Raises InputError where 4bit cannot run."""
    if dtype != "4bit":
        return {"dtype": dtype}
    refuse_without_4bit(device)
    from transformers import BitsAndBytesConfig

    computed = DTYPES[frozen_in or "fp32"]
    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=computed
    )
    return {"dtype": str(computed).removeprefix("torch."), "quantization_config": settings}


def refuse_without_4bit(device: torch.device) -> None:
    """Raises InputError, with the line that installs it, where bitsandbytes is absent or does not run on the device."""
    if find_spec("bitsandbytes") is None:
        raise InputError(f"model.dtype: 4bit needs bitsandbytes; try: {INSTALL}")
    try:
        from bitsandbytes.nn import Linear4bit

        layer = Linear4bit(64, 64, quant_type="nf4", compute_dtype=torch.float32).to(device)
        layer(torch.ones(1, 64, device=device))
    except Exception as error:  # a missing library, an unknown device: each its own kind
        raise InputError(
            f"model.dtype: 4bit does not run on {device} here ({first_line(error)}); take another dtype, or try: "
            f"{INSTALL}"
        ) from None


def ready_to_train(model: nn.Module) -> None:
    """Lets gradients pass 4-bit layers on a CPU: after inference bitsandbytes 0.50 keeps the weights in a layout that
    has no backward pass. Biases get the number format that the layer computes in now, not at its first use."""
    four_bit: list[Any] = [layer for layer in model.modules() if _is_4bit(layer)]
    for layer in four_bit:
        layer.support_avx512bf16_for_cpu = False
        if layer.bias is not None:
            layer.bias.data = layer.bias.data.to(layer.compute_dtype)


def dtype_of(model: SentenceTransformer) -> Weights:
    """The number format of the transformers' weights in memory."""
    parts = [part.model for part in transformers_of(model).values()] or [model]
    if any(_is_4bit(layer) for part in parts for layer in part.modules()):
        return "4bit"
    floats = (parameter.dtype for part in parts for parameter in part.parameters() if parameter.is_floating_point())
    return cast(Weights, str(next(floats, torch.float32)).removeprefix("torch."))


def _is_4bit(layer: nn.Module) -> bool:
    """Whether it is bitsandbytes' layer; peft's around it has that name too."""
    return type(layer).__name__ == "Linear4bit" and not hasattr(layer, "base_layer")


def lower(model: nn.Module, dtype: Weights) -> None:
    """Rounds the model's parameters, in place. Buffers stay: positions in bfloat16 would not be whole numbers."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(getattr(torch, dtype))


@contextmanager
def rounded(model: nn.Module, dtype: Stored) -> Iterator[None]:
    """The model with all that it saves in another number format; afterwards its weights are as they were."""
    tensors = [tensor for tensor in model.state_dict(keep_vars=True).values() if tensor.is_floating_point()]
    before = [tensor.data for tensor in tensors]
    for tensor in tensors:
        tensor.data = tensor.data.to(getattr(torch, dtype))
    try:
        yield
    finally:
        for tensor, data in zip(tensors, before, strict=True):
            tensor.data = data
