"""Queries that search all documents at every step, while the documents stay as they were (ADORE, arXiv 2104.08051)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch import Tensor

from ..data.relevance import Relevance
from ..errors import InputError
from ..files import fingerprint_of
from ..models.encoder import Encoder, Progress
from ..models.prepared import Prepared
from ..search.exact import Searcher, tie_order
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

    Exact search over all documents. Each of several processes searches its part of them.
    """

    def __init__(
        self, encoder: FrozenDocuments, dataset: Dataset, relevance: Relevance, depth: int, accelerator: Accelerator
    ) -> None:
        self._encoder, self._dataset, self._relevance = encoder, dataset, relevance
        self._depth, self._accelerator = depth, accelerator
        self._searcher = Searcher(
            encoder.encode(dataset.corpus, "document"),
            similarity=encoder.similarity,
            tie_order=tie_order(dataset.corpus.ids),
            device=encoder.device,
        )

    def draw(self, query_ids: Sequence[str], epoch: int) -> dict[str, list[str]]:
        query_ids = list(dict.fromkeys(query_ids))
        queries = self._encoder.encode([self._dataset.queries[query_id] for query_id in query_ids], "query")
        training_mode(self._encoder.model)  # encoding leaves it
        _, rows = self._searcher.unpack(self._keys(queries))
        ids, negatives = self._dataset.corpus.ids, {}
        for query_id, of_query in zip(query_ids, rows.tolist(), strict=True):
            doc_ids = [ids[row] for row in of_query]
            forbidden = self._relevance.forbidden(query_id, doc_ids)
            negatives[query_id] = [doc_id for doc_id, out in zip(doc_ids, forbidden, strict=True) if not out]
        return negatives

    def _keys(self, queries: Floats) -> Tensor:
        """(Q, depth) what all processes find, each in its part."""
        processes = self._accelerator.num_processes
        if processes == 1:
            return self._searcher.keys(queries, self._depth)
        keys = self._searcher.keys(queries, self._depth, (self._accelerator.process_index, processes))
        of_parts: Tensor = self._accelerator.gather(keys[None])  # (processes, Q, depth)
        return of_parts.transpose(0, 1).flatten(1).topk(keys.shape[1], dim=1).values


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
        truncate_dim=queries.truncate_dim,
    )
