from __future__ import annotations

import torch
from torch import Tensor

from ...data.decisions import AT_LEAST, holds_decisions, run_of_decisions
from ...data.runs import load_run
from ...errors import InputError
from ...types import Run, Scores
from .. import MethodSpec
from .._numerics import lowest_positive

SPEC = MethodSpec(by_query=True)


class Judge:
    """Drops candidates that a judge scored like the positive (UniME-V2, arXiv 2510.13515), by scores from a file.

    path: a TREC run with the judge's scores, such as an MLLM's probability of yes, of candidates and positives; or the
        decisions that people saved on the page of `embedtune audit --html`: those judged relevant are dropped.
    margin: a candidate is dropped where score > p - margin, p being the lowest judged score among the query's
        positives; without a judged positive this rule drops nothing. null switches it off.
    at_least: a candidate is dropped where its score is at least this; absent, this rule is off.

    Candidates that are not in the file stay. Raises InputError where both rules are off, or where scores come without
    ids.
    """

    def __init__(self, *, path: str, margin: float | None = 0.01, at_least: float | None = None) -> None:
        if margin is None and at_least is None:
            raise InputError("filtering.judge: both rules are off; give margin or at_least")
        by_people = holds_decisions(path)
        self.run = run_of_decisions(path) if by_people else load_run(path)
        self.margin = margin
        self.at_least = AT_LEAST if by_people and at_least is None else at_least

    def __call__(self, scores: Scores) -> Tensor:
        judge_scores = judged(self.run, scores, "filtering.judge")
        dropped = torch.zeros_like(scores.candidate)
        if self.at_least is not None:
            dropped |= judge_scores >= self.at_least
        if self.margin is not None:
            dropped |= judge_scores > lowest_positive(judge_scores, scores.positive) - self.margin
        return scores.candidate & ~dropped


def judged(run: Run, scores: Scores, asker: str) -> Tensor:
    """(Q, D) the scores that a run has for these pairs, NaN where it has none. Raises InputError without ids."""
    shape = (len(scores.query_ids), len(scores.doc_ids))
    if shape != tuple(scores.candidate.shape):
        raise InputError(f"{asker}: needs the ids of queries and documents")
    judge_scores = torch.full(shape, torch.nan)
    columns = {doc_id: column for column, doc_id in enumerate(scores.doc_ids) if doc_id}
    for row, query_id in enumerate(scores.query_ids):
        for doc_id, score in run.get(query_id, {}).items():
            if doc_id in columns:
                judge_scores[row, columns[doc_id]] = score
    return judge_scores.to(scores.candidate.device)
