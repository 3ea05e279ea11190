"""Retrieval as BEIR does it: every judged query of a split against the whole corpus, exactly.

A document is read as title + " " + text; queries and documents are encoded apart, each with its own prompt; scores
are float32 cosines or inner products, whichever the model asks for. https://arxiv.org/abs/2104.08663
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.dataset import judged_documents, source_of
from ..data.trec import read_run
from ..errors import InputError
from ..files import fingerprint_of_file
from ..recipe.measures import parse
from ..search.exact import as_run, exact_search, tie_order
from ..types import Dataset, Run
from .measures import DEFAULT_MEASURES, deepest, mean, per_query
from .results import Evaluation, write

if TYPE_CHECKING:
    from ..models.encoder import Encoder, Progress

# Sets whose queries are themselves documents, under the same id: each would find itself first. In other sets where ids
# coincide (numbered queries and numbered documents, as in MS MARCO or FiQA) the document is another text.
_SELF_RETRIEVAL = {"arguana", "quora", "quoraretrieval"}


def evaluate(
    encoder: Encoder,
    dataset: Dataset,
    *,
    measures: str | Sequence[str] = DEFAULT_MEASURES,
    depth: int = 1000,
    ignore_identical_ids: bool | None = None,
    truncate_dim: int | None = None,
    judged_only: bool = False,
    output: str | Path | None = None,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Ranks the corpus for each judged query and measures the ranking.

    measures: names such as `nDCG@10`. depth: how many documents are kept per query; the deepest measure's cut-off where
    that is deeper. ignore_identical_ids: remove the document that has the query's own id before measuring; by default
    only for sets known to need it (ArguAna, Quora). truncate_dim: use the first so many dimensions. judged_only: rank
    only documents that the split judges, as is done where each split has documents of its own; figures are higher than
    over the whole corpus. output: also write `output/<dataset's label>/`. Raises InputError for an unknown measure and
    for a model whose numbers are not finite.
    """
    names = parse(measures)
    if truncate_dim is not None and not 1 <= truncate_dim <= encoder.dimension:
        raise InputError(f"cannot truncate to {truncate_dim} dimensions: {encoder.name} has {encoder.dimension}")
    dimensions = truncate_dim or encoder.dimension
    without_self = is_self_retrieval(dataset) if ignore_identical_ids is None else ignore_identical_ids
    depth = max(depth, deepest(names))
    dataset = judged_documents(dataset) if judged_only else dataset
    run = _retrieve(encoder, dataset, depth + without_self, dimensions, on_progress)
    if without_self:
        run = {query_id: _without(query_id, scores, depth) for query_id, scores in run.items()}
    protocol = {"depth": depth, "ignore_identical_ids": without_self, "dimensions": dimensions}
    protocol |= {"judged_only": True} if dataset.judged_only else {}
    fingerprints = {"data": dataset.fingerprint, "model": encoder.fingerprint}
    return _measured(dataset, run, names, encoder.name, fingerprints, protocol, output)


def encode_for_evaluation(encoder: Encoder, datasets: Sequence[Dataset], *, judged_only: bool = False) -> None:
    """Encodes the documents, which are many, with the process that is at `evaluate` and shares the work
    (encode/shared.py)."""
    for dataset in datasets:
        encoder.encode((judged_documents(dataset) if judged_only else dataset).corpus, "document")


def is_self_retrieval(dataset: Dataset) -> bool:
    """Whether the set is known for queries that are documents as well, by its name."""
    names = {re.sub("[^a-z]", "", name.lower()) for name in (dataset.name, dataset.folder.name)}
    return any(re.sub("^(beir|nano)", "", name) in _SELF_RETRIEVAL for name in names)


def _retrieve(encoder: Encoder, dataset: Dataset, depth: int, dimensions: int, on_progress: Progress | None) -> Run:
    query_ids, doc_ids = list(dataset.qrels), dataset.corpus.ids
    queries = encoder.encode([dataset.queries[query_id] for query_id in query_ids], "query")
    documents = encoder.encode(dataset.corpus, "document", on_progress=on_progress)
    scores, rows = exact_search(
        queries[:, :dimensions],
        documents[:, :dimensions],
        depth,
        similarity=encoder.similarity,
        tie_order=tie_order(doc_ids),
    )
    return as_run(query_ids, doc_ids, scores, rows)


def _without(query_id: str, scores: dict[str, float], depth: int) -> dict[str, float]:
    kept = [(doc_id, score) for doc_id, score in scores.items() if doc_id != query_id]
    return dict(kept[:depth])


def evaluate_run(
    run: Run | str | Path,
    dataset: Dataset,
    *,
    measures: str | Sequence[str] = DEFAULT_MEASURES,
    output: str | Path | None = None,
) -> Evaluation:
    """Measures a run, or a TREC run file, whatever made it.

    Raises InputError for queries or documents that the dataset does not have, and where no query of it is judged.
    """
    names = parse(measures)
    if isinstance(run, str | Path):
        name, scores = str(run), read_run(run)
        fingerprints = {"run": fingerprint_of_file(Path(run))}
    else:
        name, scores, fingerprints = "run", run, {}
    _refuse_unknown(scores, dataset, name)
    return _measured(dataset, scores, names, name, {"data": dataset.fingerprint, **fingerprints}, {}, output)


def _refuse_unknown(run: Run, dataset: Dataset, name: str) -> None:
    queries = [query_id for query_id in run if query_id not in dataset.queries]
    found = dict.fromkeys(doc_id for scores in run.values() for doc_id in scores)
    documents = [doc_id for doc_id in found if doc_id not in dataset.corpus]
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
    output: str | Path | None,
) -> Evaluation:
    values = per_query(names, dataset.qrels, run)
    evaluation = Evaluation(
        label=dataset.label,
        dataset=dataset.name,
        split=dataset.split,
        model=model,
        folder=source_of(dataset),
        fingerprints=fingerprints,
        queries=len(dataset.qrels),
        measures=mean(values),
        protocol=protocol,
        per_query=values,
        run=run,
        qrels=dataset.qrels,
    )
    if output is not None:
        write(evaluation, Path(output))
    return evaluation
