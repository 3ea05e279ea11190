"""Queries that search all documents at every step, while the documents stay as they were (ADORE, arXiv 2104.08051)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from ..data.relevance import Relevance
from ..errors import InputError
from ..files import fingerprint_of
from ..models.encoder import Encoder, Progress
from ..models.prepared import Prepared
from ..models.similarity import as_scored
from ..search.exact import exact_search, tie_order
from ..types import Dataset, Item, Items, Role
from .negatives import NegativeSource
from .step import training_mode

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Floats = npt.NDArray[np.float32]


class FrozenDocuments(Encoder):
    """The trained encoder for queries; for documents, the embeddings that it gave before training.

    It is an Encoder, so that training and validation treat it as any other.
    """

    def __init__(self, trained: Encoder, corpus: Items, embeddings: Floats) -> None:
        """embeddings: (D, H) of the corpus, from the untrained model."""
        super().__init__(trained.model, trained.name, trained.precision, cached=False)
        self.chunk_tokens = trained.chunk_tokens
        self._corpus, self._embeddings = corpus, embeddings

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(super().fingerprint, self._corpus.fingerprint)

    def prepare(self, items: Sequence[Item], role: Role) -> list[Prepared]:
        if role == "query":
            return super().prepare(items, role)
        return [Prepared(raw=self._corpus.row(item.id)) for item in items]

    def forward(self, chunk: Sequence[Prepared], role: Role) -> Tensor:
        if role == "query":
            return super().forward(chunk, role)
        return torch.from_numpy(self._embeddings[[item.raw for item in chunk]]).to(self.device)

    def encode(self, items: Items | Sequence[Item], role: Role, *, on_progress: Progress | None = None) -> Floats:
        if role == "query":
            return super().encode(items, role, on_progress=on_progress)
        rows = [self._corpus.row(item.id) for item in items]
        return np.asarray(self._embeddings[rows], dtype=np.float32)


class LiveNegatives(NegativeSource):
    """The documents that each query of a batch scores highest at that moment, without those that are no negatives.

    Exact search over all documents. On several processes the main one searches, and all take what it finds.
    """

    def __init__(
        self, encoder: FrozenDocuments, dataset: Dataset, relevance: Relevance, depth: int, accelerator: Accelerator
    ) -> None:
        self._encoder, self._dataset, self._relevance = encoder, dataset, relevance
        self._depth, self._accelerator = depth, accelerator
        self._documents = as_scored(encoder.encode(dataset.corpus, "document"), encoder.similarity)  # (D, H)
        self._order = tie_order(dataset.corpus.ids)

    def draw(self, query_ids: Sequence[str], epoch: int) -> dict[str, list[str]]:
        drawn: list[Any] = [None]
        if self._accelerator.is_main_process:
            drawn = [self._search(list(dict.fromkeys(query_ids)))]
        if self._accelerator.num_processes > 1:
            broadcast_object_list(drawn)
        negatives: dict[str, list[str]] = drawn[0]
        return negatives

    def _search(self, query_ids: list[str]) -> dict[str, list[str]]:
        embeddings = self._encoder.encode([self._dataset.queries[query_id] for query_id in query_ids], "query")
        training_mode(self._encoder.model)  # encoding leaves it
        queries, ids = as_scored(embeddings, self._encoder.similarity), self._dataset.corpus.ids
        _, rows = exact_search(queries, self._documents, self._depth, tie_order=self._order)
        negatives = {}
        for query_id, of_query in zip(query_ids, rows.tolist(), strict=True):
            doc_ids = [ids[row] for row in of_query]
            forbidden = self._relevance.forbidden(query_id, doc_ids)
            negatives[query_id] = [doc_id for doc_id, out in zip(doc_ids, forbidden, strict=True) if not out]
        return negatives


def two_towers(queries: SentenceTransformer, documents: SentenceTransformer) -> SentenceTransformer:
    """One model that embeds queries by the first and documents by the second; `SentenceTransformer(path)` opens it.

    Without a task it encodes documents. Raises InputError for a model that has several towers already.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router

    if any(isinstance(module, Router) for module in (*queries, *documents)):
        raise InputError("negatives.live: a model with several towers already cannot get another one for documents")
    router = Router.for_query_document(
        query_modules=list(queries.children()), document_modules=list(documents.children()), default_route="document"
    )
    return SentenceTransformer(
        modules=[router],
        device=str(queries.device),
        prompts=queries.prompts,
        similarity_fn_name=queries.similarity_fn_name,
    )
