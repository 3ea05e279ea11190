"""What batching methods may know of pairs at the price of some work: lengths in tokens, embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import methods
from ..models.encoder import Encoder
from ..models.prepared import blocks
from ..models.scorers import EncoderScores
from ..recipe import Recipe
from ..types import Dataset, Items, Pair, Role
from .plan import Facts


def facts_for(recipe: Recipe, encoder: Encoder, dataset: Dataset, query_ids: Sequence[str]) -> Facts | None:
    """What the recipe's batching method NEEDS; None where that is nothing.

    Embeddings are those of the base weights for the whole run, so that a resumed run makes the same batches.
    """
    needs = methods.describe("batching", recipe.batching.name).spec.needs
    if not needs:
        return None
    positives = {d for q in query_ids for d, grade in dataset.qrels[q].items() if grade > 0}
    lengths = _lengths(encoder, dataset, query_ids, sorted(positives)) if "lengths" in needs else None
    scores = EncoderScores(encoder, dataset, positives) if {*needs} - {"lengths"} else None

    def facts(pairs: Sequence[Pair]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if lengths is not None:
            found["lengths"] = [
                lengths["query", pair.query_id] + sum(lengths["document", doc_id] for doc_id in pair.positives)
                for pair in pairs
            ]
        if scores is not None and "query_embeddings" in needs:
            found["query_embeddings"] = torch.from_numpy(scores.queries([pair.query_id for pair in pairs]))
        if scores is not None and "document_embeddings" in needs:
            found["document_embeddings"] = torch.from_numpy(scores.documents([pair.positives[0] for pair in pairs]))
        return found

    return facts


def _lengths(
    encoder: Encoder, dataset: Dataset, query_ids: Sequence[str], doc_ids: Sequence[str]
) -> dict[tuple[Role, str], int]:
    """Tokens of each, as the model sees it."""
    return {
        **_of_role(encoder, dataset.queries, query_ids, "query"),
        **_of_role(encoder, dataset.corpus, doc_ids, "document"),
    }


def _of_role(encoder: Encoder, items: Items, ids: Sequence[str], role: Role) -> dict[tuple[Role, str], int]:
    lengths = {}
    for block in blocks(items[item_id] for item_id in ids):
        for item, prepared in zip(block, encoder.prepare(block, role), strict=True):
            lengths[role, item.id] = prepared.length
    return lengths
