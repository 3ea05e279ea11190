import tracemalloc
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedtune.errors import InputError
from embedtune.search import exact
from embedtune.search.exact import as_run, best_rows, exact_search, tie_order


@st.composite
def vectors(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int, np.ndarray, int]:
    """Small whole numbers: products are exact, ties are many."""
    q, d, h = draw(st.integers(0, 4)), draw(st.integers(1, 12)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    queries = rng.integers(-2, 3, (q, h)).astype(np.float32)
    documents = rng.integers(-2, 3, (d, h)).astype(np.float32)
    return queries, documents, draw(st.integers(1, 15)), rng.permutation(d), draw(st.integers(1, 13))


def in_blocks(size: int, *arguments: Any, **options: Any) -> tuple[Any, Any]:
    """`exact_search` with so many documents in a block."""
    with mock.patch.object(exact, "_DOCUMENTS", size):
        return exact_search(*arguments, **options)


@settings(max_examples=150)
@given(vectors())
def test_against_brute_force(given: tuple[np.ndarray, np.ndarray, int, np.ndarray, int]) -> None:
    queries, documents, k, order, block = given
    scores, rows = in_blocks(block, queries, documents, k, tie_order=order)
    assert scores.dtype == np.float32
    assert rows.dtype == np.int64
    for query, of_query, best in zip(queries, scores, rows, strict=True):
        everything = sorted(((float(query @ d), order[row], row) for row, d in enumerate(documents)), reverse=True)
        assert rows.shape[1] == min(k, len(documents))
        assert best.tolist() == [row for _, _, row in everything[:k]]
        assert of_query.tolist() == [score for score, _, _ in everything[:k]]


@settings(max_examples=80)
@given(vectors(), st.sets(st.integers(0, 11)))
def test_removed_rows_are_never_found(
    given: tuple[np.ndarray, np.ndarray, int, np.ndarray, int], chosen: set[int]
) -> None:
    queries, documents, k, order, block = given
    removed = sorted(row for row in chosen if row < len(documents) - 1)
    _, rows = in_blocks(block, queries, documents, k, tie_order=order, removed=np.array(removed, np.int64))
    left = [row for row in range(len(documents)) if row not in removed]
    for query, best in zip(queries, rows, strict=True):
        expected = sorted(((float(query @ documents[row]), order[row], row) for row in left), reverse=True)
        assert best.tolist() == [row for _, _, row in expected[:k]]


def test_equal_scores_keep_the_lower_row_by_default() -> None:
    scores, rows = in_blocks(2, np.ones((1, 2), np.float32), np.ones((9, 2), np.float32), 4)
    assert rows.tolist() == [[0, 1, 2, 3]]
    assert scores.tolist() == [[2.0] * 4]


def test_many_queries_and_blocks_agree_with_one() -> None:
    rng = np.random.default_rng(0)
    queries, documents = rng.normal(size=(600, 8)).astype(np.float32), rng.normal(size=(500, 8)).astype(np.float32)
    scores, rows = in_blocks(64, queries, documents, 20)
    whole = queries @ documents.T
    expected = np.argsort(-whole, axis=1)[:, :20]
    assert (rows == expected).all()
    assert np.allclose(scores, np.take_along_axis(whole, expected, axis=1), rtol=1e-5, atol=1e-6)


def test_cosine_normalises_and_keeps_a_zero_vector() -> None:
    documents = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, -2.0]], np.float32)
    scores, rows = in_blocks(1, np.array([[0.0, 5.0]], np.float32), documents, 3, similarity="cosine")
    assert rows.tolist() == [[0, 1, 2]]
    assert scores[0].tolist() == pytest.approx([0.8, 0.0, -1.0])


def test_a_mapped_array_is_read_block_by_block(tmp_path: Path) -> None:
    shape = (40_000, 64)
    mapped = np.lib.format.open_memmap(tmp_path / "documents.npy", mode="w+", dtype=np.float16, shape=shape)
    mapped[:] = np.arange(shape[0])[:, None] % 1000
    mapped.flush()
    documents = np.load(tmp_path / "documents.npy", mmap_mode="r")
    tracemalloc.start()
    in_blocks(1000, np.ones((2, 64), np.float32), documents, 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20 < documents.size * 4


def test_bad_embeddings_are_refused() -> None:
    good, bad = np.ones((3, 2), np.float32), np.ones((3, 2), np.float32)
    bad[1, 0] = np.nan
    with pytest.raises(InputError, match="the embedding of document row 1 is not finite"):
        in_blocks(1, good, bad, 2)
    with pytest.raises(InputError, match="the embedding of query row 1 is not finite"):
        exact_search(bad, good, 2)
    with pytest.raises(InputError, match="queries have 3 dimensions and documents have 2"):
        exact_search(np.ones((1, 3), np.float32), good, 2)
    with pytest.raises(InputError, match="no documents"):
        exact_search(good, good[:0], 2)
    with pytest.raises(InputError, match="no documents"):
        exact_search(good, good, 2, removed=np.arange(3))
    with pytest.raises(InputError, match="a score is not finite: embeddings are too large"):
        exact_search(good * 1e30, good * 1e30, 2)


def test_as_run_orders_ties_by_id_and_drops_missing_rows() -> None:
    doc_ids = ["d1", "d10", "d2"]
    assert tie_order(doc_ids).tolist() == [0, 1, 2]
    assert tie_order(["b", "c", "a"]).tolist() == [1, 2, 0]
    scores = np.array([[1.0, 1.0, 2.0, -1.0]], np.float32)
    run = as_run(["q"], doc_ids, scores, np.array([[0, 2, 1, -1]]))
    assert list(run["q"].items()) == [("d10", 2.0), ("d2", 1.0), ("d1", 1.0)]


def best_of_documents(scores: np.ndarray, owners: np.ndarray) -> np.ndarray:
    return np.stack([scores[:, owners == number].max(axis=1) for number in range(owners[-1] + 1)], axis=1)


def test_of_passages_the_k_best_documents_are_found_where_one_owns_all_the_best_passages() -> None:
    generator = np.random.default_rng(0)
    counts = [300, *generator.integers(1, 6, 80).tolist()]
    owners = np.repeat(np.arange(len(counts)), counts)
    queries = generator.normal(size=(7, 8)).astype(np.float32)
    passages = generator.normal(size=(len(owners), 8)).astype(np.float32)
    passages[:300] = queries[0] + 0.01 * passages[:300]  # 300 passages that score best for the first query
    of_documents = best_of_documents(queries @ passages.T, owners)
    scores, rows = exact_search(queries, passages, 10, tie_order=owners)
    numbers = owners[rows]
    assert numbers[0, 0] == 0
    for query in range(7):
        expected = np.argsort(-of_documents[query])[:10]
        assert numbers[query].tolist() == expected.tolist()
        np.testing.assert_allclose(scores[query], of_documents[query, expected], rtol=1e-5)
    assert exact_search(queries, passages, 1000, tie_order=owners)[1].shape == (7, 81)
    rows = best_rows(queries, passages, owners, rows)
    assert (owners[rows] == numbers).all()
    np.testing.assert_allclose((queries[:, None] * passages[rows]).sum(-1), scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 64])
def test_documents_whose_passages_fill_several_blocks_are_found_alike(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(1)
    owners = np.repeat(np.arange(12), generator.integers(1, 9, 12))
    queries = generator.integers(-2, 3, (5, 4)).astype(np.float32)  # small integers: many equal scores
    passages = generator.integers(-2, 3, (len(owners), 4)).astype(np.float32)
    order = generator.permutation(12)
    removed = np.flatnonzero(np.isin(owners, [0, 5]))
    monkeypatch.setattr("embedtune.search.exact._DOCUMENTS", size)
    scores, rows = exact_search(queries, passages, 12, tie_order=order[owners], removed=removed)
    numbers = owners[rows]
    of_documents = best_of_documents(queries @ passages.T, owners)
    for query in range(5):
        expected = sorted(set(range(12)) - {0, 5}, key=lambda n: (of_documents[query, n], order[n]), reverse=True)
        assert numbers[query].tolist() == expected
        assert scores[query].tolist() == of_documents[query, expected].tolist()
