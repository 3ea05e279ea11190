from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from ...types import Scores
from .. import MethodSpec
from .._numerics import full

SPEC = MethodSpec(scheduled=("threshold",), experimental=True)
HIDDEN_AT_ONCE = 2**25  # 128 MiB


class Rrra(nn.Module):
    """Drops candidates that an adapter, trained alongside, finds relevant (RRRA, arXiv 2508.11670, second-hand).

    The adapter sees a query q and a document c by their embeddings z = [q - c; q * c; q + c] and moves the document to
    c' = c + MLP(z); the chance that c is relevant is sigmoid(a <q, c'> + b). A candidate with a chance above
    `threshold` is a suspected false negative.

    In training each call takes one Adam step on the adapter, after its verdict: cross-entropy of the positives against
    each query's most similar kept candidates, as many as `negatives`, both classes weighing the same, plus
    `constraint` times the squared distance of c' from the segment between q and c. The encoder gets no gradient.
    The MLP starts at c' = c, where nothing is dropped. Weights and moments are state, saved with the checkpoint.

    Reconstructed: the paper trains in stages on four classes whose labels and constants are not known here; positives
    and kept candidates stand in for them. Raises InputError where scores come without embeddings.
    """

    weights: Tensor  # (n,) all of the adapter's, flat
    moments: Tensor  # (2, n) Adam's
    steps: Tensor

    def __init__(
        self,
        *,
        threshold: float = 0.9,
        hidden: int = 64,
        learning_rate: float = 1e-3,
        negatives: int = 4,
        constraint: float = 0.1,
    ) -> None:
        super().__init__()
        if not 0 <= threshold <= 1 or hidden < 1 or negatives < 1:
            raise InputError("filtering.rrra: expected threshold from 0 to 1, hidden and negatives at least 1")
        self.threshold, self.hidden, self.learning_rate = threshold, hidden, learning_rate
        self.negatives, self.constraint = negatives, constraint
        self.register_buffer("weights", torch.empty(0))
        self.register_buffer("moments", torch.empty(2, 0))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, scores: Scores) -> Tensor:
        keep = scores.candidate & ~(self.chances(scores) > self.threshold)
        if self.training:
            self.learn(scores, keep)
        return keep

    def chances(self, scores: Scores) -> Tensor:
        """(Q, D) the chances of relevance, by the adapter as it is."""
        queries, documents = embeddings(scores)
        if not len(self.weights):
            self._start(queries)
        with torch.no_grad():
            return self._chances(queries, documents)

    def _chances(self, queries: Tensor, documents: Tensor) -> Tensor:
        """(Q, D) as `chance` gives them, from what is linear in q, in c and in q * c: some queries at a time, since
        their pairs' hidden values are (Q, hidden, D)."""
        width, hidden = queries.shape[1], self.hidden
        (bias, first), (shift, second), rest = self._layers(self.weights, width)
        minus, times, plus = torch.split(first, width, dim=1)  # (hidden, H) each
        of_queries = queries @ (minus + plus).T + bias  # (Q, hidden)
        of_documents = documents @ (plus - minus).T  # (D, hidden)
        similar = queries @ documents.T + (queries @ shift)[:, None]  # (Q, D)
        readout = queries @ second  # (Q, hidden)
        at_once = max(1, HIDDEN_AT_ONCE // (hidden * len(documents)))
        for start in range(0, len(queries), at_once):
            rows = slice(start, start + at_once)
            inner = (queries[rows, None] * times) @ documents.T  # (q, hidden, D)
            inner = torch.relu(inner + of_queries[rows, :, None] + of_documents.T)
            similar[rows] += (readout[rows, None] @ inner)[:, 0]
        return torch.sigmoid(rest[0] * similar + rest[1])

    def _layers(self, weights: Tensor, width: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]:
        """Bias and matrix of the first layer (hidden, 3H) and of the second (H, hidden); the sigmoid's a and b."""
        hidden = self.hidden
        first, second, rest = torch.split(weights, [hidden * (3 * width + 1), width * (hidden + 1), 2])
        layers = (first[:hidden], first[hidden:].view(hidden, -1)), (second[:width], second[width:].view(width, hidden))
        return *layers, rest

    def learn(self, scores: Scores, keep: Tensor) -> None:
        """One step on the adapter, from the positives and each query's most similar kept candidates."""
        queries, documents = embeddings(scores)
        similar = (queries @ documents.T).masked_fill(~keep, -torch.inf)
        chosen = similar.topk(min(self.negatives, similar.shape[1]), dim=1).indices
        hard = torch.zeros_like(keep).scatter(1, chosen, True) & keep
        with torch.enable_grad():
            self._learn(queries, documents, scores.positive, hard)

    def chance(self, weights: Tensor, queries: Tensor, documents: Tensor) -> tuple[Tensor, Tensor]:
        """For pairs of rows (n, H): the chances of relevance (n,) and the moved documents c' (n, H)."""
        (bias, first), (shift, second), rest = self._layers(weights, queries.shape[1])
        pairs = torch.cat([queries - documents, queries * documents, queries + documents], dim=1)
        inner = torch.relu(F.linear(pairs, first, bias))
        moved = documents + F.linear(inner, second, shift)
        return torch.sigmoid(rest[0] * (queries * moved).sum(dim=1) + rest[1]), moved

    def _start(self, queries: Tensor) -> None:
        width, hidden = queries.shape[1], self.hidden
        generator = torch.Generator().manual_seed(0)
        first = torch.randn(hidden * (3 * width + 1), generator=generator) / (3 * width) ** 0.5
        # The second layer is 0, so that c' = c; a cosine of 1 then has the chance 1/2, and no candidate more.
        start = torch.cat([first, torch.zeros(width * (hidden + 1)), torch.tensor([10.0, -10.0])])
        self.weights = start.to(queries)
        self.moments, self.steps = self.weights.new_zeros(2, len(start)), self.weights.new_zeros(())

    def _learn(self, queries: Tensor, documents: Tensor, positive: Tensor, negative: Tensor) -> None:
        rows, columns = (positive | negative).nonzero(as_tuple=True)
        if not bool(positive.any()) or not bool(negative.any()):
            return
        weights = self.weights.clone().requires_grad_()
        q, c = queries[rows], documents[columns]
        chances, moved = self.chance(weights, q, c)
        relevant = positive[rows, columns]
        errors = F.binary_cross_entropy(chances.clamp(1e-6, 1 - 1e-6), relevant.to(chances.dtype), reduction="none")
        loss = errors[relevant].mean() + errors[~relevant].mean() + self.constraint * off_segment(moved, q, c).mean()
        (gradient,) = torch.autograd.grad(loss, weights)
        self.steps = self.steps + 1
        decay = self.moments.new_tensor([[0.9], [0.999]])
        self.moments = decay * self.moments + (1 - decay) * torch.stack([gradient, gradient**2])
        mean, square = self.moments / (1 - decay**self.steps)
        self.weights = self.weights - self.learning_rate * mean / (square.sqrt() + 1e-8)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in ("weights", "moments"):  # their sizes are known only when saved
            setattr(self, name, torch.empty_like(state_dict[prefix + name], device=self.steps.device))
        super()._load_from_state_dict(state_dict, prefix, *args)


def embeddings(scores: Scores) -> tuple[Tensor, Tensor]:
    """(Q, H) queries and (D, H) documents as scored, without gradient."""
    if scores.queries is None or scores.documents is None:
        raise InputError("rrra: needs the embeddings of queries and documents")
    return full(scores.queries.detach()), full(scores.documents.detach())


def off_segment(points: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """(n,) the squared distance of each point from the segment between its start and its end."""
    along = starts - ends
    share = ((points - ends) * along).sum(dim=1) / along.square().sum(dim=1).clamp(min=1e-12)
    return (points - ends - share.clamp(0, 1)[:, None] * along).square().sum(dim=1)
