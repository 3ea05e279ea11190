"""The negatives that training draws from: candidates in rank order, without anything that may not be a negative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .. import methods
from ..encode.encoder import Encoder
from ..recipe import Recipe
from ..relevance import Relevance
from ..seeds import generator_for
from ..types import Dataset, Run


@dataclass(frozen=True)
class Ranked:
    """One query's candidates in rank order."""

    doc_ids: list[str]
    scores: torch.Tensor  # (K,)


class Negatives:
    """Candidates by query, and the draw of an epoch."""

    def __init__(self, recipe: Recipe, candidates: dict[str, Ranked]) -> None:
        self._sample: Any = methods.bind("sampling", recipe.negatives.sampling.name, recipe.negatives.sampling.options)
        self._seed = recipe.train.seed
        self.candidates = candidates

    def draw(self, query_ids: Sequence[str], epoch: int) -> dict[str, list[str]]:
        """The negatives of these queries in this epoch. A query without candidates has none."""
        drawn = {}
        for query_id in query_ids:
            ranked = self.candidates.get(query_id)
            if ranked is not None:
                generator = generator_for(self._seed, "negatives", epoch, query_id)
                chosen = self._sample(ranked.scores, float("nan"), generator=generator)
                drawn[query_id] = [ranked.doc_ids[i] for i in chosen.tolist()]
        return drawn


def mine(
    recipe: Recipe, dataset: Dataset, encoder: Encoder, query_ids: Sequence[str], relevance: Relevance
) -> Negatives:
    """Runs the recipe's miners and ranks what they found, without positives and duplicates of positives.

    With several miners their candidates follow each other in the recipe's order, each document once.
    """
    runs: list[Run] = [
        methods.bind("mining", miner.name, miner.options)(dataset, encoder) for miner in recipe.negatives.mining
    ]
    candidates = {}
    for query_id in query_ids:
        scored: dict[str, float] = {}
        for run in runs:
            ranked = sorted(run.get(query_id, {}).items(), key=lambda pair: (pair[1], pair[0]), reverse=True)
            for doc_id, score in ranked:
                scored.setdefault(doc_id, score)
        forbidden = relevance.forbidden(query_id, scored)
        kept = [(d, s) for (d, s), out in zip(scored.items(), forbidden, strict=True) if not out]
        if kept:
            candidates[query_id] = Ranked([d for d, _ in kept], torch.tensor([s for _, s in kept]))
    return Negatives(recipe, candidates)
