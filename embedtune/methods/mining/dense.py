from __future__ import annotations

from collections.abc import Sequence

from ...models.encoder import Encoder, Progress
from ...models.scorers import other_encoder, query_rows
from ...search.exact import Searcher, as_run, documents_by_row
from ...search.together import search_together
from ...types import Dataset, Items
from . import Sourced
from ._ranking import check_ranks, most_positives, queries_of, ranks


class Dense:
    """Retrieves with the model itself, by exact search over the corpus (hard negatives as in ANCE, arXiv 2007.00808).

    depth, first: the candidates of ranks first to depth, the query's positives not counted. To skip ranks among what
    the filters kept, sample with `window` instead.
    model: retrieves with another encoder than the one that is trained. Filters still compare the scores of the
    trained one; for thresholds in the other model's units, name that model as negatives.teacher too.

    Documents that fit there stay on the model's device from one call to the next. Processes share the search.
    """

    def __init__(self, *, depth: int = 100, first: int = 1, model: str | None = None) -> None:
        check_ranks("dense", first, depth)
        self.depth, self.first, self.model = depth, first, model
        self._searcher: tuple[list[str], Sequence[str], Searcher] | None = None  # what it is of, the rows' documents

    def __call__(self, dataset: Dataset, encoder: Encoder, *, on_progress: Progress | None = None) -> Sourced:
        model = encoder if self.model is None else other_encoder(self.model, encoder)
        query_ids, corpus = queries_of(dataset), model.split(dataset.corpus)
        doc_ids, searcher = self._searcher_of(model, corpus, on_progress)
        parts = [model.fingerprint, dataset.queries.fingerprint, corpus.fingerprint, *query_ids]
        k = self.depth + most_positives(dataset)
        scores, rows = search_together(searcher, query_rows(model, dataset.queries, query_ids), k, *parts)
        run = as_run(query_ids, doc_ids, scores, rows)
        label = "dense" if self.model is None else f"dense:{self.model}"
        return {label: ranks(run, dataset.qrels, first=self.first, depth=self.depth)}

    def _searcher_of(
        self, model: Encoder, corpus: Items, on_progress: Progress | None
    ) -> tuple[Sequence[str], Searcher]:
        parts = [model.fingerprint_for("document"), corpus.fingerprint]
        if self._searcher is None or self._searcher[0] != parts:
            embeddings = model.encode(corpus, "document", on_progress=on_progress)
            doc_ids, order = documents_by_row(corpus)
            searcher = Searcher(embeddings, similarity=model.similarity, tie_order=order, device=model.device)
            self._searcher = (parts, doc_ids, searcher)
        return self._searcher[1:]
