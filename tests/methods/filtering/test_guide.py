from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from fixture_f import TEMPERATURE, F, fixture, no_weights

from embedtune.errors import InputError
from embedtune.methods.filtering.guide import guide, limit
from embedtune.methods.loss.infonce import Infonce
from embedtune.recipe import check_recipe
from embedtune.train.objective import Objective, within_roles

GUIDE = torch.tensor([[0.8, 0.85, 0.1], [0.2, 0.9, 0.3], [0.1, 0.6, 0.7]])


def test_the_fixture_by_hand() -> None:
    scores = fixture(F, teacher=GUIDE)
    keep = guide(scores)
    assert (scores.candidate & ~keep).nonzero().tolist() == [[0, 1]]
    value, _ = Infonce(temperature=TEMPERATURE)(scores, keep, no_weights(scores))
    assert float(value) == pytest.approx(0.124499, abs=2e-6)


def test_a_margin_lowers_the_bar() -> None:
    scores = fixture(F, teacher=GUIDE)
    assert guide(scores, margin=0.2).sum() == 4  # 0.6 > 0.7 - 0.2 goes as well
    assert guide(scores, margin=0.05).sum() == 5
    assert guide(scores, margin=0.2, margin_kind="relative").sum() == 4  # 0.6 > 0.7 - 0.14
    assert guide(scores, margin=0.1, margin_kind="relative").sum() == 5


def test_an_equal_score_stays() -> None:
    scores = fixture(torch.tensor([[0.5, 0.5]]), teacher=torch.tensor([[0.7, 0.7]]))
    assert guide(scores).tolist() == [[False, True]]


def test_a_relative_margin_below_zero_still_lowers_the_bar() -> None:
    scores = fixture(torch.zeros(1, 3), teacher=torch.tensor([[-0.5, -0.52, -0.6]]))
    assert guide(scores, margin=0.1, margin_kind="relative").tolist() == [[False, False, True]]


def test_a_guide_that_is_sure_of_the_positive_drops_nothing() -> None:
    sure = GUIDE.clone().fill_diagonal_(math.inf)
    assert torch.equal(guide(fixture(F, teacher=sure)), fixture().candidate)


def test_several_blocks_are_one_softmax_over_what_the_guide_left() -> None:
    """Anchor-positive, anchor-anchor and positive-positive logits concatenated, by hand for row 0 with column 1 out."""
    generator = torch.Generator().manual_seed(0)
    queries = torch.nn.functional.normalize(torch.randn(3, 4, generator=generator), dim=1)
    documents = torch.nn.functional.normalize(torch.randn(3, 4, generator=generator), dim=1)
    scores = fixture(queries @ documents.T, teacher=GUIDE, queries=queries, documents=documents)
    loss = Infonce(
        temperature=TEMPERATURE, directions=["query_document", "query_query", "document_document"], denominator="joint"
    )
    first = guide(scores) & (torch.arange(3) == 0)[:, None]
    logits = torch.stack([
        scores.student[0, 0], scores.student[0, 2], queries[0] @ queries[2], documents[0] @ documents[2],
    ]) / TEMPERATURE  # fmt: skip
    value, _ = loss(scores, first, no_weights(scores))
    assert float(value) == pytest.approx(float(logits.logsumexp(0) - logits[0]), rel=1e-5)


def test_the_four_blocks_by_hand() -> None:
    """Two queries that the guide takes for one are no negatives of each other; so are two documents."""
    units = torch.eye(3)
    scores = replace(
        fixture(F, teacher=GUIDE, queries=units, documents=units),
        teacher_queries=torch.tensor([[1.0, 0.1, 0.9], [0.1, 1.0, 0.2], [0.9, 0.2, 1.0]]),
        teacher_documents=torch.tensor([[1.0, 0.81, 0.1], [0.81, 1.0, 0.3], [0.1, 0.3, 1.0]]),
    )
    found = within_roles(scores, scores.candidate, [limit])  # positives by the guide: .8, .9 and .7
    assert found.kept_queries is not None
    assert found.kept_documents is not None
    assert found.kept_queries.tolist() == [[False, True, False], [True, False, True], [False, True, False]]
    assert found.kept_documents.tolist() == [[False, False, True], [True, False, True], [True, True, False]]
    loss = Infonce(temperature=1.0, directions=["query_query", "document_document"], denominator="joint")
    value, _ = loss(found, guide(found), no_weights(found))
    # every similarity within a role is 0; row 0 keeps one query and one document, row 1 two and two, row 2 one and two
    rows = [math.log(1 + count / math.exp(F[i, i])) for i, count in enumerate((2, 4, 3))]
    assert float(value) == pytest.approx(sum(rows) / 3, rel=1e-5)


def test_the_guide_is_asked_only_where_a_loss_compares_within_roles() -> None:
    filters = [{"name": "guide"}, {"name": "absolute", "below": 0.9}]
    for directions, places in ((["query_document"], []), (["query_document", "query_query"], [0])):
        recipe = check_recipe(
            {
                "version": 1,
                "model": {"name": "m"},
                "data": {"train": "d"},
                "negatives": {"filtering": filters, "teacher": "t"},
                "loss": {"name": "infonce", "directions": directions},
            }
        )
        assert list(Objective.of(recipe).limits) == places


def test_without_a_teacher_it_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"^filtering.guide: needs a teacher's scores; give a teacher, or use positive"
    ):
        guide(fixture())
