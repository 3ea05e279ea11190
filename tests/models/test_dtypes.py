"""The number format of weights: as in the checkpoint where they stay frozen, 4 bits on demand, float32 for the rest."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Result
from safetensors.torch import load_file
from tiny_models import learned

from embedtune.errors import InputError
from embedtune.models import adapters, dtypes
from embedtune.models.encoder import Encoder, load_encoder
from embedtune.models.loading import load_model
from embedtune.recipe import Lora, Model, Recipe, check_recipe
from embedtune.train.run import train
from embedtune.types import Item

CPU = torch.device("cpu")
ITEMS = [Item(id=str(i), text=text) for i, text in enumerate(["the old river", "bread is new 3", "winter"])]
HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.fixture(scope="module")
def halves(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny BERT as its publisher would save it in 16 bits."""
    from sentence_transformers import SentenceTransformer

    folders = {}
    for name, dtype in HALVES.items():
        folders[name] = tmp_path_factory.mktemp("halves") / name
        model = SentenceTransformer(str(tiny_model), device="cpu").to(dtype)
        model.save_pretrained(str(folders[name]), create_model_card=False)
    return folders


def recipe_of(model: Path, data: Path, *, lora: bool = True, dtype: str = "auto", **train: Any) -> Recipe:
    block = {"name": str(model), "dtype": dtype, **({"lora": {"rank": 4}} if lora else {})}
    settings = {"batch_size": 6, "epochs": 8, "max_steps": 3, "learning_rate": 5e-3, "precision": "bf16", **train}
    return check_recipe({"version": 1, "model": block, "data": {"train": str(data)}, "train": settings})


def frozen_dtypes(encoder: Encoder) -> set[torch.dtype]:
    return {p.dtype for p in encoder.model.parameters() if not p.requires_grad}


@pytest.mark.parametrize(
    ("asked", "stored", "frozen_in", "expected"),
    [
        ("auto", "bfloat16", "bf16", "bfloat16"),
        ("auto", "float16", "fp16", "float16"),
        ("auto", "bfloat16", "fp32", "float32"),
        ("auto", "bfloat16", "fp16", "float32"),
        ("auto", "float16", "bf16", "float32"),
        ("auto", "float32", "bf16", "float32"),
        ("auto", "bfloat16", None, "float32"),
        ("float32", "bfloat16", "bf16", "float32"),
        ("bfloat16", "float32", "bf16", "bfloat16"),
        ("bfloat16", "float32", None, "float32"),
        ("4bit", "float32", "fp32", "4bit"),
    ],
)
def test_auto_is_the_checkpoints_format_where_the_precision_computes_in_it(
    asked: Any, stored: Any, frozen_in: Any, expected: str
) -> None:
    assert dtypes.resolve_dtype(asked, stored, frozen_in) == expected


def test_a_format_that_the_precision_does_not_compute_in_is_refused(tiny_model: Path, tiny_dataset: Path) -> None:
    with pytest.raises(InputError, match=r"model\.dtype: weights in bfloat16 want precision bf16, and it is fp32 here"):
        load_encoder(Model(name=str(tiny_model), dtype="bfloat16"))
    with pytest.raises(InputError, match=r"float16 want train\.precision: fp16, and it is bf16"):
        recipe_of(tiny_model, tiny_dataset, dtype="float16")
    with pytest.raises(InputError, match=r"model\.dtype: has no effect without model\.lora or frozen towers"):
        recipe_of(tiny_model, tiny_dataset, lora=False, dtype="bfloat16")


@pytest.mark.parametrize("dtype", HALVES)
def test_the_format_is_read_from_the_weights_themselves(dtype: str, halves: dict[str, Path], tiny_model: Path) -> None:
    assert dtypes.stored_dtype(halves[dtype]) == dtype
    assert dtypes.stored_dtype(tiny_model) == "float32"
    assert dtypes.dtype_in_files(load_model(Model(name=str(halves[dtype])), CPU)) == dtype


def test_lora_on_a_checkpoint_in_bfloat16_freezes_it_as_it_is(
    halves: dict[str, Path], tiny_dataset: Path, tmp_path: Path
) -> None:
    run = train(recipe_of(halves["bfloat16"], tiny_dataset, chunk_size=4), tmp_path / "run")
    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["dtype"] == "bfloat16"
    checkpoint = max((run.folder / "checkpoints").iterdir())
    for group in ("weights", "optimizer"):
        assert {tensor.dtype for tensor in load_file(checkpoint / f"{group}.safetensors").values()} == {torch.float32}
    stored = load_file(run.model / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert json.loads((run.model / "config.json").read_text())["dtype"] == "bfloat16"
    assert {t.dtype for t in load_file(run.folder / "adapter" / adapters.WEIGHTS).values()} == {torch.float32}
    # Merged in float32 and rounded once.
    merged = load_encoder(str(run.folder / "adapter")).model[0].model.state_dict()
    for name, tensor in stored.items():
        torch.testing.assert_close(tensor, merged[name].bfloat16(), rtol=0, atol=0)
    other = recipe_of(halves["bfloat16"], tiny_dataset, chunk_size=4)
    (run.folder / "environment.json").write_text(json.dumps({**environment, "dtype": "float32"}))
    (run.folder / "summary.json").unlink()
    with pytest.raises(InputError, match="started with weights in float32, and they are in bfloat16 here"):
        train(other, run.folder, resume=True)


def test_weights_in_bfloat16_learn_what_weights_in_float32_learn(
    halves: dict[str, Path], tiny_dataset: Path, tmp_path: Path
) -> None:
    losses = {}
    for dtype in ("float32", "auto"):
        run = train(recipe_of(halves["bfloat16"], tiny_dataset, dtype=dtype, max_steps=8), tmp_path / dtype)
        lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
        losses[dtype] = np.array([line["loss"] for line in lines if "loss" in line])
    np.testing.assert_allclose(losses["auto"], losses["float32"], atol=0.03)
    assert losses["auto"].min() < 0.7 * losses["auto"][0]


def test_one_model_has_one_identity_in_both_formats_and_embeddings_of_its_own(halves: dict[str, Path]) -> None:
    folder = str(halves["bfloat16"])
    low, whole = (load_encoder(Model(name=folder, dtype=dtype), precision="bf16") for dtype in ("auto", "float32"))
    assert (low.dtype, whole.dtype) == ("bfloat16", "float32")
    assert low.identity == whole.identity
    assert low.fingerprint != whole.fingerprint
    exact = load_encoder(folder).encode(ITEMS, "query")
    for encoder in (low, whole):
        np.testing.assert_allclose(encoder.encode(ITEMS, "query"), exact, atol=0.02)


def test_a_saved_model_has_its_checkpoints_format_and_keeps_its_weights(
    halves: dict[str, Path], tmp_path: Path
) -> None:
    from embedtune.models.saving import save_model

    model = load_model(Model(name=str(halves["bfloat16"])), CPU)
    with torch.no_grad():
        next(model.parameters()).add_(1e-4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_model(model, tmp_path / "saved")
    assert {t.dtype for t in load_file(tmp_path / "saved" / "model.safetensors").values()} == {torch.bfloat16}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def write_adapter(base: Path, folder: Path) -> Path:
    encoder = load_encoder(str(base))
    adapters.attach(encoder.model, Lora(rank=2), str(base))
    learned(encoder.model)
    adapters.save_adapter(encoder.model, folder)
    return folder


def test_an_adapter_is_merged_in_float32_and_rounded_then(halves: dict[str, Path], tmp_path: Path) -> None:
    folder = write_adapter(halves["bfloat16"], tmp_path)
    low, whole = load_encoder(str(folder), precision="bf16"), load_encoder(str(folder))
    assert (low.dtype, whole.dtype) == ("bfloat16", "float32")
    exact = dict(whole.model.named_parameters())
    for name, parameter in low.model.named_parameters():
        assert torch.equal(parameter, exact[name].bfloat16())


def test_a_composed_model_keeps_its_projections_in_float32(
    image_models: dict[str, Path], tmp_path: Path, tiny_dataset: Path
) -> None:
    block: Any = {"text": str(image_models["words"]), "image": str(image_models["vit"]), "dimension": 8}
    model = load_model(Model(compose=block_of(block), dtype="bfloat16", lora=Lora()), CPU, frozen_in="bf16")
    kinds = {name: p.dtype for name, p in model.named_parameters()}
    assert {kind for name, kind in kinds.items() if ".linear." in name} == {torch.float32}
    assert {kind for name, kind in kinds.items() if ".model." in name} == {torch.bfloat16}


def block_of(values: dict[str, Any]) -> Any:
    from embedtune.recipe import Compose

    return Compose(**values)


# 4 bits


@pytest.fixture
def bitsandbytes() -> Any:
    return pytest.importorskip("bitsandbytes", reason="pip install 'embedtune[4bit]'")


def test_4bit_weights_are_quantised_and_lora_is_not(bitsandbytes: Any, tiny_model: Path) -> None:
    model = load_model(Model(name=str(tiny_model), dtype="4bit", lora=Lora(rank=4)), CPU, frozen_in="bf16")
    encoder = Encoder(model, "tiny", "bf16", cached=False)
    assert encoder.dtype == "4bit"
    query = model[0].model.encoder.layer[0].attention.self.query
    assert (query.weight.dtype, query.weight.quant_type) == (torch.uint8, "nf4")
    adapters.attach(model, Lora(rank=4), str(tiny_model))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert torch.uint8 in frozen_dtypes(encoder)
    exact = load_encoder(str(tiny_model)).encode(ITEMS, "query")
    assert 1e-4 < np.abs(encoder.encode(ITEMS, "query") - exact).max() < 0.2
    # A gradient reaches the first layer after an inference.
    for chunk in (encoder.prepare(ITEMS, "query"),):
        encoder.forward(chunk, "query").float()[:, 0].sum().backward()
    gradients = [p.grad for name, p in model.named_parameters() if "layer.0." in name and "lora_B" in name]
    assert gradients
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)


def test_a_run_on_4bit_weights_is_merged_into_the_whole_ones(
    bitsandbytes: Any, tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    losses = []
    run = train(
        recipe_of(tiny_model, tiny_dataset, dtype="4bit", chunk_size=4, max_steps=24),
        tmp_path / "run",
        on_event=lambda event: losses.append(event["loss"]) if "loss" in event else None,
    )
    assert losses[-1] < 0.9 * losses[0]
    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["dtype"] == "4bit"
    assert "bitsandbytes" in environment["versions"]
    merged = load_encoder(str(run.folder / "adapter")).model[0].model.state_dict()  # the base in float32
    stored = load_file(run.model / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
    for name, tensor in stored.items():
        torch.testing.assert_close(tensor, merged[name], rtol=0, atol=1e-6)


def test_4bit_is_refused_with_the_install_line_where_it_is_absent(
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_dataset: Path,
    tmp_path: Path,
    run_cli: Callable[..., Result],
) -> None:
    monkeypatch.setattr(dtypes, "find_spec", lambda name: None)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"version: 1\nmodel: {{name: {tiny_model}, lora: {{rank: 2}}, dtype: 4bit}}\ndata: {{train: {tiny_dataset}}}\n"
        "train: {batch_size: 6}\n"
    )
    result = run_cli("train", recipe, "--output", tmp_path / "run")
    line = "error: model.dtype: 4bit needs bitsandbytes; try: pip install 'embedtune[4bit]'\n"
    assert (result.exit_code, result.stderr.endswith(line)) == (2, True), result.stderr
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_4bit_is_refused_in_one_line_where_it_does_not_run(
    bitsandbytes: Any, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **options: Any) -> Any:
        raise RuntimeError("no kernel image\nfor this device")

    monkeypatch.setattr("bitsandbytes.nn.Linear4bit", broken)
    with pytest.raises(InputError, match=re.escape("4bit does not run on cpu here (no kernel image); take another")):
        load_model(Model(name=str(tiny_model), dtype="4bit", lora=Lora()), CPU, frozen_in="bf16")


def test_an_adapter_folder_is_not_read_in_4bit(bitsandbytes: Any, tiny_model: Path, tmp_path: Path) -> None:
    folder = write_adapter(tiny_model, tmp_path)
    with pytest.raises(InputError, match=r"4bit reads a whole model.*embedtune export .* --output MODEL"):
        load_model(Model(name=str(folder), dtype="4bit", lora=Lora()), CPU, frozen_in="bf16")
