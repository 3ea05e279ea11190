"""What every maker of negatives must do, and what every weighting and loss does with what it made."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from contract_values import DOCUMENTS, QUERIES, kind_of, neutral_options, value_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from embedtune import methods
from embedtune.types import Scores


def makers(kind: str) -> list[str]:
    return [name for name in methods.names("synthesis") if kind_of(name, "synthesis") == kind]


def test_a_synthesis_says_what_it_makes() -> None:
    assert {kind_of(name, "synthesis") for name in methods.names("synthesis")} == {"vectors", "texts"}


def extended(name: str, scores: Scores, options: dict[str, Any] | None = None) -> tuple[Scores, Tensor]:
    """What a maker of vectors makes of the scores, after an earlier batch of other ids and with two columns dropped."""
    method = methods.bind("synthesis", name, options or {})
    keep = scores.candidate.clone()
    keep[:, 9] = False
    earlier = dataclasses.replace(
        scores,
        query_ids=tuple(f"earlier-{name}" for name in scores.query_ids),
        doc_ids=tuple(f"earlier-{name}" for name in scores.doc_ids),
    )
    method(earlier, keep, generator=torch.Generator().manual_seed(1))
    made: tuple[Scores, Tensor] = method(scores, keep, generator=torch.Generator().manual_seed(2))
    return made


def trained(scores: Scores) -> Scores:
    """The scores as a step has them: from embeddings that get gradients."""
    assert scores.queries is not None
    assert scores.documents is not None
    queries, documents = scores.queries.clone().requires_grad_(), scores.documents.clone().requires_grad_()
    mined = torch.rand(scores.student.shape, generator=torch.Generator().manual_seed(4))
    return dataclasses.replace(scores, student=queries @ documents.T, queries=queries, documents=documents, mined=mined)


@pytest.mark.parametrize("name", makers("vectors"))
def test_made_columns_are_constants_and_never_positive(name: str, scores: Scores) -> None:
    before = trained(scores)
    after, keep = extended(name, before)
    count = after.student.shape[1] - DOCUMENTS
    assert count > 0
    assert torch.equal(keep[:, :9], before.candidate[:, :9])
    assert not keep[:, 9].any()
    assert not (keep & ~after.candidate).any()
    assert keep[:, DOCUMENTS:].any(dim=1).all()
    assert not after.positive[:, DOCUMENTS:].any()
    for field in ("student", "positive", "candidate", "own", "teacher", "mined"):
        assert torch.equal(getattr(after, field)[:, :DOCUMENTS], getattr(before, field)), field
    assert after.own is not None
    assert not (after.own[:, DOCUMENTS:] & ~after.candidate[:, DOCUMENTS:]).any()
    assert after.teacher is not None
    assert after.teacher[:, DOCUMENTS:].isnan().all()
    assert after.mined is not None
    assert after.mined[:, DOCUMENTS:].isnan().all()
    assert after.doc_ids == before.doc_ids + ("",) * count
    assert after.made is not None
    assert after.made.tolist() == [False] * DOCUMENTS + [True] * count
    assert after.queries is before.queries
    assert after.queries is not None
    assert after.documents is not None
    torch.testing.assert_close(after.student, after.queries @ after.documents.T)
    assert after.documents.norm(dim=1).tolist() == pytest.approx([1.0] * (DOCUMENTS + count))
    made = after.student[:, DOCUMENTS:]
    of_queries, of_documents = torch.autograd.grad(made.sum(), (before.queries, before.documents), allow_unused=True)
    torch.testing.assert_close(of_queries, after.documents.detach()[DOCUMENTS:].sum(dim=0).expand(QUERIES, -1))
    assert of_documents is None or not of_documents.any()


@pytest.mark.parametrize("name", makers("vectors"))
def test_made_columns_depend_on_the_seed_alone(name: str, scores: Scores) -> None:
    (first, _), (second, _) = extended(name, scores), extended(name, scores)
    assert torch.equal(first.student, second.student)
    plain = dataclasses.replace(scores, own=None, teacher=None)
    third, _ = extended(name, plain)
    assert torch.equal(first.student, third.student)
    assert third.teacher is None
    assert third.mined is None


@pytest.mark.parametrize("name", makers("vectors"))
def test_a_maker_with_neutral_options_makes_nothing(name: str, scores: Scores) -> None:
    neutral = neutral_options("synthesis", name)
    assert neutral is not None, f"embedtune/methods/synthesis/{name}.py must state its neutral options in SPEC"
    after, _ = extended(name, scores, neutral)
    assert after == scores


@pytest.mark.parametrize("name", makers("vectors"))
@pytest.mark.parametrize("weighting", methods.names("weighting"))
def test_made_columns_are_weighed(name: str, weighting: str, scores: Scores, bound: Callable[..., Any]) -> None:
    after, keep = extended(name, trained(scores))
    log_weights = bound("weighting", weighting)(after, keep)
    assert log_weights.isfinite().all()
    assert (log_weights[~keep] == 0).all()


@pytest.mark.parametrize("name", makers("vectors"))
@pytest.mark.parametrize("loss", methods.names("loss"))
def test_losses_take_made_columns(name: str, loss: str, scores: Scores, bound: Callable[..., Any]) -> None:
    before = trained(scores)
    after, keep = extended(name, before)
    value = value_of(bound("loss", loss), after, keep)
    (gradient,) = torch.autograd.grad(value, before.queries)
    assert gradient.isfinite().all()


TEXTS = [
    "The big dog is not on the left side of the small cat, 12 km away",
    "What pulls? (A) a magnet (B) a cloud. A magnet pulls, for 5 minutes.",
]
WORDS = "A the dog dogs cat red BLUE is not no can't has sits 12 1.5 km minutes East left (A) (B) . , é"
LANGUAGE = st.lists(st.sampled_from(WORDS.split()), max_size=12).map(" ".join)


@pytest.mark.parametrize("name", makers("texts"))
def test_a_maker_of_texts_applies_somewhere_and_not_to_nothing(name: str) -> None:
    made = [methods.bind("synthesis", name, {})(text, generator=torch.Generator().manual_seed(0)) for text in TEXTS]
    assert any(made)
    for text in ("", " \n", "...", "?"):
        assert methods.bind("synthesis", name, {})(text, generator=torch.Generator()) is None


@pytest.mark.parametrize("name", makers("texts"))
@given(text=LANGUAGE | st.text(max_size=40), seed=st.integers(0, 2**32))
@settings(max_examples=60)
def test_a_made_text_differs_and_depends_on_the_seed_alone(name: str, text: str, seed: int) -> None:
    method = methods.bind("synthesis", name, {})
    made = method(text, generator=torch.Generator().manual_seed(seed))
    assert made == method(text, generator=torch.Generator().manual_seed(seed))
    if made is not None:
        assert made.strip()
        assert made.casefold().split() != text.casefold().split()
        if name == "word_swap":
            assert sorted(made.casefold()) == sorted(text.casefold())
