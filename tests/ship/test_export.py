"""`embedtune export`: other number formats and ONNX graphs, with what they cost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Result
from safetensors.torch import load_file
from tiny_models import WORDS, tokenizer

from embedtune.models.encoder import load_encoder
from embedtune.ship import costs, export, onnx
from embedtune.types import Item

RunCli = Callable[..., Result]


@pytest.fixture
def onnxruntime(monkeypatch: pytest.MonkeyPatch) -> Any:
    for package in onnx.PACKAGES[:2]:
        pytest.importorskip(package, reason="pip install 'embedtune[onnx]'")
    monkeypatch.setattr(costs, "TEXTS", 40)
    return pytest.importorskip("onnxruntime", reason="pip install 'embedtune[onnx]'")


def forms_of(result: Result) -> dict[str, dict[str, Any]]:
    assert result.exit_code == 0, result.stderr
    return {form.pop("form"): form for form in json.loads(result.stdout)["forms"]}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_number_format_with_its_cost(
    dtype: str, tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "TEXTS", 40)
    options = ["--output", tmp_path / "out", "--dtype", dtype, "--data", tiny_dataset, "--json"]
    forms = forms_of(run_cli("export", tiny_model, *options))
    assert list(forms) == ["model, float32", f"model, {dtype}"]
    whole, low = forms.values()
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {
        getattr(torch, dtype)
    }
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == dtype
    assert low["MB"] < 0.6 * whole["MB"]
    assert (whole["lowest cosine"], whole["mean cosine"]) == (None, None)
    assert 0.999 < low["lowest cosine"] < 1 - 1e-12
    assert low["lowest cosine"] <= low["mean cosine"] <= 1
    assert low["tiny nDCG@10"] == pytest.approx(whole["tiny nDCG@10"], abs=0.05)


def test_options_that_do_not_go_together(tiny_model: Path, tmp_path: Path, run_cli: RunCli) -> None:
    refused = {
        ("--dtype", "int8"): "--dtype int8: --format safetensors takes auto, float32, bfloat16, float16",
        ("--format", "onnx", "--dtype", "float16"): "--dtype float16: --format onnx takes auto, float32, int8",
        ("--data", "x"): "--data has no effect without another --dtype or --format onnx",
    }
    for options, sentence in refused.items():
        result = run_cli("export", tiny_model, "--output", tmp_path / "out", *options)
        assert (result.exit_code, result.stderr) == (2, f"error: {sentence}\n")
    assert not (tmp_path / "out").exists()


def test_without_the_packages_one_line_says_what_to_install(
    tiny_model: Path, tmp_path: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "find_spec", lambda name: None)
    result = run_cli("export", tiny_model, "--output", tmp_path / "out", "--format", "onnx")
    sentence = "--format onnx: needs onnx, onnxscript, onnxruntime; try: pip install 'embedtune[onnx]'"
    assert (result.exit_code, result.stderr) == (2, f"error: {sentence}\n")


def test_sample_texts_are_of_all_lengths() -> None:
    counts = [len(item.text.split()) for item in costs.sample_items(256)]
    assert (len(counts), counts[0], counts[-1]) == (300, 1, 256)
    assert len(set(counts)) == 256
    assert costs.sample_items(256) == costs.sample_items(256)


def test_a_graph_gives_the_models_embeddings(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: RunCli, onnxruntime: Any
) -> None:
    options = ["--output", tmp_path / "out", "--format", "onnx", "--dtype", "int8", "--data", tiny_dataset, "--json"]
    forms = forms_of(run_cli("export", tiny_model, *options))
    assert list(forms) == ["model, float32", "onnx/model.onnx, float32", "onnx/model_quantized.onnx, int8"]
    assert forms["onnx/model.onnx, float32"]["lowest cosine"] > 0.999999
    assert forms["onnx/model.onnx, float32"]["tiny nDCG@10"] == forms["model, float32"]["tiny nDCG@10"]
    assert forms["onnx/model_quantized.onnx, int8"]["lowest cosine"] > 0.9
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "onnx" / "model.onnx"))
    assert {entry.name: entry.shape for entry in session.get_outputs()} == {
        "last_hidden_state": ["batch", "length", 32],
        "sentence_embedding": ["batch", 32],
    }
    encoder = load_encoder(str(tmp_path / "out"))  # the folder still opens as a model
    features = encoder.model.preprocess(["the old river", "bread is new 3 " * 30])
    inputs = {entry.name: features[entry.name].numpy() for entry in session.get_inputs()}
    (vectors,) = session.run(["sentence_embedding"], inputs)
    items = [Item(id="a", text="the old river"), Item(id="b", text="bread is new 3 " * 30)]
    np.testing.assert_allclose(vectors, encoder.encode(items, "document"), atol=1e-5)


@pytest.mark.slow
def test_other_kinds_of_models_as_graphs(tmp_path: Path, bare_checkpoint: Path, onnxruntime: Any) -> None:
    """A decoder pooled at its last token, a cut embedding behind a Dense module, an encoder without token types."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
    from transformers import ModernBertConfig, ModernBertModel, Qwen3Config, Qwen3Model

    sizes = {"vocab_size": len(WORDS), "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    sizes |= {"max_position_embeddings": 64, "pad_token_id": 0, "num_hidden_layers": 2}
    models = {
        "decoder": (Qwen3Model(Qwen3Config(**sizes, num_key_value_heads=2, head_dim=16)), "lasttoken"),
        "encoder": (ModernBertModel(ModernBertConfig(**sizes)), "cls"),
    }
    for name, (bare, _) in models.items():
        bare.save_pretrained(tmp_path / name)
        tokenizer(length=64).save_pretrained(tmp_path / name)
    places = {name: (tmp_path / name, pooling) for name, (_, pooling) in models.items()}
    places["dense"] = (bare_checkpoint, "mean")
    for name, (folder, pooling) in places.items():
        more = [Dense(32, 16)] if name == "dense" else []
        modules = [Transformer(str(folder)), Pooling(32, pooling), *more, Normalize()]
        model = SentenceTransformer(modules=modules, device="cpu", truncate_dim=8 if name == "dense" else None)
        model.save_pretrained(str(tmp_path / f"{name}-saved"))
        exported = export.export(
            str(tmp_path / f"{name}-saved"), tmp_path / f"{name}-onnx", target=export.Target(form="onnx")
        )
        assert exported.costs[1].lowest is not None
        assert exported.costs[1].lowest > 0.9999, name


def test_a_graph_with_other_embeddings_is_not_kept(
    tiny_model: Path, tmp_path: Path, run_cli: RunCli, onnxruntime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = onnx._Graph.forward

    def other(self: Any, *inputs: Any) -> Any:
        tokens, texts = forward(self, *inputs)
        return tokens, texts + 0.05

    monkeypatch.setattr(onnx._Graph, "forward", other)
    result = run_cli("export", tiny_model, "--output", tmp_path / "out", "--format", "onnx")
    assert result.exit_code == 1
    assert result.stderr.startswith("missed: --format onnx: the graph's embeddings are not the model's: cosine 0.")
    assert not list(tmp_path.iterdir())


def test_what_is_no_graph_of_tokens_is_refused(
    tiny_model: Path, image_models: dict[str, Path], tmp_path: Path, run_cli: RunCli, onnxruntime: Any
) -> None:
    without_prompt = tmp_path / "without-prompt"
    shutil.copytree(tiny_model, without_prompt)
    pooling = without_prompt / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({**json.loads(pooling.read_text()), "include_prompt": False}))
    for folder, problem in (
        (image_models["clip"], "reads images; expected one text model"),
        (without_prompt, "leaves its prompt out of the pooling"),
    ):
        result = run_cli("export", folder, "--output", tmp_path / "out", "--format", "onnx")
        assert result.exit_code == 2
        assert problem in result.stderr
        assert not (tmp_path / "out").exists()
