"""How embeddings are compared: cosine is an inner product of normalised rows, dot is the inner product itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Similarity = Literal["cosine", "dot"]
_HAS_ONEDNN = torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
_PACKED_FOR_ROWS = 8192  # the packed layout is chosen for about so many documents at once; others work as well
EPSILON = 1e-12  # a zero vector stays zero instead of becoming NaN


def as_scored(embeddings: npt.NDArray[np.float32], similarity: Similarity) -> npt.NDArray[np.float32]:
    """(n, H) rows whose inner products are the model's scores. float32."""
    rows = np.asarray(embeddings, dtype=np.float32)
    if similarity == "dot":
        return rows
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), EPSILON), dtype=np.float32)


def scored(embeddings: Tensor, similarity: Similarity) -> Tensor:
    """(n, H) the same with gradient, in float32."""
    rows = embeddings.float()
    return rows if similarity == "dot" else torch.nn.functional.normalize(rows, dim=-1, eps=EPSILON)


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Around products of embeddings: float32 as it is, without autocast, TF32 or a CPU's bf16, and without a graph."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        lowering = torch.amp.is_autocast_available(device.type)
        with torch.autocast(device.type, enabled=False) if lowering else nullcontext(), torch.no_grad():
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def products_with(queries: Tensor) -> Callable[[Tensor], Tensor]:
    """A function of float32 documents (D, H): their inner products (D, Q) with the queries (Q, H).

    On a CPU by oneDNN with the queries packed once, which takes a quarter less time than MKL on AMD's processors.
    """
    if queries.device.type == "cpu" and queries.numel() and _HAS_ONEDNN:
        packed = torch.ops.mkldnn._reorder_linear_weight(queries, _PACKED_FOR_ROWS)
        return lambda documents: torch.ops.mkldnn._linear_pointwise(documents, packed, None, "none", [], "")
    return lambda documents: documents @ queries.T
