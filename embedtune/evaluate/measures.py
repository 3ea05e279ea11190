"""Measures by name, computed by trec_eval's rules.

Linear gain (a grade counts as itself, not as 2^grade - 1), equal scores ordered by document id from high to low,
scores compared as float32, and every query of the qrels counted: one without results is 0. Nothing is rounded.

Two measures are not trec_eval's, because equal scores must not help there. hit@k is the chance that the first k hold a
relevant document when equal scores are ordered at random: a model that scores everything alike gets k / pool. accuracy
is 1 where every relevant document scores above every other one of the run, 0 where one only draws level.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import ir_measures
import numpy as np

from ..errors import InputError, unknown
from ..types import Qrels, Run

DEFAULT_MEASURES = ("nDCG@10", "R@10", "R@100", "RR@10", "AP@100")
_MEASURES = {
    "nDCG": ir_measures.nDCG,
    "AP": ir_measures.AP,
    "RR": ir_measures.RR,
    "R": ir_measures.R,
    "P": ir_measures.P,
    "Success": ir_measures.Success,
}
MAIN_SCORE = "main_score"  # of an mteb task that is no retrieval: read and compared, never computed here
_MTEB = {"nDCG": "ndcg", "AP": "map", "RR": "mrr", "R": "recall", "P": "precision", "Success": "hit_rate"}
_UNTIED = {"hit", "accuracy"}
_KINDS = (*_MEASURES, *_UNTIED)
_NEEDS_CUT = {"R", "P", "Success", "hit"}
# What protocols report per question that no run says by itself: known, so that results of them can be compared.
OF_PROTOCOLS = ("text", "image", "group")
# What the same things are called elsewhere: only ever used to say which name is meant.
_ELSEWHERE = {"ndcg": "nDCG", "map": "AP", "mrr": "RR", "recall": "R", "precision": "P", "hit": "hit"}


def parse(measures: str | Sequence[str]) -> list[str]:
    """The measures' names, checked and each once: `"nDCG@10 R@100"` or a sequence of names.

    Raises InputError for a name that is not known, with the nearest one, and where there is none at all.
    """
    names = re.split(r"[\s,]+", measures.strip()) if isinstance(measures, str) else list(measures)
    if not any(names):
        raise InputError("no measures given; name some, such as nDCG@10 R@100")
    for name in names:
        _split(name)
    return list(dict.fromkeys(names))


def parse_compared(measures: str | Sequence[str]) -> list[str]:
    """As `parse`, of measures that others computed: mteb's `main_score` is one as well."""
    names = re.split(r"[\s,]+", measures.strip()) if isinstance(measures, str) else list(measures)
    return [name for name in dict.fromkeys(names) if name == MAIN_SCORE or parse([name])] or parse(measures)


def deepest(names: Sequence[str]) -> int:
    """The largest cut-off among measures, 0 where there is none."""
    return max((_split(name)[1] or 0 for name in names), default=0)


def _split(name: str) -> tuple[str, int | None]:
    """`nDCG@10` as ("nDCG", 10), `AP` as ("AP", None)."""
    kind, at, cut = name.partition("@")
    if name in OF_PROTOCOLS:
        return name, None
    if kind not in _KINDS or (at and not re.fullmatch("[1-9][0-9]*", cut)) or (at and kind == "accuracy"):
        raise InputError(_unknown(name))
    if kind in _NEEDS_CUT and not at:
        raise InputError(f"measure {name!r} needs a cut-off, as in {kind}@10")
    return kind, int(cut) if at else None


def mteb_name(measure: str) -> str:
    """`nDCG@10` as mteb and the hub write it: `ndcg_at_10`."""
    kind, cut = _split(measure)
    return _MTEB[kind] + (f"_at_{cut}" if cut else "")


def from_mteb(name: str) -> str | None:
    """`ndcg_at_10` as `nDCG@10`; None for what is no measure here, such as mteb's own variants."""
    form = re.fullmatch(r"(\w+)_at_([1-9][0-9]*)", name)
    kind = next((kind for kind, theirs in _MTEB.items() if form and theirs == form[1]), None)
    return f"{kind}@{form[2]}" if form and kind else None


def _unknown(name: str) -> str:
    form = re.fullmatch("([A-Za-z]+)[^A-Za-z0-9]*(?:at)?[^A-Za-z0-9]*([1-9][0-9]*)?", name)
    cut = f"@{form[2]}" if form and form[2] else "@10"
    if form and (known := _ELSEWHERE.get(form[1].lower().removesuffix("s"))):
        return f"unknown measure {name!r}: did you mean {known + cut!r}?"
    return unknown("measure", name, [*(kind + cut for kind in (*_MEASURES, "hit")), "accuracy"])


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
    return {name: _values(name, qrels, complete) for name in names}


def _values(name: str, qrels: Qrels, run: Run) -> dict[str, float]:
    kind, cut = _split(name)
    if kind in OF_PROTOCOLS:
        raise InputError(f"measure {name!r} is reported by the protocol winoground; a run does not say it")
    if kind in _UNTIED:
        return {query_id: _untied(kind, cut, qrels[query_id], run[query_id]) for query_id in qrels}
    # ir_measures sends RR@k to other tools, which order ties their own way: the whole ranking's RR is cut here.
    measure = _MEASURES[kind] if cut is None or kind == "RR" else _MEASURES[kind] @ cut
    found = {value.query_id: value.value for value in ir_measures.pytrec_eval.iter_calc([measure], qrels, run)}
    if kind == "RR" and cut is not None:
        found = {query_id: value if value >= 1 / cut else 0.0 for query_id, value in found.items()}
    return {query_id: float(found[query_id]) for query_id in qrels}


def _untied(kind: str, cut: int | None, judged: dict[str, int], found: dict[str, float]) -> float:
    scores = {doc_id: float(np.float32(score)) for doc_id, score in found.items()}
    relevant = [score for doc_id, score in scores.items() if judged.get(doc_id, 0) > 0]
    others = [score for doc_id, score in scores.items() if judged.get(doc_id, 0) <= 0]
    if not relevant:
        return 0.0
    if kind == "accuracy" or cut is None:
        found_all = len(relevant) == sum(grade > 0 for grade in judged.values())
        return float(found_all and min(relevant) > max(others, default=-math.inf))
    best = max(relevant)
    room = cut - sum(score > best for score in others)  # places left for those that score like the best relevant one
    if room <= 0:
        return 0.0
    draws = others.count(best)
    orders = math.comb(draws + relevant.count(best), room)
    return 1.0 if room > draws else (orders - math.comb(draws, room)) / orders


def _refuse_nan(run: Run) -> None:
    for query_id, scores in run.items():
        for doc_id, score in scores.items():
            if math.isnan(score):
                raise InputError(f"query {query_id!r}, document {doc_id!r}: the score is NaN; it has no rank")


def mean(values: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """measure -> mean over all queries, from `per_query`'s values."""
    return {name: math.fsum(by_query.values()) / len(by_query) for name, by_query in values.items()}


def ranked(scores: Mapping[str, float]) -> list[str]:
    """The document ids of one query from first to last, in trec_eval's order."""
    return sorted(scores, key=lambda doc_id: (np.float32(scores[doc_id]), doc_id), reverse=True)
