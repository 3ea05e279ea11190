from __future__ import annotations

import pytest
import torch
from fixture_f import fixture
from torch import Tensor

from embedtune.errors import InputError
from embedtune.methods.filtering.rrra import Rrra, off_segment
from embedtune.types import Scores


def unit(values: Tensor) -> Tensor:
    return torch.nn.functional.normalize(values, dim=1)


def batch(seed: int, hidden_positives: bool = True) -> Scores:
    """6 queries and their positives; with 6 unlabelled copies of the positives and 12 others as candidates."""
    generator = torch.Generator().manual_seed(seed)
    queries = unit(torch.randn(6, 8, generator=generator))
    near = [unit(queries + 0.15 * torch.randn(6, 8, generator=generator)) for _ in range(1 + hidden_positives)]
    documents = torch.cat([*near, unit(torch.randn(12, 8, generator=generator))])
    return fixture(queries @ documents.T, queries=queries, documents=documents)


def test_an_untrained_adapter_drops_nothing() -> None:
    assert torch.equal(Rrra().eval()(batch(0)), batch(0).candidate)


def test_a_threshold_of_zero_drops_everything_and_of_one_nothing() -> None:
    assert not Rrra(threshold=0.0)(batch(0)).any()
    assert torch.equal(Rrra(threshold=1.0)(batch(0)), batch(0).candidate)


def test_it_learns_to_find_hidden_positives() -> None:
    method = Rrra(threshold=0.5, learning_rate=0.02)
    for seed in range(60):
        method(batch(seed, hidden_positives=False))
    keep = method.eval()(batch(1000))
    rows = torch.arange(6)
    assert int((~keep[rows, rows + 6]).sum()) >= 5  # the unlabelled positives
    assert float(keep[:, 12:].float().mean()) > 0.9  # the others


def test_moving_by_nothing_stays_on_the_segment() -> None:
    scores, method = batch(0), Rrra()
    method.eval()(scores)
    assert scores.queries is not None
    assert scores.documents is not None
    pairs = scores.queries, scores.documents[:6]
    chances, moved = method.chance(method.weights, *pairs)
    assert torch.equal(moved, pairs[1])
    torch.testing.assert_close(chances, torch.sigmoid(10 * (pairs[0] * pairs[1]).sum(1) - 10))
    torch.testing.assert_close(off_segment(moved, *pairs), torch.zeros(6))


def test_the_distance_from_a_segment_by_hand() -> None:
    q, c = torch.tensor([[1.0, 0.0]]).expand(3, 2), torch.zeros(3, 2)
    points = torch.tensor([[0.5, 2.0], [3.0, 0.0], [-1.0, -1.0]])
    assert off_segment(points, q, c).tolist() == [4.0, 4.0, 2.0]


def test_training_resumes_exactly() -> None:
    whole, halted, resumed = Rrra(), Rrra(), Rrra()
    for seed in range(6):
        whole(batch(seed))
    for seed in range(3):
        halted(batch(seed))
    resumed.load_state_dict(halted.state_dict())
    for seed in range(3, 6):
        resumed(batch(seed))
    assert torch.equal(resumed.weights, whole.weights)


def test_it_learns_under_no_grad_and_gives_the_encoder_no_gradient() -> None:
    scores, method = batch(0), Rrra()
    with torch.no_grad():
        keep = method(scores)
    assert method.steps == 1
    assert not keep.requires_grad
    assert not method.weights.requires_grad
    assert not list(method.parameters())


def test_without_embeddings_it_is_refused() -> None:
    with pytest.raises(InputError, match=r"^rrra: needs the embeddings of queries and documents$"):
        Rrra()(fixture())


@pytest.mark.parametrize("at_once", [1, 2**25])
def test_chances_of_all_pairs_are_those_of_each_pair(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr("embedtune.methods.filtering.rrra.HIDDEN_AT_ONCE", at_once)
    method = Rrra(learning_rate=0.02)
    for seed in range(5):
        method(batch(seed))
    scores = batch(9)
    assert scores.queries is not None
    assert scores.documents is not None
    for dtype, within in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        queries, documents, weights = (v.to(dtype) for v in (scores.queries, scores.documents, method.weights))
        each = torch.stack([method.chance(weights, q.expand_as(documents), documents)[0] for q in queries])
        method.weights = weights
        chances = method._chances(queries, documents)
        assert chances.std() > 0.01
        torch.testing.assert_close(chances, each, rtol=0, atol=within)
        method.weights = method.weights.float()
