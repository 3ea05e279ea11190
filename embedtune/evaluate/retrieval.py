"""Retrieval as BEIR does it: every judged query of a split against the whole corpus, by exact search.

A document is read as title + " " + text; queries and documents are encoded apart, each with its own prompt; scores are
cosines or inner products in float32, as the model declares. https://arxiv.org/abs/2104.08663
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.dataset import source_of
from ..data.ids import absent
from ..data.relevance import is_self_retrieval, never_ranked
from ..data.runs import RunFile, load_run
from ..errors import InputError
from ..files import fingerprint_of_file
from ..recipe.measures import parse
from ..search.storage import Quantize, Rescore, Storage, dimensions_of
from ..types import Dataset, Items, Run
from .measures import DEFAULT_MEASURES, deepest, per_query
from .results import Evaluation, Protocol, write
from .slices import group_means, slices_of

if TYPE_CHECKING:
    from ..models.encoder import Encoder, Progress
    from ..search.exact import Floats, Rows


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """How a corpus is searched, and by what its queries are grouped.

    depth: the number of documents kept for each query; a measure with a deeper cut-off raises it.
    ignore_identical_ids: leave out the document that has the query's own id; by default where queries are documents as
    well (`is_self_retrieval`). truncate_dim: use this number of first dimensions; all by default. quantize, rescore,
    calibrate: how the documents' vectors are stored (search/storage.py). slices: what the queries are grouped by, as in
    `slices_of`; the means over each group are the evaluation's `groups`.
    """

    depth: int = 1000
    ignore_identical_ids: bool | None = None
    truncate_dim: int | None = None
    quantize: Quantize = "none"
    rescore: Rescore | None = None
    calibrate: Items | None = None
    slices: tuple[str, ...] = ()

    @property
    def storage(self) -> Storage:
        """Raises InputError for options without effect."""
        return Storage(
            truncate_dim=self.truncate_dim, quantize=self.quantize, rescore=self.rescore, calibrate=self.calibrate
        )


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A dataset's judged queries and its corpus as the model gives them, encoded once for every way to store them.

    queries: (Q, H). documents: (D, H), of documents or of their passages. doc_ids: each row's document. tie_order: the
    documents' order among equal scores. calibration: (n, H) of other documents that int8 takes its ranges from.
    """

    query_ids: list[str]
    queries: Floats
    documents: Floats
    doc_ids: Sequence[str]
    tie_order: Rows
    calibration: Floats | None


def evaluate(
    encoder: Encoder,
    dataset: Dataset,
    *,
    measures: str | Sequence[str] = DEFAULT_MEASURES,
    retrieval: Retrieval = Retrieval(),  # frozen
    output: str | Path | None = None,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Ranks the corpus for each judged query and measures the ranking. An encoder that splits documents
    (`Model(passages=...)`) ranks each by its best passage.

    measures: names such as `nDCG@10`. output: also write the folder `output/<dataset's label>/`. Raises InputError for
    an unknown measure, for more dimensions than the model has, and for a model whose numbers are not finite.
    """
    names = parse(measures)
    dimensions_of(encoder.name, encoder.dimension, retrieval.truncate_dim)  # refused before anything is encoded
    storage = retrieval.storage
    encoded = encode(encoder, dataset, storage.calibrate, on_progress=on_progress)
    evaluation = evaluate_encoded(encoder, dataset, encoded, names, retrieval)
    if output is not None:
        write(evaluation, Path(output))
    return evaluation


def encode(
    encoder: Encoder, dataset: Dataset, calibrate: Items | None = None, *, on_progress: Progress | None = None
) -> Encoded:
    """Encodes the judged queries and the corpus."""
    from ..search.exact import documents_by_row  # imports torch, which a run's measures do not need

    query_ids, corpus = list(dataset.qrels), encoder.split(dataset.corpus)
    doc_ids, order = documents_by_row(corpus)
    return Encoded(
        query_ids=query_ids,
        queries=encoder.encode([dataset.queries[query_id] for query_id in query_ids], "query"),
        documents=encoder.encode(corpus, "document", on_progress=on_progress),
        doc_ids=doc_ids,
        tie_order=order,
        calibration=encoder.encode(calibrate, "document") if calibrate is not None else None,
    )


def evaluate_encoded(
    encoder: Encoder, dataset: Dataset, encoded: Encoded, names: Sequence[str], retrieval: Retrieval
) -> Evaluation:
    """The evaluation of embeddings, by measures as `parse` gives them; nothing is encoded or written."""
    from ..search.exact import as_run

    dimensions = dimensions_of(encoder.name, encoder.dimension, retrieval.truncate_dim)
    without_self, depth, left_out = _ranking_of(dataset, names, retrieval)
    deeper = depth + max(map(len, left_out.values()), default=0)
    scores, rows = _ranked(encoder, dataset, encoded, retrieval, deeper)
    run = as_run(encoded.query_ids, encoded.doc_ids, scores, rows)
    run = {query_id: _without(left_out.get(query_id, ()), ranking, depth) for query_id, ranking in run.items()}
    protocol: Protocol = {"depth": depth, "ignore_identical_ids": without_self, "dimensions": dimensions}
    protocol |= retrieval.storage.protocol
    protocol |= {"judged_only": True} if dataset.judged_only else {}
    protocol |= {"max_length": encoder.max_length} if encoder.max_length is not None else {}
    if encoder.passages is not None:
        protocol |= {"passage_tokens": encoder.passages.tokens, "passage_stride": encoder.passages.stride}
    fingerprints = {"data": dataset.fingerprint, "model": encoder.fingerprint}
    evaluation = _measured(dataset, run, names, encoder.name, fingerprints, protocol)
    if not retrieval.slices:
        return evaluation
    groups = slices_of(dataset, retrieval.slices)
    return replace(evaluation, slices=groups, groups=group_means(groups, evaluation.per_query))


def _ranking_of(
    dataset: Dataset, names: Sequence[str], retrieval: Retrieval
) -> tuple[bool, int, dict[str, frozenset[str]]]:
    """Whether a query's own document is left out, the depth, and what is left out of each query's ranking."""
    without_self = retrieval.ignore_identical_ids
    if without_self is None:
        without_self = is_self_retrieval(dataset)
    return without_self, max(retrieval.depth, deepest(names)), never_ranked(dataset, without_self)


def _ranked(encoder: Encoder, dataset: Dataset, encoded: Encoded, retrieval: Retrieval, k: int) -> tuple[Floats, Rows]:
    """Scores and rows (Q, k) of the documents, stored as the retrieval says; whole ones by the encoder's device."""
    from ..search.exact import Searcher, scored_block
    from ..search.together import is_shared, search_together
    from ..search.vectors import forms_of, ranges_of, search

    similarity, storage = encoder.similarity, retrieval.storage
    dimensions = dimensions_of(encoder.name, encoder.dimension, storage.truncate_dim)
    queries, documents = encoded.queries[:, :dimensions], encoded.documents[:, :dimensions]
    if storage.quantize == "none":
        searcher = Searcher(documents, similarity=similarity, tie_order=encoded.tie_order, device=encoder.device)
        if not is_shared(len(queries), documents.shape) or not encoder.cached or encoder.borrower is not None:
            return searcher.search(queries, k)
        parts = [encoder.fingerprint, dataset.fingerprint, repr(encoder.passages), str(dimensions), *encoded.query_ids]
        return search_together(searcher, queries, k, *parts)
    ranges = None
    if "int8" in (storage.quantize, storage.rescore):
        source = documents if encoded.calibration is None else encoded.calibration
        ranges = ranges_of(source, dimensions, similarity)
    form, second = forms_of(storage, dimensions, similarity, ranges)
    return search(
        scored_block(queries, 0, len(queries), similarity, "query"),
        form.store(documents),
        k,
        rescored_by=second.store(documents) if second is not None else None,
        tie_order=encoded.tie_order,
    )


def encode_for_evaluation(
    encoder: Encoder,
    datasets: Sequence[Dataset],
    measures: str | Sequence[str] = DEFAULT_MEASURES,
    retrieval: Retrieval | None = None,
) -> None:
    """Encodes the corpora in step with another process that is in `evaluate` (models/store.py), and searches them with
    it. measures, retrieval: those of that process; without a retrieval nothing is searched."""
    from ..search.together import is_shared

    for dataset in datasets:
        documents = encoder.encode(encoder.split(dataset.corpus), "document")
        if retrieval is None or retrieval.storage.quantize != "none":
            continue
        if is_shared(len(dataset.qrels), documents.shape):
            _, depth, left_out = _ranking_of(dataset, parse(measures), retrieval)
            deeper = depth + max(map(len, left_out.values()), default=0)
            _ranked(encoder, dataset, encode(encoder, dataset), retrieval, deeper)


def _without(left_out: Collection[str], scores: dict[str, float], depth: int | None = None) -> dict[str, float]:
    if not left_out and (depth is None or len(scores) <= depth):
        return scores
    others = [(doc_id, score) for doc_id, score in scores.items() if doc_id not in left_out]
    return dict(others[:depth])


def evaluate_run(
    run: Run | str | Path | RunFile,
    dataset: Dataset,
    *,
    measures: str | Sequence[str] = DEFAULT_MEASURES,
    ignore_identical_ids: bool | None = None,
    output: str | Path | None = None,
    name: str = "run",
) -> Evaluation:
    """Measures a run, or a file of one, of any retrieval system.

    name: that of a run that is no file, in the results and in messages.
    ignore_identical_ids: leave out the document that has the query's own id; by default where `is_self_retrieval`.
    Raises InputError as `load_run` does, for queries or documents that the dataset does not have, for a run without any
    judged query, and for a score that is NaN.
    """
    names = parse(measures)
    if isinstance(run, str | Path | RunFile):
        file = run if isinstance(run, RunFile) else RunFile(Path(run))
        name, scores = str(file.path), load_run(file, split=dataset.split)
        fingerprints = {"run": fingerprint_of_file(file.path)}
    else:
        scores, fingerprints = run, {}
    _refuse_unknown(scores, dataset, name)
    without_self = is_self_retrieval(dataset) if ignore_identical_ids is None else ignore_identical_ids
    left_out = never_ranked(dataset, without_self)
    scores = {query_id: _without(left_out.get(query_id, ()), ranking) for query_id, ranking in scores.items()}
    protocol: Protocol = {"ignore_identical_ids": without_self}
    evaluation = _measured(dataset, scores, names, name, {"data": dataset.fingerprint, **fingerprints}, protocol)
    if output is not None:
        write(evaluation, Path(output))
    return evaluation


def _refuse_unknown(run: Run, dataset: Dataset, name: str) -> None:
    queries = absent(run, dataset.queries.ids)
    documents = absent(chain.from_iterable(run.values()), dataset.corpus.ids)
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
    protocol: Protocol,
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
