"""BM25 on an evaluation's datasets: the baseline without any model, which every embedding model should beat."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from ..data.relevance import is_self_retrieval, never_ranked
from ..data.trec import read_run, write_run
from ..files import cache_folder, fingerprint_of
from ..methods.mining.bm25 import Bm25
from ..models.encoder import Progress
from ..recipe.measures import parse
from ..types import Dataset, Run
from .measures import deepest
from .results import Evaluation, write
from .retrieval import Retrieval, evaluate_run

INSTALL = "pip install 'embedtune[bm25]'"


def is_installed() -> bool:
    return find_spec("bm25s") is not None


def evaluate_bm25(
    dataset: Dataset, *, measures: list[str], output: Path | None = None, on_progress: Progress | None = None
) -> Evaluation:
    """Ranks the corpus for each judged query by BM25 (k1 0.9, b 0.4, English stopwords, no stemming), and measures it.

    The ranking is kept in the cache. output: also write the folder `output/<dataset's label>/`. Raises InputError where
    bm25s is not installed, and for a corpus without any text.
    """
    depth = max(Retrieval().depth, deepest(parse(measures)))
    left_out = never_ranked(dataset, is_self_retrieval(dataset))
    run = _ranked(dataset, depth + max(map(len, left_out.values()), default=0), on_progress)
    evaluation = evaluate_run(run, dataset, measures=measures)
    evaluation = replace(evaluation, model="BM25", protocol={"depth": depth, **evaluation.protocol})
    if output is not None:
        write(evaluation, output)
    return evaluation


def _ranked(dataset: Dataset, depth: int, on_progress: Progress | None) -> Run:
    bm25 = Bm25()
    settings = [f"{bm25.k1} {bm25.b} {bm25.stopwords}", version("bm25s"), str(depth)]
    sets = [dataset.corpus.fingerprint, dataset.queries.fingerprint, *dataset.qrels]
    kept = cache_folder() / "bm25" / f"{fingerprint_of(*settings, *sets)}.trec"
    if not kept.exists():
        write_run(kept, bm25.search(dataset, list(dataset.qrels), depth, on_progress=on_progress), "BM25")
    return read_run(kept)
