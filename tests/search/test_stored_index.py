"""Index folders and `.npy` files whose vectors are cut and quantised: what is stored, found, added to and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_encoder import Random, corpus

from embedtune.data.dataset import load_dataset
from embedtune.data.trec import read_run
from embedtune.errors import InputError
from embedtune.search.build import IndexSource, add_documents, build
from embedtune.search.folder import find, open_index
from embedtune.search.storage import Storage

RunCli = Callable[..., Any]
FORMS = [("none", None), ("float16", None), ("int8", None), ("binary", None), ("binary", "int8"), ("int8", "float32")]


@pytest.mark.parametrize(("quantize", "rescore"), FORMS)
def test_an_index_ranks_as_eval_does_at_the_same_size_and_precision(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: RunCli, quantize: str, rescore: str | None
) -> None:
    form = ["--truncate-dim", "12", "--quantize", quantize, *(["--rescore", rescore] if rescore else [])]
    made = run_cli("index", tiny_dataset, "--model", tiny_model, "--output", tmp_path / "index", *form, "--json")
    assert made.exit_code == 0, made.stderr
    bytes_ = {"none": 48, "float16": 24, "int8": 12, "binary": 2}[quantize]
    (row,) = json.loads(made.stdout)
    assert (row["dimension"], row["stored"], row["bytes"]) == (12, quantize, bytes_)
    whole = ["index", tiny_dataset, "--model", tiny_model, "--output", tmp_path / "whole"]
    assert run_cli(*whole).exit_code == 0
    asked = ["--queries", f"{tiny_dataset}:test", "-k", "60"]
    for name, options in (("index", []), ("whole", form)):  # built so, and tried on the whole index
        searched = run_cli("search", tmp_path / name, *asked, "--output", tmp_path / f"{name}.run", *options)
        assert searched.exit_code == 0, searched.stderr
    measured = run_cli("eval", tiny_model, "--data", tiny_dataset, "--output", tmp_path / "out", *form)
    assert measured.exit_code == 0, measured.stderr
    expected = read_run(tmp_path / "out/tiny/run.trec")
    for name in ("index", "whole"):
        run = read_run(tmp_path / f"{name}.run")
        assert run.keys() == expected.keys()
        # Cut from whole vectors a value may differ in its last bit, and with it a code at the edge of its step.
        near = 1e-6 if name == "index" or quantize in ("none", "binary") else 2e-3
        for query_id, scores in expected.items():
            assert run[query_id] == pytest.approx(scores, abs=near)
            if name == "index":
                assert list(run[query_id]) == list(scores)


@pytest.mark.parametrize(("kind", "quantize"), [("hnsw", "float16"), ("hnsw", "int8"), ("exact", "int8")])
def test_the_recall_against_whole_vectors_is_measured(tmp_path: Path, kind: Any, quantize: Any) -> None:
    documents = corpus(tmp_path / "corpus.jsonl", [f"d{n}" for n in range(600)])
    manifest = build(
        Random(), IndexSource(documents), tmp_path / "index", kind=kind, storage=Storage(quantize=quantize)
    )
    assert (manifest.kind, manifest.quantize) == (kind, quantize)
    assert manifest.recall is not None
    assert 0.95 < manifest.recall["value"] <= 1
    assert find(open_index(tmp_path / "index"), Random(), "Title d5 text", 1)[0].document.id == "d5"


@pytest.mark.parametrize(
    ("kind", "quantize", "rescore"),
    [("exact", "int8", None), ("hnsw", "int8", None), ("hnsw", "int8", "float32"), ("exact", "binary", "int8")],
)
def test_documents_are_added_by_the_calibration_of_the_index(
    tmp_path: Path, kind: Any, quantize: Any, rescore: Any
) -> None:
    folder, ids = tmp_path / "index", [f"d{n}" for n in range(300)]
    storage = Storage(quantize=quantize, rescore=rescore)
    build(Random(), IndexSource(corpus(tmp_path / "a.jsonl", ids)), folder, kind=kind, storage=storage)
    before = np.load(folder / "calibration.npy")
    more = corpus(tmp_path / "b.jsonl", ["d7", "new"], note=" changed")
    manifest = add_documents(Random(), more, folder, replace=True)
    assert manifest.outside > 0  # 16 random values of each of two documents: some are beyond 300 documents' ends
    index = open_index(folder)
    np.testing.assert_array_equal(index.ranges, before)
    assert find(index, Random(), "Title new text changed", 1)[0].document.id == "new"
    assert find(index, Random(), "Title d7 text changed", 1)[0].document.text == "text changed"
    assert len({result.document.id for result in find(index, Random(), "Title d7 text", 400)}) in range(290, 302)


def test_another_calibration_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    documents = corpus(tmp_path / "a.jsonl", [f"d{n}" for n in range(300)])
    build(Random(), IndexSource(documents), folder, storage=Storage(quantize="int8"))
    ranges = np.load(folder / "calibration.npy")
    np.save(folder / "calibration.npy", ranges * 2)
    with pytest.raises(InputError, match=r"damaged index.*calibration\.npy is not the calibration that the vectors"):
        open_index(folder)
    (folder / "calibration.npy").unlink()
    with pytest.raises(InputError, match=r"damaged index.*calibration\.npy"):
        open_index(folder)
    np.save(folder / "calibration.npy", ranges)
    with pytest.raises(InputError, match="built with model models/random"):
        open_index(folder).search(Random("2" * 32), [], 3)


def test_a_calibration_by_other_documents_is_kept(tmp_path: Path) -> None:
    documents, others = (corpus(tmp_path / name, [f"{name}{n}" for n in range(200)]) for name in "ab")
    storage = Storage(quantize="int8", calibrate=others)
    manifest = build(Random(), IndexSource(documents), tmp_path / "index", storage=storage)
    rows = Random().encode(list(others), "document")
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(np.load(tmp_path / "index/calibration.npy"), [rows.min(0), rows.max(0)], atol=1e-7)
    assert 0 < manifest.outside < 0.05


def test_what_an_index_does_not_hold_is_refused(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    index = ["index", tiny_dataset, "--model", tiny_model, "--output", tmp_path / "small"]
    assert run_cli(*index, "--quantize", "int8", "--truncate-dim", "16").exit_code == 0
    search, again = ["search", tmp_path / "small", "river"], [*index, "--overwrite"]
    add = ["index", tiny_dataset, "--output", tmp_path / "small", "--add"]
    for arguments, message in [
        ([*search, "--quantize", "none"], "an exact index of 16 dimensions, stored as int8"),
        ([*search, "--truncate-dim", "32"], "an exact index of 16 dimensions, stored as int8"),
        ([*add, "--quantize", "int8"], "leave out --truncate-dim"),
        ([*again, "--kind", "hnsw", "--quantize", "binary"], "an hnsw index does not store binary vectors"),
        ([*again, "--kind", "ivfpq", "--quantize", "int8"], "an ivfpq index does not store int8 vectors"),
        ([*again, "--truncate-dim", "33"], "cannot truncate to 33 dimensions"),
        ([*again, "--calibrate", tiny_dataset], "--calibrate has no effect"),
    ]:
        result = run_cli(*arguments)
        assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
    same = run_cli("search", tmp_path / "small", "river", "--quantize", "int8", "--truncate-dim", "16")
    assert same.exit_code == 0, same.stderr


@pytest.mark.parametrize("quantize", ["int8", "binary"])
def test_encoded_files_are_those_of_sentence_transformers(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: RunCli, quantize: str
) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util.quantization import quantize_embeddings

    done = run_cli("encode", tiny_dataset, "--model", tiny_model, "--output", tmp_path / "out", "--truncate-dim", "16",
                   "--quantize", quantize)  # fmt: skip
    assert done.exit_code == 0, done.stderr
    dataset, model = load_dataset(tiny_dataset), SentenceTransformer(str(tiny_model), device="cpu", truncate_dim=16)
    rows = model.encode([item.content for item in dataset.corpus])
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).min() > 0.01  # cut after Normalize
    written, manifest = np.load(tmp_path / "out/corpus.npy"), json.loads((tmp_path / "out/manifest.json").read_text())
    precision: Any = {"int8": "int8", "binary": "ubinary"}[quantize]
    expected = quantize_embeddings(rows, precision=precision, ranges=np.array([rows.min(0), rows.max(0)]))
    assert (written.dtype, written.shape) == (expected.dtype, expected.shape)
    assert np.mean(written == expected) > 0.99  # embeddings differ in their last bits, padded in other chunks
    if quantize == "int8":
        assert np.abs(written.astype(int) - expected).max() <= 1
        np.testing.assert_allclose(np.load(tmp_path / "out/calibration.npy"), [rows.min(0), rows.max(0)], atol=1e-5)
    assert (manifest["dimension"], manifest["quantize"], manifest["bytes"]) == (16, quantize, written.nbytes // 60)
    queries = np.load(tmp_path / "out/queries.npy")
    assert (queries.dtype, queries.shape) == (np.float32, (30, 16))
