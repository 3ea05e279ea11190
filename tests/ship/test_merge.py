"""`embedtune merge` and `embedtune export`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Result, write_dataset
from safetensors.torch import load_file, save_file

from embedtune.data.dataset import load_dataset
from embedtune.models import adapters
from embedtune.models.encoder import load_encoder
from embedtune.recipe import check_recipe
from embedtune.train.run import TrainedRun, train

RunCli = Callable[..., Result]


@pytest.fixture(scope="module")
def tuned(tiny_model: Path, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    recipe = check_recipe(
        {
            "version": 1,
            "model": {"name": str(tiny_model), "lora": {"rank": 2}},
            "data": {"train": str(tiny_dataset)},
            "train": {"batch_size": 6, "epochs": 2, "learning_rate": 5e-2},
        }
    )
    return train(recipe, tmp_path_factory.mktemp("merge") / "run")


def embeddings(model: Path, data: Path) -> np.ndarray:
    return np.array(load_encoder(str(model)).encode(load_dataset(data).corpus, "document"))


def test_half_way(tiny_model: Path, tuned: TrainedRun, tmp_path: Path, run_cli: RunCli) -> None:
    result = run_cli("merge", tiny_model, tuned.model, "--alpha", "0.5", "--output", tmp_path / "half")
    assert result.exit_code == 0, result.stderr
    base, after, half = (load_file(path / "model.safetensors") for path in (tiny_model, tuned.model, tmp_path / "half"))
    for name, tensor in half.items():
        torch.testing.assert_close(tensor, (base[name] + after[name]) / 2, atol=1e-6, rtol=0)
    again = run_cli("merge", tiny_model, tuned.model, "--alpha", "0.5", "--output", tmp_path / "half")
    assert (again.exit_code, again.stderr.count("exists already; choose another --output")) == (2, 1)


def test_an_adapter_stays_one(
    tiny_model: Path, tuned: TrainedRun, tiny_dataset: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    for tuned_folder, name in ((tuned.folder / "adapter", "adapter"), (tuned.model, "model")):
        result = run_cli("merge", tiny_model, tuned_folder, "--alpha", "0.25", "--output", tmp_path / name)
        assert result.exit_code == 0, result.stderr
    assert (tmp_path / "adapter" / "adapter_config.json").exists()
    found = [embeddings(tmp_path / name, tiny_dataset) for name in ("adapter", "model")]
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


@pytest.mark.parametrize("init", ["pissa", "olora", "dora"])
def test_an_adapter_that_changes_its_base_is_mixed_by_full_weights(
    init: str, tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    from peft import LoraConfig, get_peft_model

    options: dict[str, Any] = {"use_dora": True} if init == "dora" else {"init_lora_weights": init}
    backbone = load_encoder(str(tiny_model)).model[0].model
    torch.manual_seed(0)
    with adapters.quiet():
        adapted: Any = get_peft_model(backbone, LoraConfig(r=2, target_modules=["value", "dense"], **options))
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.3)
        adapted.peft_config["default"].base_model_name_or_path = str(tiny_model)
        adapted.save_pretrained(str(tmp_path / "adapter"))
    for alpha in ("0", "0.5", "1"):
        result = run_cli("merge", tiny_model, tmp_path / "adapter", "--alpha", alpha, "--output", tmp_path / alpha)
        assert result.exit_code == 0, result.stderr
    np.testing.assert_allclose(
        embeddings(tmp_path / "0", tiny_dataset), embeddings(tiny_model, tiny_dataset), atol=1e-6
    )
    tuned = embeddings(tmp_path / "adapter", tiny_dataset)
    assert np.abs(tuned - embeddings(tiny_model, tiny_dataset)).max() > 0.01
    np.testing.assert_allclose(embeddings(tmp_path / "1", tiny_dataset), tuned, atol=1e-6)
    none, half, whole = (load_file(tmp_path / alpha / "model.safetensors") for alpha in ("0", "0.5", "1"))
    for name, tensor in half.items():
        torch.testing.assert_close(tensor, (none[name] + whole[name]) / 2, atol=1e-6, rtol=0)


def test_the_adapter_of_a_sentence_transformers_folder_is_scaled_with_all_its_files(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    from peft import LoraConfig
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tiny_model), device="cpu")
    torch.manual_seed(0)
    model.add_adapter(LoraConfig(r=2, target_modules=["value"], init_lora_weights=False))
    model.save_pretrained(str(tmp_path / "lora"))
    result = run_cli("merge", tiny_model, tmp_path / "lora", "--alpha", "0", "--output", tmp_path / "none")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "none" / "1_Pooling" / "config.json").exists()
    base = embeddings(tiny_model, tiny_dataset)
    np.testing.assert_allclose(embeddings(tmp_path / "none", tiny_dataset), base, atol=1e-6)
    assert np.abs(embeddings(tmp_path / "lora", tiny_dataset) - base).max() > 1e-3


@pytest.mark.parametrize("kind", ["lora", "dora", "bias", "trainable_token_indices", "full"])
def test_a_bare_base_takes_the_tuned_models_modules(
    kind: str, bare_checkpoint: Path, tiny_dataset: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    from peft import LoraConfig
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer

    options: dict[str, dict[str, Any]] = {
        "dora": {"use_dora": True},
        "bias": {"bias": "all"},
        "trainable_token_indices": {"trainable_token_indices": [2, 4]},
    }
    torch.manual_seed(0)
    modules = [Transformer(str(bare_checkpoint)), Pooling(32, "cls"), Dense(32, 16)]
    model = SentenceTransformer(modules=modules, device="cpu")
    model.save_pretrained(str(tmp_path / "base"))
    if kind != "full":
        model.add_adapter(LoraConfig(r=2, target_modules=["value"], **options.get(kind, {})))
    with torch.no_grad():
        for parameter in model[0].parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(str(tmp_path / "tuned"))
    copy = shutil.copytree(bare_checkpoint, tmp_path / "copy")  # another name of the same weights
    for alpha, base in (("0", bare_checkpoint), ("1", copy)):
        result = run_cli("merge", base, tmp_path / "tuned", "--alpha", alpha, "--output", tmp_path / alpha)
        assert result.exit_code == 0, result.stderr
    base_vectors, tuned_vectors = (embeddings(tmp_path / name, tiny_dataset) for name in ("base", "tuned"))
    assert np.abs(tuned_vectors - base_vectors).max() > 1e-3
    np.testing.assert_allclose(embeddings(tmp_path / "0", tiny_dataset), base_vectors, atol=1e-6)
    np.testing.assert_allclose(embeddings(tmp_path / "1", tiny_dataset), tuned_vectors, atol=1e-6)


def test_chosen_by_foreign_sets(tiny_model: Path, tuned: TrainedRun, tmp_path: Path, run_cli: RunCli) -> None:
    foreign = write_dataset(tmp_path / "foreign", documents=70, queries=33, seed=7)
    result = run_cli(
        "merge", tiny_model, tuned.model, "--choose-on", foreign, "--largest-drop", "0.02", "--alphas", "0",
        "--alphas", "0.5", "--alphas", "1", "--output", tmp_path / "chosen", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert [point["alpha"] for point in found["curve"]] == [0, 0.5, 1]
    assert found["alpha"] == max(point["alpha"] for point in found["curve"] if point["fits"])
    assert found["sets"]["foreign"]["queries"] == 6


def test_what_is_refused(
    tiny_model: Path, tuned: TrainedRun, bare_checkpoint: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    neither = run_cli("merge", tiny_model, tuned.model, "--output", tmp_path / "x")
    assert (neither.exit_code, neither.stderr) == (2, "error: expected --alpha or --choose-on, one of them\n")
    unused = run_cli("merge", tiny_model, tuned.model, "--alpha", "1", "--alphas", "0.5", "--output", tmp_path / "x")
    assert (unused.exit_code, unused.stderr) == (2, "error: --alphas has no effect without --choose-on\n")
    unused = run_cli(
        "merge", tiny_model, tuned.model, "--alpha", "1", "--precision", "bf16", "--output", tmp_path / "x"
    )
    assert (unused.exit_code, unused.stderr) == (2, "error: --precision has no effect without --choose-on\n")
    other = tmp_path / "other"
    encoder = load_encoder(str(tiny_model))
    encoder.model.save_pretrained(str(other), create_model_card=False)
    changed = {name: tensor + 1 for name, tensor in load_file(other / "model.safetensors").items()}
    save_file(changed, other / "model.safetensors", {"format": "pt"})
    wrong = run_cli("merge", other, tuned.folder / "adapter", "--alpha", "1", "--output", tmp_path / "x")
    assert wrong.exit_code == 2
    assert f"was trained on {tiny_model}, whose weights are not those of {other}; name that one" in wrong.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("inside", ["", "model", "adapter"])
def test_export_gives_the_merged_model(
    tuned: TrainedRun, tiny_dataset: Path, tmp_path: Path, run_cli: RunCli, inside: str
) -> None:
    result = run_cli("export", tuned.folder / inside, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == f"written: {tmp_path / 'out'}\n"
    np.testing.assert_allclose(
        embeddings(tmp_path / "out", tiny_dataset), embeddings(tuned.model, tiny_dataset), atol=1e-6
    )


def test_a_result_is_not_written_over_what_it_is_made_from(tiny_model: Path, tmp_path: Path, run_cli: RunCli) -> None:
    output = tmp_path / "out"
    for command in (["export", output], ["merge", output, tiny_model, "--alpha", "0.5"]):
        made_from = [tiny_model if part == output else part for part in command]
        assert run_cli(*made_from, "--output", output).exit_code == 0
        before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
        result = run_cli(*command, "--output", output, "--overwrite")
        assert (result.exit_code, result.stderr) == (
            2,
            f"error: {output}: the result is made from {output}; choose another --output\n",
        )
        assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
        shutil.rmtree(output)


def test_export_says_what_is_missing(tuned: TrainedRun, tmp_path: Path, run_cli: RunCli) -> None:
    pushed = run_cli("export", tuned.folder, "--output", tmp_path / "out", "--push-to", "me/model")
    assert pushed.exit_code == 2  # tests are offline
    assert f"--push-to me/model: {tmp_path / 'out'} is written, but cannot be uploaded" in pushed.stderr
    assert (tmp_path / "out" / "model.safetensors").exists()
