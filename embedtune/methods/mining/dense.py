from __future__ import annotations

from ...models.encoder import Encoder, Progress
from ...models.scorers import other_encoder, query_rows
from ...search.exact import as_run, documents_by_row, exact_search
from ...types import Dataset
from . import Sourced
from ._ranking import check_ranks, most_positives, queries_of, ranks


def dense(
    dataset: Dataset,
    encoder: Encoder,
    *,
    depth: int = 100,
    first: int = 1,
    model: str | None = None,
    on_progress: Progress | None = None,
) -> Sourced:
    """Retrieves with the model itself, by exact search over the corpus (hard negatives as in ANCE, arXiv 2007.00808).

    depth, first: the candidates of ranks first to depth, the query's positives not counted. To skip ranks among what
    the filters kept, sample with `window` instead.
    model: retrieves with another encoder than the one that is trained. Filters still compare the scores of the
    trained one; for thresholds in the other model's units, name that model as negatives.teacher too.
    """
    check_ranks("dense", first, depth)
    searcher = encoder if model is None else other_encoder(model, encoder)
    query_ids, corpus = queries_of(dataset), encoder.split(dataset.corpus)
    doc_ids, order = documents_by_row(corpus)
    scores, rows = exact_search(
        query_rows(searcher, dataset.queries, query_ids),
        searcher.encode(corpus, "document", on_progress=on_progress),
        depth + most_positives(dataset),
        similarity=searcher.similarity,
        tie_order=order,
    )
    run = as_run(query_ids, doc_ids, scores, rows)
    return {"dense" if model is None else f"dense:{model}": ranks(run, dataset.qrels, first=first, depth=depth)}
