"""Scores of query-document pairs, from an encoder or a cross-encoder."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel

from .. import distributed
from ..data.jsonl import read_json_object
from ..data.selection import Selection
from ..errors import InputError
from ..files import fingerprint_of
from ..recipe import CROSS_ENCODER, Model
from ..types import Dataset, Item, Items
from . import cpu, store
from .encoder import Encoder, Progress, load_encoder
from .folders import model_folder, with_safetensors
from .modules import own_length, processing_of, weights_fingerprint
from .opening import opened
from .precision import DTYPES, Resolved
from .similarity import as_scored, exact_products

Floats = npt.NDArray[np.float32]
PAIRS = 1024  # a cross-encoder's pairs that are sorted by length together: all that an interruption loses


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

    def __init__(
        self,
        name: str,
        dataset: Dataset,
        device: str,
        *,
        precision: Resolved = "fp32",
        trust_remote_code: bool = False,
    ) -> None:
        """precision: of all layers but the head's, which stay float32 so that scores keep their digits. Raises
        InputError for a model that cannot be loaded, or that gives several numbers a pair."""
        from sentence_transformers import CrossEncoder

        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust_remote_code}

        self._name, self._dataset, self.precision = name, dataset, precision
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
        if precision != "fp32":
            self._model.set_keep_in_fp32_modules(_head_of(self._model))

    @cached_property
    def fingerprint(self) -> str:
        """Everything that its scores depend on: weights, tokenizer, settings, the precision, the kind of device, the
        libraries' versions."""
        model = self._model
        settings = [model.config.to_json_string(), str(model.activation_fn), str(model.max_seq_length)]
        settings += [self.precision, model.device.type]
        versions = json.dumps(store.versions(), sort_keys=True)
        return fingerprint_of(weights_fingerprint(model), processing_of(model), *settings, versions)

    def __call__(self, query_id: str, doc_ids: Sequence[str]) -> Floats:
        return self.score({query_id: doc_ids})[query_id]

    def score(self, pairs: Mapping[str, Sequence[str]]) -> dict[str, Floats]:
        """The scores of each query's documents, in their order. All pairs are sorted by length and computed together,
        so the last bits of a score depend on the others."""
        texts = []
        for query_id, doc_ids in pairs.items():
            query = self._text(self._dataset.queries[query_id])
            texts += [(query, self._text(self._dataset.corpus[doc_id])) for doc_id in doc_ids]
        device, dtype = self._model.device, DTYPES[self.precision]
        with (
            torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32),
            cpu.while_encoding(device, dtype),
        ):
            size = 32 if device.type == "cpu" else 128
            scores = self._model.predict(texts, show_progress_bar=False, batch_size=size)
        ends = np.cumsum([len(doc_ids) for doc_ids in pairs.values()])[:-1]
        parts = np.split(np.asarray(scores, dtype=np.float32), ends)
        of_queries = zip(pairs.items(), parts, strict=True)
        return {query_id: _finite(part, query_id, doc_ids, self._name) for (query_id, doc_ids), part in of_queries}

    def of_pairs(self, pairs: Mapping[str, Sequence[str]]) -> PairScores:
        """Scores these pairs when they are asked for."""
        return PairScores(self, self._dataset.fingerprint, pairs)

    def _text(self, item: Item) -> str:
        if item.image is not None:
            raise InputError(f"cross-encoder {self._name}: reads text only, and {item.id!r} has an image")
        return item.content


class PairScores:
    """A cross-encoder's scores of known pairs, computed in groups of some thousand pairs: those of a query with those
    of the queries beside it. Groups are the same however the work is interrupted or shared."""

    def __init__(self, scorer: CrossEncoderScores, dataset: str, pairs: Mapping[str, Sequence[str]]) -> None:
        """dataset: the fingerprint of what is scored. pairs: query_id -> doc_ids."""
        self._scorer, self._dataset, self._pairs = scorer, dataset, pairs
        self._groups: list[dict[str, Sequence[str]]] = []
        self._group_of: dict[str, int] = {}
        count = PAIRS
        for query_id, doc_ids in pairs.items():
            if count >= PAIRS:
                self._groups.append({})
                count = 0
            self._groups[-1][query_id], self._group_of[query_id] = doc_ids, len(self._groups) - 1
            count += len(doc_ids)
        self._scores: dict[str, Floats] = {}

    def __call__(self, query_id: str, doc_ids: Sequence[str]) -> Floats:
        """(n,) the scores of a query's documents, which are those of its known pairs."""
        if query_id not in self._scores:
            shared = distributed.count() > 1
            self._scores = self.shared() if shared else self._scorer.score(self._groups[self._group_of[query_id]])
        return self._scores[query_id]

    def shared(self) -> dict[str, Floats]:
        """All scores, by all processes that ask for them: they take groups, through the cache (store.py)."""
        ends = np.cumsum([0, *(sum(map(len, group.values())) for group in self._groups)]).tolist()

        def scores_of(group: dict[str, Sequence[str]]) -> Floats:
            return np.concatenate(list(self._scorer.score(group).values()))[:, None]

        def blocks() -> Iterator[store.Block]:
            for group, start, stop in zip(self._groups, ends, ends[1:], strict=False):
                yield store.whole_block(start, stop, partial(scores_of, group))

        described = json.dumps(list(self._pairs.items()))
        key = store.Key(
            encoder=self._scorer.fingerprint,
            role="query",
            items=fingerprint_of(self._dataset, described, str(PAIRS)),
            count=ends[-1],
        )
        flat = np.array(store.cached(key, (ends[-1], 1), blocks))[:, 0]
        parts = np.split(flat, np.cumsum([len(doc_ids) for doc_ids in self._pairs.values()])[:-1])
        return dict(zip(self._pairs, parts, strict=True))


def _head_of(model: Any) -> list[str]:
    """The names of a cross-encoder's linear layers above its base model."""
    whole = next(part for part in model.modules() if isinstance(part, PreTrainedModel))
    inside = set(whole.base_model.modules())
    return [name for name, part in model.named_modules() if isinstance(part, torch.nn.Linear) and part not in inside]


Scorer = EncoderScores | CrossEncoderScores | PairScores


def cross_encoder(
    name: str | None,
    dataset: Dataset,
    device: str,
    *,
    precision: Resolved = "fp32",
    trust_remote_code: bool = False,
) -> CrossEncoderScores | None:
    """The cross-encoder that `cross-encoder:NAME` names; None for another teacher, and without one."""
    if name is None or not name.startswith(CROSS_ENCODER):
        return None
    name = name.removeprefix(CROSS_ENCODER)
    return CrossEncoderScores(name, dataset, device, precision=precision, trust_remote_code=trust_remote_code)


def teacher_scores(
    name: str,
    encoder: Encoder,
    dataset: Dataset,
    doc_ids: Collection[str] | None = None,
    *,
    on_progress: Progress | None = None,
) -> Scorer:
    """The scorer that a recipe's `negatives.teacher` names: an encoder, or `cross-encoder:NAME`."""
    by_pair = cross_encoder(name, dataset, str(encoder.device), precision=encoder.precision)
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
