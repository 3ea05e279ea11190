"""How embeddings are compared: cosine is an inner product of normalised rows, dot is the inner product itself."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Similarity = Literal["cosine", "dot"]
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
