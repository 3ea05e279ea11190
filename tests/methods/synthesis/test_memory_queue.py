from __future__ import annotations

import dataclasses

import pytest
import torch
from fixture_f import F, fixture
from torch import Tensor

from embedtune.errors import InputError
from embedtune.methods.loss.infonce import Infonce
from embedtune.methods.synthesis.memory_queue import MemoryQueue, hashes
from embedtune.types import Scores

GENERATOR = torch.Generator()


def batch(number: int, count: int = 2, **changes: object) -> Scores:
    """The batch of this number: as many queries as documents, whose embeddings say the batch and the place."""
    documents = torch.tensor([[10.0 * number + place, 1.0] for place in range(count)])
    queries = torch.tensor([[1.0, float(place)] for place in range(count)])
    scores = fixture(
        queries @ documents.T,
        queries=queries,
        documents=documents,
        query_ids=tuple(f"q{number}-{place}" for place in range(count)),
        doc_ids=tuple(f"d{number}-{place}" for place in range(count)),
        positive_ids=tuple(frozenset({f"d{number}-{place}"}) for place in range(count)),
    )
    return dataclasses.replace(scores, **changes)  # type: ignore[arg-type]


def call(queue: MemoryQueue, scores: Scores) -> tuple[list[float], Tensor]:
    """What a call offers: the held documents' first numbers, and for which rows (Q, M) they are kept."""
    extended, keep = queue(scores, scores.candidate, generator=GENERATOR)
    assert extended.documents is not None
    assert torch.equal(extended.candidate, keep)
    count = scores.student.shape[1]
    return extended.documents[count:, 0].tolist(), keep[:, count:]


def test_first_in_first_out() -> None:
    queue = MemoryQueue(size=5)
    offered = [sorted(call(queue, batch(number))[0]) for number in range(1, 6)]
    assert offered[0] == []
    assert offered[1] == [10, 11]
    assert offered[2] == [10, 11, 20, 21]
    assert offered[3] == [11, 20, 21, 30, 31]
    assert offered[4] == [21, 30, 31, 40, 41]


def test_all_that_is_held_is_a_negative_of_other_queries() -> None:
    queue = MemoryQueue(size=5)
    call(queue, batch(1))
    _, keep = call(queue, batch(2))
    assert keep.all()


def test_a_batch_larger_than_the_queue_leaves_its_last() -> None:
    queue = MemoryQueue(size=3)
    call(queue, batch(1, count=5))
    assert sorted(call(queue, batch(2))[0]) == [12, 13, 14]


def test_a_document_of_the_batch_is_no_negative_by_its_older_self() -> None:
    queue = MemoryQueue(size=8)
    call(queue, batch(1))
    offered, keep = call(queue, batch(2, doc_ids=("d1-1", "d2-1")))
    assert offered == [10, 11]
    assert keep.tolist() == [[True, False], [True, False]]
    assert sorted(call(queue, batch(3))[0]) == [10, 20, 21]  # d1-1 is held once, as it was last


def test_a_querys_positive_of_an_earlier_step_is_no_negative() -> None:
    queue = MemoryQueue(size=8)
    call(queue, batch(1))
    judged = (frozenset({"d2-0"}), frozenset({"d2-1", "d1-0"}))
    offered, keep = call(queue, batch(2, positive_ids=judged))
    assert offered == [10, 11]
    assert keep.tolist() == [[True, True], [False, True]]


def test_made_columns_are_not_taken_in() -> None:
    queue = MemoryQueue(size=8)
    call(queue, batch(1, doc_ids=("d1-0", "")))
    assert call(queue, batch(2))[0] == [10]


def test_selective_negatives_are_each_querys_most_similar() -> None:
    queue = MemoryQueue(size=8, hardest=2)
    call(queue, batch(1, count=4))
    queries = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    offered, keep = call(queue, batch(2, queries=queries, positive_ids=(frozenset({"d1-3"}), frozenset())))
    assert offered == [10, 11, 12, 13]
    assert keep.tolist() == [[False, True, True, False], [True, True, False, False]]


def test_a_queue_of_the_batchs_own_documents_is_infonce_with_constant_documents() -> None:
    """A12's check: each query alone with its positive, and the queue for the rest, loses what it does in F."""
    queue = MemoryQueue(size=3)
    whole = fixture(F, queries=F, documents=torch.eye(3), doc_ids=("x", "y", "z"), positive_ids=(frozenset(),) * 3)
    queue(whole, whole.candidate, generator=GENERATOR)
    queue.eval()
    values = []
    for row in range(3):
        documents = torch.eye(3)[row : row + 1].requires_grad_()
        queries = F[row : row + 1]
        alone = fixture(queries @ documents.T, queries=queries, documents=documents, positive_ids=(frozenset(),))
        alone = dataclasses.replace(alone, doc_ids=(whole.doc_ids[row],))
        extended, keep = queue(alone, alone.candidate, generator=GENERATOR)
        value, _ = Infonce(temperature=0.1)(extended, keep, torch.zeros_like(extended.student))
        values.append(float(value.detach()))
        (gradient,) = torch.autograd.grad(value, documents)
        share = torch.softmax(F[row] / 0.1, dim=0)[row]
        torch.testing.assert_close(gradient, (share - 1) / 0.1 * queries)  # by the positive's logit alone
    assert values == pytest.approx([0.007049, 0.054985, 0.318175], abs=2e-6)


def test_an_empty_queue_leaves_the_batch_alone() -> None:
    scores = batch(1)
    assert MemoryQueue(size=4)(scores, scores.candidate, generator=GENERATOR) == (scores, scores.candidate)


def test_it_takes_in_only_while_training() -> None:
    queue = MemoryQueue(size=4)
    call(queue, batch(1))
    queue.eval()
    call(queue, batch(2))
    assert call(queue, batch(3))[0] == [10, 11]


def test_training_resumes_exactly() -> None:
    whole, halted, resumed = MemoryQueue(size=5), MemoryQueue(size=5), MemoryQueue(size=5)
    for number in range(1, 4):
        call(whole, batch(number))
        call(halted, batch(number))
    resumed.load_state_dict(halted.state_dict())
    for number in range(4, 7):
        assert call(resumed, batch(number))[0] == call(whole, batch(number))[0]
    assert all(torch.equal(one, other) for one, other in zip(resumed.buffers(), whole.buffers(), strict=True))


def test_what_is_held_does_not_change_with_the_model() -> None:
    queue, scores = MemoryQueue(size=4), batch(1)
    call(queue, scores)
    assert scores.documents is not None
    scores.documents.zero_()
    assert call(queue, batch(2))[0] == [10, 11]


def test_without_ids_it_is_refused() -> None:
    with pytest.raises(InputError, match=r"^synthesis.memory_queue: needs the documents' ids and the queries' judged"):
        call(MemoryQueue(), batch(1, doc_ids=()))
    with pytest.raises(InputError, match=r"^synthesis.memory_queue: expected size of at least 0"):
        MemoryQueue(size=-1)


def test_judged_documents_are_those_that_asking_query_by_query_finds() -> None:
    queue, generator = MemoryQueue(size=40), torch.Generator().manual_seed(0)
    held = hashes([f"d{n}" for n in range(30)] + ["d3", "d7"], like=queue.documents)
    chances = torch.rand(12, 50, generator=generator) < 0.2
    chances[4] = False  # a query without judgements
    judged = [frozenset(f"d{n}" for n in row.nonzero().flatten().tolist()) for row in chances]
    expected = torch.stack([torch.isin(held, hashes(names, like=held)) for names in judged])
    assert expected.any()
    assert torch.equal(queue._judged(held, judged), expected)
    assert queue._judged(held[:0], judged).shape == (12, 0)
    assert not queue._judged(held, [frozenset()] * 3).any()
