from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from ...types import Scores
from .. import MethodSpec
from .._numerics import full

SPEC = MethodSpec(scheduled=("rate", "start_at"), ordered=True, trial={"clusters": 3})


class Cluster(nn.Module):
    """Drops candidates in the cluster of a positive; training learns the clusters (ClusterNS, arXiv 2305.09892).

    clusters: the number of centroids. They are chosen farthest-first from the first batch whose documents have a mean
        cosine of at most start_at, and at least as many documents; until then nothing is dropped.
    rate: after each training step a centroid moves as c <- rate * (sum of its documents) + (1 - rate) * c, as in the
        released code; only its direction matters. The centroids are state, saved with the checkpoint.

    Departures: ClusterNS clusters sentences, which are queries and documents at once; here only documents are
    clustered, and a candidate is suspect where it shares the cluster of one of the query's positives. The released
    code leaves suspects in the denominator; to treat them by the bidirectional margin, add the loss
    `bidirectional_margin`. Raises InputError where scores come without the documents' embeddings.
    """

    centroids: Tensor

    def __init__(self, *, clusters: int = 128, rate: float = 1e-3, start_at: float = 0.4) -> None:
        super().__init__()
        if clusters < 1 or not 0 <= rate <= 1:
            raise InputError("filtering.cluster: expected clusters at least 1 and rate from 0 to 1")
        self.clusters, self.rate, self.start_at = clusters, rate, start_at
        self.register_buffer("centroids", torch.empty(0, 0))  # (K, H) once there are any

    def forward(self, scores: Scores) -> Tensor:
        if scores.documents is None:
            raise InputError("filtering.cluster: needs the documents' embeddings")
        documents = F.normalize(full(scores.documents.detach()), dim=1)  # (D, H)
        if not len(self.centroids):
            pairs = max(len(documents) * (len(documents) - 1), 1)
            if (documents.sum(dim=0).square().sum() - len(documents)) / pairs > self.start_at:
                return scores.candidate
            self.centroids = self._farthest_first(documents)
        belongs = F.one_hot((documents @ F.normalize(self.centroids, dim=1).T).argmax(dim=1), len(self.centroids))
        belongs = belongs.to(documents.dtype)  # (D, K)
        if self.training:
            self.centroids = self.rate * belongs.T @ documents + (1 - self.rate) * self.centroids
        together = scores.positive.to(documents.dtype) @ belongs @ belongs.T > 0  # (Q, D)
        return scores.candidate & ~together

    def _farthest_first(self, documents: Tensor) -> Tensor:
        if len(documents) < self.clusters:
            raise InputError(
                f"filtering.cluster.clusters: {self.clusters} centroids cannot be chosen from {len(documents)} "
                "documents; give fewer clusters or larger batches"
            )
        chosen = [0]
        nearest = documents @ documents[0]
        for _ in range(self.clusters - 1):
            chosen.append(int(nearest.argmin()))
            nearest = nearest.maximum(documents @ documents[chosen[-1]])
        return documents[chosen].clone()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict[f"{prefix}centroids"]  # their number is known only when saved
        self.centroids = torch.empty_like(saved, device=self.centroids.device)
        super()._load_from_state_dict(state_dict, prefix, *args)
