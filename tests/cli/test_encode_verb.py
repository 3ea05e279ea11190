from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedtune.models.encoder import Encoder

RunCli = Callable[..., Any]


def test_embeddings_are_written_with_their_ids(
    run_cli: RunCli, tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    result = run_cli(
        "encode", tiny_dataset, "--model", tiny_model, "--output", tmp_path / "out", "--quantize", "float16", "--json"
    )
    assert result.exit_code == 0, result.stderr
    assert (
        result.stderr.splitlines()[-1]
        == f"{tmp_path}/out: 60 documents, 30 queries, 32 dimensions, 64 bytes a document"
    )
    shown = json.loads(result.stdout)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert shown == {"output": str(tmp_path / "out"), **manifest}
    first = json.loads((tiny_dataset / "corpus.jsonl").read_text().splitlines()[0])
    assert (tmp_path / "out/corpus.ids").read_text().splitlines()[0] == first["_id"]
    rows = np.load(tmp_path / "out/corpus.npy")
    assert rows.dtype == np.float16
    expected = SentenceTransformer(str(tiny_model), device="cpu").encode([f"{first['title']} {first['text']}"])[0]
    assert np.allclose(rows[0], expected, atol=1e-3)


def test_long_documents_are_encoded_by_passages(
    run_cli: RunCli, tiny_model: Path, tmp_path: Path, tiny_dataset: Path
) -> None:
    file = tmp_path / "documents.jsonl"
    texts = {"long": " ".join(["river old engine new"] * 10), "short": "bread"}
    file.write_text("".join(json.dumps({"_id": name, "text": text}) + "\n" for name, text in texts.items()))
    command = ["encode", file, "--model", tiny_model, "--passages", "16", "--stride", "4", "--output", tmp_path / "out"]
    result = run_cli(*command)
    assert result.exit_code == 0, result.stderr
    ids, spans = (tmp_path / "out/corpus.ids").read_text().split(), np.load(tmp_path / "out/corpus.spans.npy")
    assert ids == ["long#0", "long#1", "long#2", "short#0"]
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert (manifest["corpus"], manifest["passages"]) == (4, {"tokens": 16, "stride": 4})
    rows, parts = np.load(tmp_path / "out/corpus.npy"), tmp_path / "parts.jsonl"
    cut = [texts[name.partition("#")[0]][start:end] for name, (start, end) in zip(ids, spans, strict=True)]
    parts.write_text("".join(json.dumps({"_id": str(n), "text": text}) + "\n" for n, text in enumerate(cut)))
    assert run_cli("encode", parts, "--model", tiny_model, "--output", tmp_path / "each").exit_code == 0
    np.testing.assert_allclose(rows, np.load(tmp_path / "each/corpus.npy"), atol=1e-6)


def test_an_output_that_exists_is_refused(
    run_cli: RunCli, tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").touch()
    result = run_cli("encode", tiny_dataset, "--model", tiny_model, "--output", tmp_path / "out")
    assert (result.exit_code, result.stderr) == (
        2,
        f"error: {tmp_path}/out: exists already and is no earlier result of this command; choose another --output\n",
    )


def test_a_folder_that_is_no_model_is_named(run_cli: RunCli, tiny_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run_cli("encode", tiny_dataset, "--model", tmp_path / "empty", "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: model {tmp_path}/empty: not a model folder")


def test_the_chunk_holds_as_many_tokens_as_asked_for(
    run_cli: RunCli, tiny_model: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: dict[str, list[int]] = {"encode": [], "eval": [], "index": [], "mine": []}
    forward = Encoder.forward

    def counted(self: Encoder, chunk: Any, role: Any) -> Any:
        sizes[verb].append(len(chunk) * max(item.length for item in chunk))
        return forward(self, chunk, role)

    monkeypatch.setattr(Encoder, "forward", counted)
    for verb in sizes:
        output = tmp_path / (f"{verb}.run" if verb == "mine" else verb)
        parts = [tiny_model, "--data", tiny_dataset] if verb == "eval" else [tiny_dataset, "--model", tiny_model]
        monkeypatch.setenv("EMBEDTUNE_CACHE", str(tmp_path / f"cache-{verb}"))
        result = run_cli(verb, *parts, "--output", output, "--chunk-tokens", "96")
        assert result.exit_code == 0, result.stderr
    assert all(max(tokens) <= 96 and len(tokens) > 4 for tokens in sizes.values()), sizes
