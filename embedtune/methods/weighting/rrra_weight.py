from __future__ import annotations

from torch import Tensor, nn

from ...types import Scores
from .. import MethodSpec
from ..filtering.rrra import Rrra

SPEC = MethodSpec(scheduled=("gamma",), neutral={"gamma": 0.0}, experimental=True)


class RrraWeight(nn.Module):
    """Weighs a negative by (1 - p)^gamma, p the chance that an adapter gives it (RRRA, arXiv 2508.11670, second-hand).

    The adapter is that of the filter `rrra`, in an instance of its own. It weighs a batch and then learns from it, by
    the positives and each query's `negatives` most similar negatives. At first it gives no negative more than 1/2.

    gamma: 0 is off; the paper's value is not known here. hidden, learning_rate, negatives, constraint: as in `rrra`.

    Departure: RRRA draws negatives in proportion to it; here all stay and are weighted. Not normalised; weights are
    at most 1 and at least 1e-6^gamma. Detached. Raises InputError where scores come without embeddings.
    """

    def __init__(
        self,
        *,
        gamma: float = 1.0,
        hidden: int = 64,
        learning_rate: float = 1e-3,
        negatives: int = 4,
        constraint: float = 0.1,
    ) -> None:
        super().__init__()
        self.gamma = gamma
        self.adapter = Rrra(hidden=hidden, learning_rate=learning_rate, negatives=negatives, constraint=constraint)

    def forward(self, scores: Scores, keep: Tensor) -> Tensor:
        chances = self.adapter.chances(scores)
        if self.training:
            self.adapter.learn(scores, keep)
        return (self.gamma * (1 - chances).clamp(min=1e-6).log()).masked_fill(~keep, 0.0)
