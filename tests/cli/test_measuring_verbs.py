"""`eval`, `encode`, `merge` and `export` on models as others save them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedtune.data.dataset import load_dataset

RunCli = Callable[..., Any]


@pytest.fixture(scope="module")
def truncated(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model (32 dimensions) saved with truncate_dim 16."""
    from sentence_transformers import SentenceTransformer

    folder = tmp_path_factory.mktemp("truncated") / "model"
    SentenceTransformer(str(tiny_model), device="cpu", truncate_dim=16).save_pretrained(str(folder))
    assert json.loads((folder / "config_sentence_transformers.json").read_text())["truncate_dim"] == 16
    return folder


def test_a_saved_truncation_holds_in_encode_and_eval(
    truncated: Path, tiny_dataset: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    from sentence_transformers import SentenceTransformer

    encoded = run_cli("encode", tiny_dataset, "--model", truncated, "--output", tmp_path / "encoded")
    assert encoded.exit_code == 0, encoded.stderr
    dataset, model = load_dataset(tiny_dataset), SentenceTransformer(str(truncated), device="cpu")
    expected = model.encode([item.content for item in dataset.corpus])  # not of unit length: cut after Normalize
    assert expected.shape == (60, 16)
    np.testing.assert_allclose(np.load(tmp_path / "encoded/corpus.npy"), expected, atol=1e-5)
    assert json.loads((tmp_path / "encoded/manifest.json").read_text())["dimension"] == 16

    measured = run_cli("eval", truncated, "--data", tiny_dataset, "--output", tmp_path / "out", "--json")
    assert measured.exit_code == 0, measured.stderr
    assert json.loads((tmp_path / "out/tiny/measures.json").read_text())["protocol"]["dimensions"] == 16
    wider = run_cli("eval", truncated, "--data", tiny_dataset, "--truncate-dim", "24")
    assert wider.exit_code == 2
    assert wider.stderr == f"error: cannot truncate to 24 dimensions: {truncated} has 16\n"


def test_truncating_on_the_command_line_is_as_truncating_in_the_model(
    truncated: Path, tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    for name, options in (("saved", [truncated]), ("flag", [tiny_model, "--truncate-dim", "16"])):
        result = run_cli("eval", *options, "--data", tiny_dataset, "--output", tmp_path / name)
        assert result.exit_code == 0, result.stderr
    found = [json.loads((tmp_path / name / "tiny/measures.json").read_text())["measures"] for name in ("saved", "flag")]
    assert found[0] == pytest.approx(found[1], abs=1e-9)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"a list"])
@pytest.mark.parametrize("verb", ["eval", "encode", "merge", "export"])
def test_damaged_weights_are_one_line_and_nothing_is_written(
    verb: str, content: bytes, tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    model = tmp_path / "damaged"
    shutil.copytree(tiny_model, model)
    (model / "model.safetensors").unlink()
    if content == b"a list":
        torch.save([1, 2], model / "pytorch_model.bin")
    else:
        (model / "pytorch_model.bin").write_bytes(content)
    arguments = {
        "eval": [model, "--data", tiny_dataset],
        "encode": [tiny_dataset, "--model", model],
        "merge": [tiny_model, model, "--alpha", "0.5"],
        "export": [model],
    }[verb]
    result = run_cli(verb, *arguments, "--output", tmp_path / "out")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert "pytorch_model.bin" in result.stderr
    assert not list((tmp_path / "out").rglob("*"))


@pytest.mark.parametrize("score", ["nan", "inf", "-inf", "x"])
def test_a_score_that_is_no_number_is_named_by_its_line(
    score: str, tiny_dataset: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    run = tmp_path / "bad.run"
    run.write_text(f"q0 Q0 d0 1 2.5 tag\nq0 Q0 d1 2 {score} tag\n")
    for arguments in (["eval", "--run", run], ["compare", run, run]):
        result = run_cli(*arguments, "--data", tiny_dataset)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"error: {run}:2: "), result.stderr
        assert len(result.stderr.splitlines()) == 1
