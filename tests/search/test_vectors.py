"""Stored vectors: what is kept of a vector, how it is read back, and what searching it finds."""

import faiss
import numpy as np
import pytest

from embedtune.errors import InputError
from embedtune.models.similarity import as_scored
from embedtune.search import vectors
from embedtune.search.storage import Storage, bytes_of
from embedtune.search.vectors import Form, forms_of, ranges_of, rescored, search

H = 20  # no multiple of 8: the last byte of a binary vector is half empty


@pytest.fixture
def documents() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(300, H)).astype(np.float32)


@pytest.fixture
def asked() -> np.ndarray:
    return as_scored(np.random.default_rng(1).normal(size=(7, H)).astype(np.float32), "cosine")


def form_of(quantize: str, documents: np.ndarray, dimension: int = H) -> Form:
    ranges = ranges_of(documents, dimension, "cosine") if quantize == "int8" else None
    return forms_of(Storage(quantize=quantize), dimension, "cosine", ranges)[0]  # type: ignore[arg-type]


def test_bytes_of_a_vector() -> None:
    assert {name: bytes_of(384, name) for name in ("none", "float16", "int8", "binary")} == {  # type: ignore[arg-type]
        "none": 1536, "float16": 768, "int8": 384, "binary": 48,
    }  # fmt: skip
    assert bytes_of(H, "binary") == 3


@pytest.mark.parametrize("quantize", ["none", "float16", "int8", "binary"])
def test_as_many_bytes_are_stored_as_are_stated(documents: np.ndarray, quantize: str) -> None:
    values = form_of(quantize, documents, 12).store(documents).values
    assert values.nbytes == 300 * bytes_of(12, quantize)  # type: ignore[arg-type]


def test_cut_vectors_are_of_unit_length_for_cosine_and_as_they_are_for_dot(documents: np.ndarray) -> None:
    cosine = Form(dimension=5, quantize="none", similarity="cosine").store(documents)
    np.testing.assert_allclose(np.linalg.norm(cosine[:], axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(
        Form(dimension=5, quantize="none", similarity="dot").store(documents)[:], documents[:, :5]
    )


def test_an_int8_code_is_the_step_that_the_value_lies_in_and_is_read_as_its_middle(documents: np.ndarray) -> None:
    rows, form = as_scored(documents, "cosine"), form_of("int8", documents)
    low, high = rows.min(axis=0), rows.max(axis=0)
    stored = form.store(documents)
    np.testing.assert_array_equal(form.ranges, [low, high])
    assert np.abs(stored.values - np.clip(255 * (rows - low) / (high - low) - 0.5, 0, 255)).max() <= 0.51
    assert (np.abs(stored[:] - rows) <= 0.501 * (high - low) / 255).all()
    # FAISS's scalar quantiser reads the same codes as the same numbers.
    quantiser = faiss.IndexScalarQuantizer(H, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    quantiser.train(rows)
    np.testing.assert_allclose(quantiser.sa_decode(stored.values), stored[:], atol=1e-6)


def test_a_value_outside_the_calibration_is_the_nearest_end_of_its_range(documents: np.ndarray) -> None:
    ranges = np.tile(np.array([[-0.1], [0.1]], np.float32), H)
    stored = Form(dimension=H, quantize="int8", similarity="dot", ranges=ranges).store(documents)
    assert np.abs(stored[:]).max() <= 0.101
    assert set(np.unique(stored.values[documents > 0.1])) == {255}


def test_a_dimension_that_never_changes_is_read_as_it_is() -> None:
    same = np.ones((150, 3), np.float32)
    form = Form(dimension=3, quantize="int8", similarity="dot", ranges=ranges_of(same, 3, "dot"))
    np.testing.assert_array_equal(form.store(same)[:], same)


def test_a_bit_says_whether_a_value_is_above_0(documents: np.ndarray) -> None:
    stored = form_of("binary", documents).store(documents)
    np.testing.assert_allclose(stored[:], np.where(documents > 0, 1, -1) / np.sqrt(H), rtol=1e-6)


@pytest.mark.parametrize("quantize", ["none", "float16", "int8"])
def test_search_finds_what_brute_force_finds_in_the_vectors_read_back(
    documents: np.ndarray, asked: np.ndarray, quantize: str
) -> None:
    stored = form_of(quantize, documents).store(documents)
    scores, rows = search(asked, stored, 9, tie_order=np.arange(300), removed=np.array([4, 5]))
    every = asked @ stored[:].T
    every[:, [4, 5]] = -np.inf
    np.testing.assert_array_equal(rows, np.argsort(-every, axis=1)[:, :9])
    np.testing.assert_allclose(scores, -np.sort(-every, axis=1)[:, :9], rtol=1e-5)


@pytest.mark.parametrize("rescore", [None, "int8", "float32"])
def test_of_binary_vectors_the_nearest_by_bits_are_scored_again(
    documents: np.ndarray, asked: np.ndarray, rescore: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "CANDIDATES", 40)
    storage = Storage(quantize="binary", rescore=rescore)  # type: ignore[arg-type]
    form, second = forms_of(storage, H, "cosine", ranges_of(documents, H, "cosine"))
    stored = form.store(documents)
    by = second.store(documents) if second is not None else None
    _, rows = search(asked, stored, 9, rescored_by=by, tie_order=np.arange(300), removed=np.array([4]))
    differing = ((asked > 0)[:, None] != (documents > 0)[None]).sum(axis=2)
    exact = {None: np.where(documents > 0, 1, -1), "float32": as_scored(documents, "cosine")}.get(rescore)
    every = asked @ (by[:] if by is not None and exact is None else exact).T
    for query in range(len(asked)):
        others = [row for row in range(300) if row != 4]
        cut = sorted(differing[query, others])[39]
        surely = [row for row in others if differing[query, row] < cut]
        perhaps = {row for row in others if differing[query, row] <= cut}
        assert set(rows[query]) <= perhaps
        worst = every[query, rows[query]].min()
        assert all(row in rows[query] for row in surely if every[query, row] > worst + 1e-5)
        assert (np.diff(every[query, rows[query]]) <= 1e-5).all()  # best first


def test_the_first_ten_are_the_same_whatever_k_is(documents: np.ndarray, asked: np.ndarray) -> None:
    stored = form_of("binary", documents).store(documents)
    ten, all_of_them = (search(asked, stored, k, tie_order=np.arange(300))[1] for k in (10, 300))
    np.testing.assert_array_equal(ten, all_of_them[:, :10])


def test_rescored_orders_equal_scores_by_id_and_leaves_out_what_is_no_candidate() -> None:
    same = Form(dimension=2, quantize="none", similarity="dot").store(np.ones((4, 2), np.float32))
    scores, rows = rescored(np.ones((1, 2), np.float32), same, np.array([[2, -1, 0, 3]]), 4, np.array([3, 2, 1, 0]))
    assert rows.tolist() == [[0, 2, 3, -1]]
    assert scores.tolist() == [[2, 2, 2, -np.inf]]


def test_what_has_no_effect_is_refused(documents: np.ndarray) -> None:
    with pytest.raises(InputError, match="--rescore float32 has no effect: vectors stored as none are scored as exact"):
        Storage(rescore="float32")
    with pytest.raises(InputError, match="--rescore int8 has no effect"):
        Storage(quantize="int8", rescore="int8")
    with pytest.raises(InputError, match="too large for float16"):
        Form(dimension=H, quantize="float16", similarity="dot").store(documents * 1e6)
    documents[3, 0] = np.nan
    with pytest.raises(InputError, match="document row 3 is not finite"):
        form_of("int8", documents)
