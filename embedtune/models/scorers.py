"""Scores of query-document pairs, from an encoder or a cross-encoder."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..data.jsonl import read_json_object
from ..data.selection import Selection
from ..errors import InputError
from ..files import fingerprint_of
from ..recipe import CROSS_ENCODER, Model
from ..types import Dataset, Item, Items
from . import store
from .encoder import Encoder, Progress, load_encoder
from .folders import model_folder, with_safetensors
from .modules import own_length, processing_of, weights_fingerprint
from .opening import opened
from .similarity import as_scored, exact_products

Floats = npt.NDArray[np.float32]


def other_encoder(name: str, like: Encoder) -> Encoder:
    """The named encoder on the same device and in the same precision, loaded once. Its embeddings are cached."""
    return _loaded(name, str(like.device), like.precision, like.chunk_tokens.asked)


@lru_cache(maxsize=8)
def _loaded(name: str, device: str, precision: Any, chunk_tokens: int | None) -> Encoder:
    return load_encoder(Model(name=name, chunk_tokens=chunk_tokens), device=device, precision=precision)


def query_rows(encoder: Encoder, queries: Items, query_ids: Sequence[str]) -> Floats:
    """(n, H) embeddings of these queries; those of the whole set are computed once."""
    return encoder.encode(queries, "query")[[queries.row(query_id) for query_id in query_ids]]


class EncoderScores:
    """An encoder's scores. Its embeddings are computed once and come from the cache."""

    def __init__(
        self,
        encoder: Encoder,
        dataset: Dataset,
        doc_ids: Collection[str] | None = None,
        *,
        on_progress: Progress | None = None,
    ) -> None:
        """doc_ids: the documents that will be scored; absent, all. A few of them are encoded without the others."""
        self._encoder, self._queries = encoder, dataset.queries
        self._corpus = _needed(encoder, dataset.corpus, doc_ids)
        self._of_queries = encoder.encode(dataset.queries, "query")
        self._of_documents = encoder.encode(self._corpus, "document", on_progress=on_progress)

    def __call__(self, query_id: str, doc_ids: Sequence[str]) -> Floats:
        """(n,) the scores of these documents for one query."""
        scores: Floats = self.documents(doc_ids) @ self.queries([query_id])[0]
        return _finite(scores, query_id, doc_ids, self._encoder.name)

    def queries(self, query_ids: Sequence[str]) -> Floats:
        """(n, H) rows whose inner products are the scores."""
        return as_scored(self._of_queries[[self._queries.row(i) for i in query_ids]], self._encoder.similarity)

    def documents(self, doc_ids: Sequence[str]) -> Floats:
        """(n, H) rows whose inner products are the scores."""
        return as_scored(self._of_documents[[self._corpus.row(i) for i in doc_ids]], self._encoder.similarity)

    def matrix(self, query_ids: Sequence[str], doc_ids: Sequence[str]) -> Tensor:
        """(Q, D) the scores of all pairs, on the encoder's device."""
        return self._products(self.queries(query_ids), self.documents(doc_ids))

    def same_role(self, query_ids: Sequence[str], doc_ids: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(Q, Q) the queries' scores among each other, and (D, D) the documents', on the encoder's device."""
        queries, documents = self.queries(query_ids), self.documents(doc_ids)
        return self._products(queries, queries), self._products(documents, documents)

    def on_device(self, rows: Floats) -> Tensor:
        """The rows on the encoder's device."""
        return torch.from_numpy(rows).to(self._encoder.device)

    def _products(self, rows: Floats, others: Floats) -> Tensor:
        with exact_products(self._encoder.device):
            return self.on_device(rows) @ self.on_device(others).T


class CrossEncoderScores:
    """A sentence-transformers cross-encoder's scores (one number a pair, through the model's own activation)."""

    def __init__(self, name: str, dataset: Dataset, device: str, *, trust_remote_code: bool = False) -> None:
        """Raises InputError for a model that cannot be loaded, or that gives several numbers a pair."""
        from sentence_transformers import CrossEncoder

        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust_remote_code}

        self._name, self._dataset = name, dataset
        folder = with_safetensors(model_folder(name))
        config = read_json_object(folder / "config.json") if (folder / "config.json").exists() else {}
        kind = next(iter(config.get("architectures") or ()), "")
        if kind.endswith(("Model", "ForMaskedLM", "ForPreTraining")):  # its head would be random numbers
            raise InputError(f"cross-encoder {name}: is a {kind}, which scores no pairs; name a cross-encoder")
        self._model: Any = opened(f"cross-encoder {name}", lambda: CrossEncoder(str(folder), device=device, **options))
        if self._model.num_labels != 1:
            raise InputError(f"cross-encoder {name}: gives {self._model.num_labels} numbers a pair, expected one")
        if self._model.max_seq_length is not None:
            own_length(self._model.max_seq_length, self._model.tokenizer, f"cross-encoder {name}", texts=2)

    @property
    def fingerprint(self) -> str:
        """Everything that its scores depend on: weights, tokenizer, settings, the libraries' versions."""
        model = self._model
        settings = [model.config.to_json_string(), str(model.activation_fn), str(model.max_seq_length)]
        versions = json.dumps(store.versions(), sort_keys=True)
        return fingerprint_of(weights_fingerprint(model), processing_of(model), *settings, versions)

    def __call__(self, query_id: str, doc_ids: Sequence[str]) -> Floats:
        query = self._text(self._dataset.queries[query_id])
        pairs = [(query, self._text(self._dataset.corpus[doc_id])) for doc_id in doc_ids]
        scores = np.asarray(self._model.predict(pairs, show_progress_bar=False), dtype=np.float32)
        return _finite(scores, query_id, doc_ids, self._name)

    def _text(self, item: Item) -> str:
        if item.image is not None:
            raise InputError(f"cross-encoder {self._name}: reads text only, and {item.id!r} has an image")
        return item.content


Scorer = EncoderScores | CrossEncoderScores


def cross_encoder(
    name: str | None, dataset: Dataset, device: str, *, trust_remote_code: bool = False
) -> CrossEncoderScores | None:
    """The cross-encoder that `cross-encoder:NAME` names; None for another teacher, and without one."""
    if name is None or not name.startswith(CROSS_ENCODER):
        return None
    name = name.removeprefix(CROSS_ENCODER)
    return CrossEncoderScores(name, dataset, device, trust_remote_code=trust_remote_code)


def teacher_scores(
    name: str,
    encoder: Encoder,
    dataset: Dataset,
    doc_ids: Collection[str] | None = None,
    *,
    on_progress: Progress | None = None,
) -> Scorer:
    """The scorer that a recipe's `negatives.teacher` names: an encoder, or `cross-encoder:NAME`."""
    by_pair = cross_encoder(name, dataset, str(encoder.device))
    return by_pair or EncoderScores(other_encoder(name, encoder), dataset, doc_ids, on_progress=on_progress)


def _needed(encoder: Encoder, corpus: Items, doc_ids: Collection[str] | None) -> Items:
    """The whole corpus where half of it is needed or its embeddings are cached already, else the documents alone."""
    whole = store.Key(
        encoder=encoder.fingerprint_for("document"), role="document", items=corpus.fingerprint, count=len(corpus)
    )
    if doc_ids is None or 2 * len(doc_ids) >= len(corpus) or (encoder.cached and whole.folder.is_dir()):
        return corpus
    return Selection(corpus, sorted(doc_ids, key=corpus.row))


def _finite(scores: Floats, query_id: str, doc_ids: Sequence[str], name: str) -> Floats:
    finite = np.isfinite(scores)
    if not finite.all():
        index = int(np.argmin(finite))
        raise InputError(
            f"{name}: its score of document {doc_ids[index]!r} for query {query_id!r} is {scores[index]}: the model is "
            "broken, or the precision too low"
        )
    return scores
