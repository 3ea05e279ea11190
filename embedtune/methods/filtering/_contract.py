"""The contract of filters, as functions that try one method."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from ...types import Scores
from .._returns import tensor_problem
from .._trial import (
    COLUMNS,
    DOCUMENTS,
    ROWS,
    Contract,
    Trial,
    require,
    selected,
    shuffled,
    trial_scores,
)


def takes_candidates_away(trial: Trial) -> None:
    """A filter keeps candidates only, and the same ones every time."""
    scores = trial_scores()
    keep = trial.make()(scores)
    require(not bool((keep & ~scores.candidate).any()), "keeps a column that is no candidate")
    require(torch.equal(trial.make()(scores), keep), "gives another verdict on the same scores")


def decides_in_any_order(trial: Trial) -> None:
    """A filter gives the same verdicts in any order of queries and documents."""
    scores = trial_scores()
    keep, again = trial.make()(scores), trial.make()(shuffled(scores))
    require(torch.equal(again, keep[ROWS][:, COLUMNS]), "gives other verdicts where rows and columns are reordered")


def decides_about_one_query(trial: Trial) -> None:
    """A filter works on one query's mined candidates, and where there is no candidate."""
    alone = selected(trial_scores(), torch.tensor([0]), torch.arange(DOCUMENTS))
    keep = trial.make()(alone)
    require(keep.shape == (1, DOCUMENTS), f"returns the shape {tuple(keep.shape)} for one query")
    require(not bool((keep & ~alone.candidate).any()), "keeps a column that is no candidate")
    nothing = dataclasses.replace(alone, candidate=torch.zeros_like(alone.candidate))
    require(not bool(trial.make()(nothing).any()), "keeps a column where there is no candidate")


def leaves_unscored_candidates(trial: Trial) -> None:
    """A filter that compares scores keeps a candidate without a teacher's score (NaN)."""
    scores = trial_scores()
    unscored = dataclasses.replace(scores, teacher=torch.full_like(scores.student, torch.nan))
    require(torch.equal(trial.make()(unscored), scores.candidate), "drops a candidate whose score is NaN")


def problem_of(keep: Any, scores: Scores) -> str:
    """What is wrong with what a call with these arguments returned; empty where nothing is."""
    problem = tensor_problem(keep, scores.candidate.shape, "bool")
    if not problem and bool((keep & ~scores.candidate).any()):
        return "keeps a column that is no candidate, such as a positive"
    return problem


def contracts(trial: Trial) -> list[Contract]:
    """The contracts of a filter."""
    compares = trial.spec.reads_teacher or "teacher" in trial.spec.needs
    return [
        takes_candidates_away,
        decides_about_one_query,
        *([decides_in_any_order] if not trial.spec.ordered else []),
        *([leaves_unscored_candidates] if compares else []),
    ]
