from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import InputError
from ...files import cache_folder, fingerprint_of, inner_folder, locked
from ...models.encoder import Encoder, Progress
from ...search.exact import tie_order
from ...types import Dataset, Run
from . import Sourced
from ._ranking import check_ranks, most_positives, queries_of, ranks

_QUERIES = 4096  # queries tokenised at once


class Bm25:
    """Retrieves by BM25 with the library bm25s (arXiv 2407.03618): lexical negatives, as in DPR (arXiv 2004.04906).

    depth, first: the candidates of ranks first to depth, the query's positives not counted. A document that shares no
    word with the query is no candidate.
    k1, b: how much more a repeated word counts, and how much less a long document; at k1 = 0 a score is the sum of the
    IDFs of the words that occur. The defaults are those of Anserini for passages. Images are not read.
    stopwords: a language for which bm25s has a list, or null for none. Words are not stemmed.

    The index of a corpus is made once and kept in the cache. Raises InputError where bm25s is not installed, and for a
    corpus without any text.
    """

    def __init__(
        self, *, depth: int = 100, first: int = 1, k1: float = 0.9, b: float = 0.4, stopwords: str | None = "english"
    ) -> None:
        check_ranks("bm25", first, depth)
        self.depth, self.first, self.k1, self.b = depth, first, k1, b
        self.stopwords: Any = stopwords or []
        self._index: tuple[Path, Any] | None = None

    def __call__(self, dataset: Dataset, encoder: Encoder, *, on_progress: Progress | None = None) -> Sourced:
        run = self.search(dataset, queries_of(dataset), self.depth + most_positives(dataset))
        return {"bm25": ranks(run, dataset.qrels, first=self.first, depth=self.depth)}

    def search(
        self, dataset: Dataset, query_ids: Sequence[str], depth: int, *, on_progress: Progress | None = None
    ) -> Run:
        """Each query's `depth` best documents, positives among them. Raises InputError as the class says."""
        index, doc_ids, run = self._index_of(dataset), dataset.corpus.ids, {}
        order = tie_order(doc_ids)
        for start in range(0, len(query_ids), _QUERIES):
            block = query_ids[start : start + _QUERIES]
            words = self._words([dataset.queries[query_id].content for query_id in block])
            for query_id, of_query in zip(block, words, strict=True):
                known = [word for word in of_query if word in index.vocab_dict]
                # index.retrieve partitions the scores of all documents; those above 0 are few, and their order is ours
                scores = index.get_scores(known) if known else np.zeros(len(doc_ids), dtype=np.float32)
                run[query_id] = {doc_ids[row]: float(scores[row]) for row in _best(scores, order, depth)}
            if on_progress is not None:
                on_progress(start + len(block), len(query_ids))
        return run

    def _index_of(self, dataset: Dataset) -> Any:
        """The corpus's index, memory-mapped from the cache; the first process to ask makes it."""
        bm25s = _library()
        settings = [str(self.k1), str(self.b), str(self.stopwords), version("bm25s")]
        folder = cache_folder() / "bm25" / fingerprint_of("index", dataset.corpus.fingerprint, *settings)
        if self._index is None or self._index[0] != folder:
            with locked(folder.parent, wait=True):
                if not folder.is_dir():
                    self._make(dataset, folder)
            try:
                index = bm25s.BM25.load(folder, mmap=True, show_progress=False)
            except (OSError, ValueError) as error:
                raise InputError(
                    f"{folder}: damaged index ({error}); remove it or `embedtune doctor --clean`"
                ) from None
            # a memmap's slices are slow to make
            index.scores = {name: np.asarray(v) if isinstance(v, np.ndarray) else v for name, v in index.scores.items()}
            self._index = (folder, index)
        return self._index[1]

    def _make(self, dataset: Dataset, folder: Path) -> None:
        if not any(item.content for item in dataset.corpus):
            raise InputError(f"mining.bm25: reads text, and no document of {dataset.folder} has any; mine with dense")
        index = _library().BM25(k1=self.k1, b=self.b, method="lucene")
        index.index(self._words([item.content for item in dataset.corpus]), show_progress=False)
        with inner_folder(folder) as temporary:
            index.save(temporary, show_progress=False)

    def _words(self, texts: list[str]) -> list[list[str]]:
        words: list[list[str]] = _library().tokenize(
            texts, stopwords=self.stopwords, return_ids=False, show_progress=False
        )
        return words


def _library() -> Any:
    try:
        import bm25s
    except ImportError:
        raise InputError("mining.bm25: needs bm25s; try: pip install 'embedtune[bm25]'") from None
    return bm25s


def _best(scores: npt.NDArray[np.float32], order: npt.NDArray[np.int64], count: int) -> list[int]:
    """Rows of the `count` largest scores above 0, best first; of equal ones the larger in `order` first."""
    rows = np.flatnonzero(scores > 0)
    if len(rows) > count:  # only rows that reach the last place are sorted
        cut = np.partition(scores[rows], len(rows) - count)[len(rows) - count]
        rows = rows[scores[rows] >= cut]
    best: list[int] = rows[np.lexsort((-order[rows], -scores[rows]))][:count].tolist()
    return best
