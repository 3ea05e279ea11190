from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt

from ...errors import InputError
from ...models.encoder import Encoder, Progress
from ...models.scorers import other_encoder
from ...models.similarity import as_scored
from ...types import Dataset, Items, Role
from .. import MethodSpec
from . import Sourced
from ._ranking import positives_of, queries_of

SPEC = MethodSpec(experimental=True)
Floats = npt.NDArray[np.float32]
_ROWS = 8192  # documents concatenated at once
_QUERIES = 64  # queries compared with the whole corpus at once


class Enterprise:
    """Takes documents nearer to the query than the positive is, and than they are to it (arXiv 2505.18366).

    Embeddings of several encoders, normalised and concatenated, are reduced by PCA (fitted on the corpus) to the
    components that hold a share `variance`, and compared by cosine distance d. A document D is a candidate where
    d(Q, D) < d(Q, P) and d(Q, D) < d(P, D), for every positive P of Q; nearest first, at most `depth`. A query
    without one gets none.

    models: encoders besides the one that is trained (the paper concatenates six). The paper takes the nearest only
    (depth 1), to train a cross-encoder. The first condition picks what scores above the positive, so false negatives
    are likely: filter with a teacher. Scores are 1 - d. Second-hand: the formula was read in a summary.

    The projected corpus is kept in memory.
    """

    def __init__(self, *, models: list[str] | None = None, variance: float = 0.95, depth: int = 1) -> None:
        if not 0 < variance <= 1 or depth < 1:
            raise InputError("mining.enterprise: expected 0 < variance <= 1 and depth >= 1")
        self.models, self.variance, self.depth = models or [], variance, depth
        self._corpus: tuple[str, Floats, Floats, Floats] | None = None

    def __call__(self, dataset: Dataset, encoder: Encoder, *, on_progress: Progress | None = None) -> Sourced:
        encoders = [encoder, *(other_encoder(name, encoder) for name in self.models)]
        mean, components, documents = self._fitted(encoders, dataset, on_progress)
        query_ids, doc_ids, run = queries_of(dataset), dataset.corpus.ids, {}
        rows = [dataset.queries.row(query_id) for query_id in query_ids]
        queries = np.concatenate([_project(b, mean, components) for b in _blocks(encoders, dataset.queries, "query")])
        for start in range(0, len(rows), _QUERIES):
            distances = 1 - queries[rows[start : start + _QUERIES]] @ documents.T  # (Q, D)
            for query_id, row in zip(query_ids[start : start + _QUERIES], distances, strict=True):
                positives = [dataset.corpus.row(doc_id) for doc_id in positives_of(dataset.qrels, query_id)]
                closer = np.setdiff1d(np.flatnonzero(row < row[positives].min()), positives)
                between = 1 - documents[closer] @ documents[positives].T  # (n, P)
                chosen = closer[select(row[closer], row[positives], between)]
                run[query_id] = {doc_ids[column]: float(1 - row[column]) for column in chosen[: self.depth].tolist()}
        return {"enterprise": run}

    def _fitted(
        self, encoders: list[Encoder], dataset: Dataset, on_progress: Progress | None
    ) -> tuple[Floats, Floats, Floats]:
        key = " ".join([dataset.corpus.fingerprint, *(encoder.fingerprint for encoder in encoders)])
        if self._corpus is None or self._corpus[0] != key:
            for encoder in encoders:
                encoder.encode(dataset.corpus, "document", on_progress=on_progress)
            mean, components = fit(lambda: _blocks(encoders, dataset.corpus, "document"), self.variance)
            blocks = [_project(b, mean, components) for b in _blocks(encoders, dataset.corpus, "document")]
            self._corpus = (key, mean, components, np.concatenate(blocks))
        return self._corpus[1:]


def _blocks(encoders: list[Encoder], items: Items, role: Role) -> Iterator[Floats]:
    """(n, H1 + H2 + ...) normalised embeddings of all encoders side by side, some rows at a time."""
    parts = [encoder.encode(items, role) for encoder in encoders]
    for start in range(0, len(items), _ROWS):
        yield np.concatenate([as_scored(part[start : start + _ROWS], "cosine") for part in parts], axis=1)


def fit(blocks: Callable[[], Iterable[Floats]], variance: float) -> tuple[Floats, Floats]:
    """The mean (H,) and the principal components (H, h) that hold that share of the variance; reads the rows thrice."""
    count = sum(len(block) for block in blocks())
    mean = np.sum([block.sum(axis=0, dtype=np.float64) for block in blocks()], axis=0) / count
    covariance = np.zeros((len(mean), len(mean)))
    for block in blocks():
        covariance += (block - mean).T @ (block - mean) / count
    values, vectors = np.linalg.eigh(covariance)  # ascending
    shares = np.cumsum(values[::-1].clip(min=0)) / max(values.clip(min=0).sum(), 1e-12)
    kept = int(np.searchsorted(shares, variance - 1e-9)) + 1
    return mean.astype(np.float32), vectors[:, ::-1][:, :kept].astype(np.float32)


def _project(rows: Floats, mean: Floats, components: Floats) -> Floats:
    return as_scored(np.asarray((rows - mean) @ components, dtype=np.float32), "cosine")


def select(to_query: Floats, positives_to_query: Floats, to_positives: Floats) -> npt.NDArray[np.int64]:
    """Rows that meet both conditions, nearest first: (D,) and (P,) distances to the query, (D, P) to the positives."""
    meets = (to_query < positives_to_query.min()) & (to_query[:, None] < to_positives).all(axis=1)
    rows = np.flatnonzero(meets)
    return rows[np.argsort(to_query[rows], kind="stable")]
