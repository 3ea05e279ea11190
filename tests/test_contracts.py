"""What every method of a family must do. A new file of a family is tested here by being there."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from embedtune import methods
from embedtune.batching import BatchContext
from embedtune.errors import InputError
from embedtune.train.batch import Batch
from embedtune.train.objective import Objective, over_prefixes, over_slices
from embedtune.types import Scores, Turn

QUERIES, DOCUMENTS = 4, 11


@pytest.fixture
def scores() -> Scores:
    """4 queries and 11 documents: query 0 has two positives, columns 5 to 8 were mined for queries 0 to 3,
    9 and 10 are in-batch negatives, and a column here and there is no candidate. The teacher is sure of positives."""
    generator = torch.Generator().manual_seed(3)
    queries = torch.nn.functional.normalize(torch.randn(QUERIES, 6, generator=generator), dim=1)
    documents = torch.nn.functional.normalize(torch.randn(DOCUMENTS, 6, generator=generator), dim=1)
    positive = torch.zeros(QUERIES, DOCUMENTS, dtype=torch.bool)
    positive[[0, 1, 2, 3, 0], [0, 1, 2, 3, 4]] = True
    own = torch.zeros_like(positive)
    own[range(4), range(5, 9)] = True
    candidate = ~positive
    candidate[:, 5:9] &= own[:, 5:9] | (torch.rand(4, 4, generator=generator) < 0.5)
    teacher = torch.where(positive, 3.0, 0.6 * torch.rand(QUERIES, DOCUMENTS, generator=generator))
    return Scores(
        student=(queries @ documents.T).requires_grad_(),
        positive=positive,
        candidate=candidate,
        own=own,
        teacher=teacher,
        queries=queries,
        documents=documents,
        query_ids=tuple(f"q{row}" for row in range(QUERIES)),
        doc_ids=tuple(f"d{column}" for column in range(DOCUMENTS)),
        positive_ids=tuple(frozenset(f"d{column}" for column in row.nonzero().flatten()) for row in positive),
    )


@pytest.fixture
def bound(tmp_path: Path) -> Callable[[str, str], Any]:
    """Methods with their defaults; options without one (files) and sizes that suit the small fixture are here."""
    run = tmp_path / "judged.run"
    run.write_text("".join(f"q0 d{column} {score}\n" for column, score in enumerate([0.9, 0.1, 0.95, 0.2, 0.8])))
    options: dict[str, dict[str, Any]] = {
        "cluster": {"clusters": 3},
        "judge": {"path": str(run)},
    }
    return lambda family, name: methods.bind(family, name, options.get(name, {}))


def permuted(scores: Scores, rows: Tensor, columns: Tensor) -> Scores:
    def moved(value: Tensor | None) -> Tensor | None:
        return None if value is None else value[rows][:, columns]

    assert scores.queries is not None
    assert scores.documents is not None
    return Scores(
        student=scores.student[rows][:, columns],
        positive=scores.positive[rows][:, columns],
        candidate=scores.candidate[rows][:, columns],
        own=moved(scores.own),
        teacher=moved(scores.teacher),
        queries=scores.queries[rows],
        documents=scores.documents[columns],
        query_ids=tuple(scores.query_ids[row] for row in rows.tolist()),
        doc_ids=tuple(scores.doc_ids[column] for column in columns.tolist()),
        positive_ids=tuple(scores.positive_ids[row] for row in rows.tolist()),
    )


ROWS, COLUMNS = torch.tensor([2, 0, 3, 1]), torch.tensor([7, 0, 10, 3, 1, 9, 2, 8, 4, 6, 5])


def neutral_options(family: str, name: str) -> dict[str, Any] | None:
    """What a module says in its constant NEUTRAL: the options with which it changes nothing."""
    return getattr(importlib.import_module(f"embedtune.{family}.{name}"), "NEUTRAL", None)


@pytest.mark.parametrize("family", ["filtering", "sampling", "batching", "synthesis", "weighting", "loss"])
def test_no_family_is_empty(family: str) -> None:
    assert methods.names(family)


@pytest.mark.parametrize("name", methods.names("filtering"))
def test_a_filter_only_takes_candidates_away(name: str, scores: Scores, bound: Callable[..., Any]) -> None:
    keep = bound("filtering", name)(scores)
    assert keep.dtype == torch.bool
    assert keep.shape == scores.candidate.shape
    assert not (keep & ~scores.candidate).any()
    assert not (keep & scores.positive).any()
    assert torch.equal(bound("filtering", name)(scores), keep)
    moved = bound("filtering", name)(permuted(scores, ROWS, COLUMNS))
    if name != "cluster":  # which chooses its centroids in the documents' order
        assert torch.equal(moved, keep[ROWS][:, COLUMNS])


@pytest.mark.parametrize("name", methods.names("filtering"))
def test_a_filter_works_on_one_querys_mined_candidates(name: str, scores: Scores, bound: Callable[..., Any]) -> None:
    row = torch.tensor([0])
    alone = permuted(scores, row, torch.arange(DOCUMENTS))
    keep = bound("filtering", name)(alone)
    assert keep.shape == (1, DOCUMENTS)
    assert not (keep & ~alone.candidate).any()
    nothing = dataclasses.replace(alone, candidate=torch.zeros_like(alone.candidate))
    assert not bound("filtering", name)(nothing).any()


@pytest.mark.parametrize("name", sorted(set(methods.names("filtering")) - {"cluster", "judge"}))  # without teacher
def test_a_candidate_without_a_teachers_score_is_left_alone(
    name: str, scores: Scores, bound: Callable[..., Any]
) -> None:
    unscored = dataclasses.replace(scores, teacher=torch.full_like(scores.student, torch.nan))
    assert torch.equal(bound("filtering", name)(unscored), scores.candidate)


@pytest.mark.parametrize("name", methods.names("sampling"))
@pytest.mark.parametrize("count", [0, 1, 3, 12, 40])
def test_a_sampler_draws_without_replacement(name: str, count: int, bound: Callable[..., Any]) -> None:
    candidates = torch.linspace(0.9, 0.1, 12)
    sampler = bound("sampling", name)

    def drawn(scores: Tensor, seed: int = 0) -> Tensor:
        indices: Tensor = sampler(scores, 0.8, count=count, generator=torch.Generator().manual_seed(seed))
        return indices

    indices = drawn(candidates)
    assert indices.dtype == torch.int64
    assert len(indices) == len(set(indices.tolist())) == min(count, 12)
    assert set(indices.tolist()) <= set(range(12))
    assert torch.equal(drawn(candidates), indices)
    assert drawn(candidates[:0]).tolist() == []


TURNS = [Turn(query_id=f"q{n // 2}", positives=(f"d{n}",)) for n in range(23)]  # two turns a query, one has one


def context_of(turns: list[Turn]) -> BatchContext:
    generator = torch.Generator().manual_seed(5)
    queries = torch.nn.functional.normalize(torch.randn(len(turns), 4, generator=generator), dim=1)
    documents = torch.nn.functional.normalize(queries + torch.randn(len(turns), 4, generator=generator), dim=1)
    return BatchContext(
        query_texts={turn.query_id: f"text of {turn.query_id}" for turn in turns},
        lengths=[7 * number % 13 for number in range(len(turns))],
        query_embeddings=queries,
        document_embeddings=documents,
        dataset_of={turn.query_id: "ab"[int(turn.query_id[1:]) % 3 == 0] for turn in turns},
        progress=0.5,
    )


@pytest.mark.parametrize("name", sorted(set(methods.names("batching")) - {"replay"}))  # which obeys its file
@pytest.mark.parametrize("turns", [TURNS, TURNS[:9], TURNS[:1], []])
def test_a_batching_uses_every_turn_once(name: str, turns: list[Turn]) -> None:
    def batches(seed: int) -> list[list[Turn]]:
        generator = torch.Generator().manual_seed(seed)
        made: list[list[Turn]] = methods.bind("batching", name, {})(turns, 4, context_of(turns), generator=generator)
        return made

    found = batches(0)
    used = [turn for batch in found for turn in batch]
    assert sorted(used, key=TURNS.index) == turns
    assert all(len(batch) > 1 for batch in found) or len(turns) == 1
    assert all(len(batch) <= 5 for batch in found)  # one more than asked, for a single left-over
    assert batches(0) == found
    if len(turns) > 1:
        assert any(batches(seed) != found for seed in range(1, 5))


@pytest.mark.parametrize("name", methods.names("weighting"))
def test_a_weighting_is_finite_and_touches_negatives_only(name: str, scores: Scores, bound: Callable[..., Any]) -> None:
    keep = scores.candidate.clone()
    keep[1] = False  # a query without negatives
    keep[2, 9] = False
    log_weights = bound("weighting", name)(scores, keep)
    assert log_weights.dtype == torch.float32
    assert log_weights.shape == keep.shape
    assert log_weights.isfinite().all()
    assert (log_weights[~keep] == 0).all()
    moved = bound("weighting", name)(permuted(scores, ROWS, COLUMNS), keep[ROWS][:, COLUMNS])
    torch.testing.assert_close(moved, log_weights[ROWS][:, COLUMNS])


@pytest.mark.parametrize("name", methods.names("weighting"))
def test_a_weighting_weighs_nothing_with_neutral_options(name: str, scores: Scores) -> None:
    neutral = neutral_options("weighting", name)
    assert neutral is not None, f"embedtune/weighting/{name}.py must say its neutral options in NEUTRAL"
    log_weights = methods.bind("weighting", name, neutral)(scores, scores.candidate)
    torch.testing.assert_close(log_weights, torch.zeros_like(log_weights), atol=1e-6, rtol=0)


def value_of(
    loss: Callable[..., tuple[Tensor, dict[str, Any]]], scores: Scores, keep: Tensor, log_weights: Tensor | None = None
) -> Tensor:
    value, parts = loss(scores, keep, torch.zeros_like(scores.student) if log_weights is None else log_weights)
    assert value.shape == ()
    assert value.isfinite()
    assert all(isinstance(part, int | float) or part.numel() == 1 for part in parts.values())
    assert not any(isinstance(part, Tensor) and part.requires_grad for part in parts.values())
    return value


def kind_of(name: str, family: str = "loss") -> str:
    return str(importlib.import_module(f"embedtune.{family}.{name}").KIND)


@pytest.mark.parametrize("name", methods.names("loss"))
def test_a_loss_says_its_kind_and_does_not_mind_the_order(name: str, scores: Scores, bound: Callable[..., Any]) -> None:
    assert kind_of(name) in ("objective", "regulariser")
    value = value_of(bound("loss", name), scores, scores.candidate)
    moved = value_of(bound("loss", name), permuted(scores, ROWS, COLUMNS), scores.candidate[ROWS][:, COLUMNS])
    torch.testing.assert_close(moved, value)


OBJECTIVES = [name for name in methods.names("loss") if kind_of(name) == "objective"]
BOTH_DIRECTIONS = {"bsc", "ncu", "tripletclip"}  # where a row without negatives may still be one for documents


def gradient_of(loss: Callable[..., Any], scores: Scores, keep: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    value = value_of(loss, scores, keep, weights)
    (gradient,) = torch.autograd.grad(value, scores.student)
    return value.detach(), gradient


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_falls_as_a_positive_rises(name: str, scores: Scores, bound: Callable[..., Any]) -> None:
    _, gradient = gradient_of(bound("loss", name), scores, scores.candidate, torch.zeros_like(scores.student))
    assert gradient.isfinite().all()
    assert (gradient[scores.positive] <= 1e-7).all()
    assert gradient[scores.positive].sum() < -1e-4
    assert (gradient[~scores.positive & ~scores.candidate] == 0).all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_dropping_a_column_equals_deleting_it(name: str, scores: Scores, bound: Callable[..., Any]) -> None:
    keep = scores.candidate.clone()
    keep[:, 9] = False
    weights = torch.rand(keep.shape, generator=torch.Generator().manual_seed(1)).masked_fill(~scores.candidate, 0)
    value, gradient = gradient_of(bound("loss", name), scores, keep, weights)
    rest = torch.tensor([column for column in range(DOCUMENTS) if column != 9])
    student = scores.student.detach()[:, rest].requires_grad_()
    without = dataclasses.replace(permuted(scores, torch.arange(QUERIES), rest), student=student)
    deleted, deleted_gradient = gradient_of(bound("loss", name), without, keep[:, rest], weights[:, rest])
    torch.testing.assert_close(value, deleted)
    torch.testing.assert_close(gradient[:, rest], deleted_gradient)
    assert (gradient[:, 9] == 0).all()


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - BOTH_DIRECTIONS))
def test_a_row_without_negatives_is_left_out_and_counted(name: str, scores: Scores, bound: Callable[..., Any]) -> None:
    keep = scores.candidate.clone()
    keep[2] = False
    value, parts = bound("loss", name)(scores, keep, torch.zeros_like(scores.student))
    assert float(parts["rows_without_negatives"]) == 1
    rest = torch.tensor([0, 1, 3])
    without = permuted(scores, rest, torch.arange(DOCUMENTS))
    torch.testing.assert_close(value, value_of(bound("loss", name), without, keep[rest]))
    (gradient,) = torch.autograd.grad(value, scores.student)
    assert (gradient[2] == 0).all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_batch_without_any_negative_is_refused(name: str, scores: Scores, bound: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"^no query of this batch of 4 has a negative left: every other"):
        bound("loss", name)(scores, torch.zeros_like(scores.candidate), torch.zeros_like(scores.student))


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if neutral_options("loss", name) is not None])
def test_an_objective_with_neutral_options_is_infonce(name: str, scores: Scores) -> None:
    neutral, temperature = neutral_options("loss", name) or {}, 0.2
    weights = torch.rand(scores.student.shape, generator=torch.Generator().manual_seed(1))
    loss = methods.bind("loss", name, {**neutral, "temperature": temperature})
    infonce = methods.bind("loss", "infonce", {"temperature": temperature})
    value, gradient = gradient_of(loss, scores, scores.candidate, weights)
    expected, expected_gradient = gradient_of(infonce, scores, scores.candidate, weights)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("name", methods.names("loss"))
def test_half_precision_scores_do_not_overflow(name: str, scores: Scores, bound: Callable[..., Any]) -> None:
    half = dataclasses.replace(scores, student=scores.student.detach().half().requires_grad_())
    value = value_of(bound("loss", name), half, scores.candidate)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, value_of(bound("loss", name), scores, scores.candidate), rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("name", methods.names("loss"))
def test_double_precision_stays(name: str, scores: Scores, bound: Callable[..., Any]) -> None:
    double = dataclasses.replace(scores, student=scores.student.detach().double())
    if name == "orthogonal":
        double = dataclasses.replace(double, queries=scores.queries.double(), documents=scores.documents.double())
    assert value_of(bound("loss", name), double, scores.candidate).dtype == torch.float64


BY_QUERY = [
    (family, name)
    for family in ("filtering", "weighting", "loss")
    for name in methods.names(family)
    if methods.by_query(family, name, {})
]


class Taught:
    """A teacher that has scored these pairs."""

    def __init__(self, scores: Scores) -> None:
        self.scores = scores

    def matrix(self, query_ids: tuple[str, ...], doc_ids: tuple[str, ...]) -> Tensor:
        assert self.scores.teacher is not None
        rows = [self.scores.query_ids.index(query_id) for query_id in query_ids]
        return self.scores.teacher[rows][:, [self.scores.doc_ids.index(doc_id) for doc_id in doc_ids]]


def objective_with(family: str, method: Any) -> Objective:
    """An objective of the method among simple ones. The filter leaves queries of which one slice has no negative."""
    filters = [methods.bind("filtering", "absolute", {"below": 0.45})] + [method] * (family == "filtering")
    loss = method if family == "loss" else methods.bind("loss", "infonce", {"temperature": 0.2})
    weightings = [method] * (family == "weighting")
    return Objective(filters, [], [], weightings, [("one", 0.7, loss), ("two", 0.3, loss)])


@pytest.mark.parametrize(("family", "name"), BY_QUERY)
@pytest.mark.parametrize("all_have_negatives", [True, False])
def test_what_treats_each_query_by_itself_gives_the_same_in_slices(
    family: str, name: str, all_have_negatives: bool, scores: Scores, bound: Callable[..., Any]
) -> None:
    candidate = scores.candidate.clone()
    candidate[3] &= all_have_negatives
    assert scores.own is not None
    batch = Batch(
        query_ids=scores.query_ids,
        doc_ids=scores.doc_ids,
        positive=scores.positive,
        candidate=candidate,
        own=scores.own & candidate,
        positive_ids=scores.positive_ids,
        made=(),
        made_queries=torch.zeros(QUERIES, dtype=torch.bool),
    )
    found = []
    for slices in ([range(4)], [range(2), range(2, 3), range(3, 4)]):
        method = bound(family, name)
        objective = dataclasses.replace(objective_with(family, method), teacher=Taught(scores))
        assert scores.queries is not None
        assert scores.documents is not None
        leaves = [scores.queries.clone().requires_grad_(), scores.documents.clone().requires_grad_()]
        given = SimpleNamespace(similarity="cosine"), objective, batch, *leaves, 0.0, torch.Generator()
        if len(slices) == 1:
            loss, parts = over_prefixes(*given)
            loss.backward()
        else:
            loss, parts = over_slices(*given, slices, lambda part: part.backward() if part.requires_grad else None)
        learned = list(method.parameters()) if isinstance(method, torch.nn.Module) else []
        gradients = [leaf.grad for leaf in (*leaves, *learned) if leaf.requires_grad]
        found.append((loss.detach(), gradients, parts))
    (loss, gradients, parts), (sliced_loss, sliced_gradients, sliced_parts) = found
    torch.testing.assert_close(sliced_loss, loss, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(sliced_gradients, gradients, atol=1e-6, rtol=1e-6)
    assert parts.keys() == sliced_parts.keys()
    for said, value in parts.items():
        assert float(sliced_parts[said]) == pytest.approx(float(value), abs=1e-6), said


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
    assert neutral is not None, f"embedtune/synthesis/{name}.py must say its neutral options in NEUTRAL"
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
