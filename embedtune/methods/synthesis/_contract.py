"""The contract of makers of negatives, as functions that try one method."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from ...types import Scores
from .._returns import tensor_problem
from .._trial import (
    DOCUMENTS,
    Contract,
    Trial,
    require,
    trial_scores,
)

TEXTS = (
    "The big dog is not on the left side of the small cat, 12 km away",
    "What pulls? (A) a magnet (B) a cloud. A magnet pulls, for 5 minutes.",
)


def made_of(trial: Trial, scores: Scores, **options: Any) -> tuple[Scores, Tensor]:
    """What a maker of vectors makes of the scores, after an earlier batch of other ids and with two columns dropped."""
    method, keep = trial.make(**options), scores.candidate.clone()
    keep[:, 9] = False
    earlier = dataclasses.replace(
        scores,
        query_ids=tuple(f"earlier-{name}" for name in scores.query_ids),
        doc_ids=tuple(f"earlier-{name}" for name in scores.doc_ids),
    )
    method(earlier, keep, generator=torch.Generator().manual_seed(1))
    made: tuple[Scores, Tensor] = method(scores, keep, generator=torch.Generator().manual_seed(2))
    return made


def trained_scores() -> Scores:
    """The trial's scores as a training step has them: from embeddings that receive gradients."""
    scores = trial_scores()
    assert scores.queries is not None
    assert scores.documents is not None
    queries, documents = scores.queries.clone().requires_grad_(), scores.documents.clone().requires_grad_()
    mined = torch.rand(scores.student.shape, generator=torch.Generator().manual_seed(4))
    return dataclasses.replace(scores, student=queries @ documents.T, queries=queries, documents=documents, mined=mined)


def appends_constant_negatives(trial: Trial) -> None:
    """A maker of vectors appends columns that are marked as made, normalised, constant and never positive."""
    before = trained_scores()
    after, keep = made_of(trial, before)
    count = after.student.shape[1] - DOCUMENTS
    require(count > 0, "appends no column")
    require(
        torch.equal(keep[:, :9], before.candidate[:, :9]) and not keep[:, 9].any(), "changes the other columns' keep"
    )
    require(not bool((keep & ~after.candidate).any()), "keeps a column that is no candidate")
    require(not after.positive[:, DOCUMENTS:].any(), "makes a positive")
    for field in ("student", "positive", "candidate", "own", "teacher", "mined"):
        same = torch.equal(getattr(after, field)[:, :DOCUMENTS], getattr(before, field))
        require(same, f"changes {field} of the other columns")
    for field in ("teacher", "mined"):
        require(getattr(after, field)[:, DOCUMENTS:].isnan().all(), f"gives a made column a score in {field}")
    made = [False] * DOCUMENTS + [True] * count
    require(after.made is not None and after.made.tolist() == made, "does not mark its columns in `made`")
    require(after.doc_ids == before.doc_ids + ("",) * count, "names its columns: doc_ids must be empty there")
    assert before.queries is not None
    assert before.documents is not None
    assert after.queries is not None
    assert after.documents is not None
    expected = after.queries @ after.documents.T
    require(torch.allclose(after.student, expected, atol=1e-5), "gives scores other than queries times documents")
    norms = after.documents.norm(dim=1)
    require(torch.allclose(norms, torch.ones_like(norms), atol=1e-5), "makes columns that are not normalised")
    total = after.student[:, DOCUMENTS:].sum()
    _, gradient = torch.autograd.grad(total, (before.queries, before.documents), allow_unused=True)
    require(gradient is None or not gradient.any(), "lets a gradient through to the documents")


def makes_the_same_by_seed(trial: Trial) -> None:
    """A maker of vectors depends on the seed, and neither on the teacher nor on whose negatives columns are."""
    scores = trial_scores()
    (first, _), (second, _) = made_of(trial, scores), made_of(trial, scores)
    require(torch.equal(first.student, second.student), "makes other columns by the same seed")
    third, _ = made_of(trial, dataclasses.replace(scores, own=None, teacher=None))
    require(torch.equal(first.student, third.student), "makes other columns without a teacher")
    require(third.teacher is None and third.mined is None, "makes up a teacher's scores")


def makes_nothing_when_neutral(trial: Trial) -> None:
    """A maker of vectors changes nothing with the neutral options of its SPEC."""
    scores = trial_scores()
    after, _ = made_of(trial, scores, **dict(trial.spec.neutral or {}))
    require(after == scores, "changes scores with its neutral options")


def makes_other_texts(trial: Trial) -> None:
    """A maker of texts returns another text or None, None for a text without words, the same by the same seed."""
    for text in (*TEXTS, "", " \n", "...", "?"):
        made = trial.make()(text, generator=torch.Generator().manual_seed(0))
        require(made == trial.make()(text, generator=torch.Generator().manual_seed(0)), "differs by the same seed")
        if made is not None:
            require(made.strip() and made.casefold().split() != text.casefold().split(), f"returns {text!r} unchanged")
            require(text in TEXTS, f"makes {made!r} of {text!r}, which has no word")


def problem_of(returned: Any, first: Any, keep: Tensor | None = None) -> str:
    """What is wrong with what a call with these arguments returned; empty where nothing is."""
    if keep is None:
        return (
            "" if returned is None or isinstance(returned, str) else f"returned {type(returned).__name__}, not a text"
        )
    if not isinstance(returned, tuple) or len(returned) != 2 or not isinstance(returned[0], Scores):
        return f"returned {type(returned).__name__}, expected Scores and keep"
    scores, kept = returned
    problem = tensor_problem(kept, scores.student.shape, "bool")
    if not problem and (len(scores.student) != len(keep) or scores.student.shape[1] < keep.shape[1]):
        return f"turned scores of the shape {tuple(keep.shape)} into {tuple(scores.student.shape)}"
    if not problem and bool((kept & ~scores.candidate).any()):
        return "keeps a column that is no candidate, such as a positive"
    return problem


def contracts(trial: Trial) -> list[Contract]:
    """The contracts of a maker of texts or of vectors."""
    if trial.spec.kind == "texts":
        return [makes_other_texts]
    neutral = [makes_nothing_when_neutral] if trial.spec.neutral is not None else []
    return [appends_constant_negatives, makes_the_same_by_seed, *neutral]
