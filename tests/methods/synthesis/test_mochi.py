from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from fixture_f import F, fixture

from embedtune.errors import InputError
from embedtune.methods.synthesis.memory_queue import MemoryQueue
from embedtune.methods.synthesis.mochi import mixed, mochi
from embedtune.types import Scores


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def circle(*degrees: float) -> torch.Tensor:
    angles = torch.tensor([math.radians(degree) for degree in degrees])
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def on_a_circle() -> Scores:
    """Queries at 0 and 180 degrees, whose positives stand at 5 and 175; others at 20, 40, 60 and 120."""
    queries, documents = circle(0, 180), circle(5, 175, 20, 40, 60, 120)
    student = queries @ documents.T
    positive = torch.zeros(2, 6, dtype=torch.bool)
    positive.fill_diagonal_(True)
    return Scores(student=student, positive=positive, candidate=~positive, queries=queries, documents=documents)


def degrees_of(scores: Scores) -> list[float]:
    assert scores.documents is not None
    return [math.degrees(math.atan2(y, x)) for x, y in scores.documents.tolist()]


def test_mixtures_by_hand() -> None:
    first, second, query = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor([0.6, 0.8])
    between = mixed(first, second, torch.tensor(0.5))
    assert between.tolist() == pytest.approx([0.5**0.5, 0.5**0.5])
    assert float(query @ between) == pytest.approx(0.989949, abs=1e-6)
    toward = mixed(query, first, torch.tensor(0.25))
    assert toward.tolist() == pytest.approx([0.976187, 0.216930], abs=1e-6)
    assert float(query @ toward) == pytest.approx(0.759257, abs=1e-6)


def test_the_length_is_between_the_parents() -> None:
    mixture = mixed(torch.tensor([4.0, 0.0]), torch.tensor([0.0, 2.0]), torch.tensor(0.5))
    assert float(mixture.norm()) == pytest.approx(3.0)
    assert float(mixture[0] / mixture[1]) == pytest.approx(2.0)


def test_the_first_type_lies_among_the_hardest() -> None:
    made, keep = mochi(on_a_circle(), on_a_circle().candidate, hardest=2, type1=40, type2=0, generator=generator())
    first, second = degrees_of(made)[6:46], degrees_of(made)[46:]
    assert all(20 - 1e-3 <= degree <= 40 + 1e-3 for degree in first)
    assert all(60 - 1e-3 <= degree <= 120 + 1e-3 for degree in second)
    assert max(first) - min(first) > 15
    assert keep[0, 6:].tolist() == [True] * 40 + [False] * 40
    assert torch.equal(keep[1, 6:], ~keep[0, 6:])


def test_the_second_type_lies_nearer_to_the_negative() -> None:
    made, _ = mochi(on_a_circle(), on_a_circle().candidate, hardest=1, type1=0, type2=40, generator=generator())
    first = degrees_of(made)[6:46]
    assert all(10 <= degree <= 20 + 1e-3 for degree in first)  # between the query at 0 and its hardest at 20
    assert max(first) - min(first) > 7


def test_only_kept_negatives_are_mixed() -> None:
    scores = on_a_circle()
    keep = scores.candidate.clone()
    keep[0] = torch.tensor([False, False, False, False, True, False])
    keep[1] = False
    made, extended = mochi(scores, keep, type1=3, type2=0, generator=generator())
    assert degrees_of(made)[6:9] == pytest.approx([60.0] * 3, abs=1e-3)
    assert not extended[1].any()
    assert not made.candidate[1, 6:].any()
    nothing = torch.zeros_like(keep)
    assert mochi(scores, nothing, generator=generator()) == (scores, nothing)


def test_the_mixtures_are_constants_the_query_in_them_too() -> None:
    queries = circle(0, 180).requires_grad_()
    documents = circle(5, 175, 20, 40, 60, 120).requires_grad_()
    scores = dataclasses.replace(on_a_circle(), student=queries @ documents.T, queries=queries, documents=documents)
    made, _ = mochi(scores, scores.candidate, type1=1, type2=2, generator=generator())
    of_queries, of_documents = torch.autograd.grad(made.student[0, 6:].sum(), (queries, documents), allow_unused=True)
    assert made.documents is not None
    torch.testing.assert_close(of_queries, torch.stack([made.documents.detach()[6:].sum(0), torch.zeros(2)]))
    assert of_documents is None or not of_documents.any()


def test_what_a_queue_offers_is_mixed_too() -> None:
    queue, nothing = MemoryQueue(size=4), torch.zeros(2, 6, dtype=torch.bool)
    named = dataclasses.replace(on_a_circle(), doc_ids=tuple("abcdef"), positive_ids=(frozenset(),) * 2)
    queue(dataclasses.replace(named, documents=circle(80, 80, 80, 80, 80, 80)), nothing, generator=generator())
    offered, keep = queue(dataclasses.replace(named, doc_ids=tuple("uvwxyz")), nothing, generator=generator())
    made, extended = mochi(offered, keep, type1=2, type2=0, generator=generator())
    assert degrees_of(made)[6:] == pytest.approx([80.0] * 8, abs=1e-3)
    assert made.made is not None
    assert made.made.tolist() == [False] * 6 + [True] * 8
    assert extended[:, 6:].int().tolist() == [[1, 1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0, 1, 1]]
    assert made.own is not None
    assert made.own[:, :10].sum() == 0


def test_each_type_begins_at_its_own_time() -> None:
    counts = []
    for progress in (0.0, 0.1, 0.2):
        scores = dataclasses.replace(on_a_circle(), progress=progress)
        options = {"type1": 3, "type2": 5, "type1_start": 0.1, "type2_start": 0.2}
        made, _ = mochi(scores, scores.candidate, **options, generator=generator())  # type: ignore[arg-type]
        counts.append((made.student.shape[1] - 6) // 2)
    assert counts == [0, 3, 8]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match=r"^synthesis.mochi: needs the embeddings of queries and documents$"):
        mochi(fixture(F), fixture().candidate, generator=generator())
    with pytest.raises(InputError, match=r"^synthesis.mochi: expected hardest of at least 1, "):
        mochi(on_a_circle(), on_a_circle().candidate, hardest=0, generator=generator())
