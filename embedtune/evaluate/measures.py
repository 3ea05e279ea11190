"""The values of measures, by trec_eval's rules.

Linear gain (a grade counts as itself, not as 2^grade - 1), equal scores ordered by document id from high to low, scores
compared as float32, and every query of the qrels counted: one without results is 0. Nothing is rounded.

Two measures are not trec_eval's, because equal scores must not help there. hit@k is the chance that the first k hold a
relevant document when equal scores are ordered at random: a model that scores everything alike gets k / number of
documents. accuracy is 1 if every relevant document scores strictly above all others of the run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import chain, islice
from operator import itemgetter

import numpy as np
import pytrec_eval

from ..errors import InputError
from ..recipe.measures import OF_PROTOCOLS, names_in, parse, split
from ..types import Qrels, Run

DEFAULT_MEASURES = ("nDCG@10", "R@10", "R@100", "RR@10", "AP@100")
MAIN_SCORE = "main_score"  # of an mteb task that is no retrieval: read and compared, never computed here
# The measures that trec_eval computes, as it names them with and without a cut-off.
_TREC_EVAL = {
    "nDCG": ("ndcg", "ndcg_cut_"),
    "AP": ("map", "map_cut_"),
    "RR": ("recip_rank", ""),
    "R": ("", "recall_"),
    "P": ("", "P_"),
    "Success": ("", "success_"),
}
_TOGETHER = 5_000  # queries whose values of all measures are held at once
_MTEB = {"nDCG": "ndcg", "AP": "map", "RR": "mrr", "R": "recall", "P": "precision", "Success": "hit_rate"}


def parse_compared(measures: str | Sequence[str]) -> list[str]:
    """As `parse`, of values that others computed: mteb's `main_score` and a protocol's own measures are known too."""
    known = (MAIN_SCORE, *OF_PROTOCOLS)
    names = [[name] if name in known else parse([name]) for name in names_in(measures)]
    return list(dict.fromkeys(name for parsed in names for name in parsed))


def deepest(names: Sequence[str]) -> int:
    """The largest cut-off among measures, 0 if none has one."""
    return max((split(name)[1] or 0 for name in names), default=0)


def mteb_name(measure: str) -> str:
    """`nDCG@10` as mteb and the hub write it: `ndcg_at_10`."""
    kind, cut = split(measure)
    return _MTEB.get(kind, kind) + (f"_at_{cut}" if cut else "")


def from_mteb(name: str) -> str | None:
    """`ndcg_at_10` as `nDCG@10`; None for a name that is no measure here, such as mteb's own variants."""
    form = re.fullmatch(r"(\w+)_at_([1-9][0-9]*)", name)
    kind = next((kind for kind, mteb_kind in _MTEB.items() if form and mteb_kind == form[1]), None)
    return f"{kind}@{form[2]}" if form and kind else None


def per_query(measures: str | Sequence[str], qrels: Qrels, run: Run) -> dict[str, dict[str, float]]:
    """measure -> query_id -> value, for every query of `qrels`, in its order; queries without results are 0.

    Queries of the run that `qrels` does not judge are left out. Raises InputError for an unknown measure, for a score
    that is NaN, and where nothing is judged.
    """
    names = parse(measures)
    if not qrels:
        raise InputError("no judged queries: there is nothing to measure")
    complete = {query_id: run.get(query_id, {}) for query_id in qrels}
    _refuse_nan(complete)
    values: dict[str, dict[str, float]] = {name: {} for name in names}
    trec_names = set(filter(None, map(_trec_name, names)))
    judgements, rankings = iter(qrels.items()), iter(complete.items())
    while judged := dict(islice(judgements, _TOGETHER)):
        runs = dict(islice(rankings, _TOGETHER))
        by_query = pytrec_eval.RelevanceEvaluator(judged, trec_names).evaluate(runs) if trec_names else {}
        for name in names:
            values[name].update(zip(judged, _values(name, judged, runs, by_query), strict=True))
    return values


def _trec_name(name: str) -> str:
    """A measure as trec_eval names it; empty where it does not compute it."""
    kind, cut = split(name)
    whole, until = _TREC_EVAL.get(kind, ("", ""))
    return f"{until}{cut}" if cut and until else whole


def _values(name: str, qrels: Qrels, run: Run, by_query: Mapping[str, Mapping[str, float]]) -> list[float]:
    """The value of each query of `qrels`. by_query: query_id -> trec_eval's measure -> value."""
    kind, cut = split(name)
    trec_name = _trec_name(name)
    if not trec_name:
        return [_untied(kind, cut, judged, run[query_id]) for query_id, judged in qrels.items()]
    values = list(map(itemgetter(trec_name), map(by_query.__getitem__, qrels)))
    if kind == "RR" and cut is not None:  # trec_eval has the RR of the whole ranking alone
        values = [value if value >= 1 / cut else 0.0 for value in values]
    return values


def _untied(kind: str, cut: int | None, judged: dict[str, int], run: dict[str, float]) -> float:
    scores = {doc_id: float(np.float32(score)) for doc_id, score in run.items()}
    relevant = [score for doc_id, score in scores.items() if judged.get(doc_id, 0) > 0]
    others = [score for doc_id, score in scores.items() if judged.get(doc_id, 0) <= 0]
    if not relevant:
        return 0.0
    if kind == "accuracy" or cut is None:
        complete = len(relevant) == sum(grade > 0 for grade in judged.values())
        return float(complete and min(relevant) > max(others, default=-math.inf))
    best = max(relevant)
    ranks = cut - sum(score > best for score in others)  # of the first k, for those that score as the best relevant one
    if ranks <= 0:
        return 0.0
    draws = others.count(best)
    orders = math.comb(draws + relevant.count(best), ranks)
    return 1.0 if ranks > draws else (orders - math.comb(draws, ranks)) / orders


def _refuse_nan(run: Run) -> None:
    if not any(map(math.isnan, chain.from_iterable(scores.values() for scores in run.values()))):
        return
    for query_id, scores in run.items():
        if any(map(math.isnan, scores.values())):
            doc_id = next(doc_id for doc_id, score in scores.items() if math.isnan(score))
            raise InputError(f"query {query_id!r}, document {doc_id!r}: the score is NaN; it has no rank")


def mean(values: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """measure -> mean over all queries, from `per_query`'s values."""
    return {name: math.fsum(by_query.values()) / len(by_query) for name, by_query in values.items()}


def ranked(scores: Mapping[str, float]) -> list[str]:
    """The document ids of one query from first to last, in trec_eval's order."""
    return sorted(scores, key=lambda doc_id: (np.float32(scores[doc_id]), doc_id), reverse=True)
