"""Retrieval as BEIR does it: every judged query of a split against the whole corpus, by exact search.

A document is read as title + " " + text; queries and documents are encoded apart, each with its own prompt; scores are
cosines or inner products in float32, as the model declares. https://arxiv.org/abs/2104.08663
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.dataset import source_of
from ..data.trec import read_run
from ..errors import InputError
from ..files import fingerprint_of_file
from ..recipe.measures import parse
from ..types import Dataset, Run
from .measures import DEFAULT_MEASURES, deepest, per_query
from .results import Evaluation, write

if TYPE_CHECKING:
    from ..models.encoder import Encoder, Progress

# Sets whose queries are themselves documents under the same id: each would retrieve itself first. In other sets where
# ids coincide (numbered queries and numbered documents, as in MS MARCO or FiQA) the document is another text.
_SELF_RETRIEVAL = {"arguana", "quora", "quoraretrieval"}


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """How a corpus is searched.

    depth: the number of documents kept for each query; a measure with a deeper cut-off raises it.
    ignore_identical_ids: leave out the document that has the query's own id; by default only in ArguAna and Quora.
    truncate_dim: use this number of first dimensions; all by default.
    """

    depth: int = 1000
    ignore_identical_ids: bool | None = None
    truncate_dim: int | None = None


def evaluate(
    encoder: Encoder,
    dataset: Dataset,
    *,
    measures: str | Sequence[str] = DEFAULT_MEASURES,
    retrieval: Retrieval = Retrieval(),  # frozen
    output: str | Path | None = None,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Ranks the corpus for each judged query and measures the ranking.

    measures: names such as `nDCG@10`. output: also write the folder `output/<dataset's label>/`. Raises InputError for
    an unknown measure, for more dimensions than the model has, and for a model whose numbers are not finite.
    """
    from ..search.exact import as_run, exact_search, tie_order  # imports torch, which a run's measures do not need

    names = parse(measures)
    dimensions = dimensions_of(encoder, retrieval.truncate_dim)
    without_self = retrieval.ignore_identical_ids
    if without_self is None:
        without_self = is_self_retrieval(dataset)
    depth = max(retrieval.depth, deepest(names))
    query_ids, doc_ids = list(dataset.qrels), dataset.corpus.ids
    queries = encoder.encode([dataset.queries[query_id] for query_id in query_ids], "query")
    documents = encoder.encode(dataset.corpus, "document", on_progress=on_progress)
    scores, rows = exact_search(
        queries[:, :dimensions],
        documents[:, :dimensions],
        depth + without_self,
        similarity=encoder.similarity,
        tie_order=tie_order(doc_ids),
    )
    run = as_run(query_ids, doc_ids, scores, rows)
    if without_self:
        run = {query_id: _without(query_id, ranking, depth) for query_id, ranking in run.items()}
    protocol = {"depth": depth, "ignore_identical_ids": without_self, "dimensions": dimensions}
    protocol |= {"judged_only": True} if dataset.judged_only else {}
    protocol |= {"max_length": encoder.max_length} if encoder.max_length is not None else {}
    fingerprints = {"data": dataset.fingerprint, "model": encoder.fingerprint}
    evaluation = _measured(dataset, run, names, encoder.name, fingerprints, protocol)
    if output is not None:
        write(evaluation, Path(output))
    return evaluation


def dimensions_of(encoder: Encoder, truncate_dim: int | None) -> int:
    """The number of dimensions to use. Raises InputError for more than the model has."""
    if truncate_dim is not None and not 1 <= truncate_dim <= encoder.dimension:
        raise InputError(f"cannot truncate to {truncate_dim} dimensions: {encoder.name} has {encoder.dimension}")
    return truncate_dim or encoder.dimension


def encode_for_evaluation(encoder: Encoder, datasets: Sequence[Dataset]) -> None:
    """Encodes the corpora in step with another process that is in `evaluate` (models/shared.py).

    The corpus is the larger part, so the queries are left to that process.
    """
    for dataset in datasets:
        encoder.encode(dataset.corpus, "document")


def is_self_retrieval(dataset: Dataset) -> bool:
    """Whether the set is known, by its name, for queries that are documents as well."""
    names = {re.sub("[^a-z]", "", name.lower()) for name in (dataset.name, dataset.folder.name)}
    return any(re.sub("^(beir|nano)", "", name) in _SELF_RETRIEVAL for name in names)


def _without(query_id: str, scores: dict[str, float], depth: int) -> dict[str, float]:
    others = [(doc_id, score) for doc_id, score in scores.items() if doc_id != query_id]
    return dict(others[:depth])


def evaluate_run(
    run: Run | str | Path,
    dataset: Dataset,
    *,
    measures: str | Sequence[str] = DEFAULT_MEASURES,
    output: str | Path | None = None,
) -> Evaluation:
    """Measures a run, or a TREC run file, of any retrieval system.

    Raises InputError for queries or documents that the dataset does not have, for a run without any judged query, and
    for a score that is NaN.
    """
    names = parse(measures)
    if isinstance(run, str | Path):
        name, scores = str(run), read_run(run)
        fingerprints = {"run": fingerprint_of_file(Path(run))}
    else:
        name, scores, fingerprints = "run", run, {}
    _refuse_unknown(scores, dataset, name)
    evaluation = _measured(dataset, scores, names, name, {"data": dataset.fingerprint, **fingerprints}, {})
    if output is not None:
        write(evaluation, Path(output))
    return evaluation


def _refuse_unknown(run: Run, dataset: Dataset, name: str) -> None:
    queries = [query_id for query_id in run if query_id not in dataset.queries]
    retrieved = dict.fromkeys(doc_id for scores in run.values() for doc_id in scores)
    documents = [doc_id for doc_id in retrieved if doc_id not in dataset.corpus]
    for kind, unknown in (("queries", queries), ("documents", documents)):
        if unknown:
            raise InputError(
                f"{name}: {len(unknown)} {kind} are not in {dataset.folder}, the first {unknown[0]!r}; "
                "was the run made on other data?"
            )
    if not any(query_id in dataset.qrels for query_id in run):
        where = f"split {dataset.split!r} of {dataset.folder}"
        raise InputError(f"{name}: none of its {len(run)} queries is judged in {where}")


def _measured(
    dataset: Dataset,
    run: Run,
    names: Sequence[str],
    model: str,
    fingerprints: dict[str, str],
    protocol: dict[str, int | bool],
) -> Evaluation:
    return Evaluation(
        dataset=dataset.name,
        split=dataset.split,
        model=model,
        folder=source_of(dataset),
        fingerprints=fingerprints,
        per_query=per_query(names, dataset.qrels, run),
        run=run,
        qrels=dataset.qrels,
        protocol=protocol,
    )
