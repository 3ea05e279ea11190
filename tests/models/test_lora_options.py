"""LoRA's options: each has its effect, and the saved adapter gives peft alone the same embeddings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_dataset
from safetensors.torch import load_file

from embedtune.errors import InputError
from embedtune.models import adapters
from embedtune.models.encoder import Encoder, load_encoder
from embedtune.recipe import Lora, check_recipe
from embedtune.train.run import train
from embedtune.types import Item

TEXTS = ["the old river", "bread is new 3", "winter"]
ITEMS = [Item(id=str(i), text=text) for i, text in enumerate(TEXTS)]
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"rslora": True},
    "dora": {"dora": True},
    "gaussian": {"init": "gaussian"},
    "pissa": {"init": "pissa"},
    "pissa fast": {"init": "pissa_niter_4"},
    "pissa and rslora": {"init": "pissa", "rslora": True},
    "olora": {"init": "olora"},
    "layers": {"layers": [1]},
    "all-linear": {"target_modules": "all-linear"},
    "modules_to_save": {"modules_to_save": ["LayerNorm", "word_embeddings"]},
}


def attached(model: Path, **options: Any) -> Encoder:
    """The model with a fresh adapter of rank 4."""
    encoder = load_encoder(str(model), cached=False)
    torch.manual_seed(0)
    adapters.attach(encoder.model, Lora(rank=4, **options), str(model))
    return encoder


def learned(encoder: Encoder) -> Encoder:
    """With all that is trained moved at random."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in encoder.model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return encoder


def embeddings_by_peft(model: Path, adapter: Path) -> np.ndarray:
    """(3, H) of the plain transformers model with peft's adapter on it, pooled and normalised as the tiny model is."""
    from peft import PeftModel
    from transformers import AutoModel, AutoTokenizer

    with adapters.quiet():
        backbone = PeftModel.from_pretrained(AutoModel.from_pretrained(model), str(adapter)).eval()
    inputs = AutoTokenizer.from_pretrained(model)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = backbone(**inputs).last_hidden_state
    mask = inputs["attention_mask"].unsqueeze(-1)
    pooled = (hidden * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(pooled, dim=-1).numpy()


@pytest.mark.parametrize("name", OPTIONS)
def test_an_adapter_begins_as_the_base_and_opens_with_peft_alone(name: str, tiny_model: Path, tmp_path: Path) -> None:
    plain = load_encoder(str(tiny_model)).encode(ITEMS, "query")
    encoder = attached(tiny_model, **OPTIONS[name])
    np.testing.assert_allclose(encoder.encode(ITEMS, "query"), plain, atol=1e-5)
    expected = learned(encoder).encode(ITEMS, "query")
    assert np.abs(expected - plain).max() > 1e-3
    adapters.save_adapter(encoder.model, tmp_path)
    np.testing.assert_allclose(embeddings_by_peft(tiny_model, tmp_path), expected, atol=1e-5)
    np.testing.assert_allclose(load_encoder(str(tmp_path)).encode(ITEMS, "query"), expected, atol=1e-5)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_an_adapter_that_takes_parts_of_the_base_is_saved_as_the_difference(
    init: str, tiny_model: Path, tmp_path: Path
) -> None:
    encoder = attached(tiny_model, init=init)
    adapters.save_adapter(encoder.model, tmp_path / "fresh")
    fresh = load_encoder(str(tmp_path / "fresh")).model[0].model.state_dict()
    for name, tensor in load_encoder(str(tiny_model)).model[0].model.state_dict().items():
        assert torch.equal(fresh[name], tensor)  # nothing was learned: the base to the bit
    adapters.save_adapter(learned(encoder).model, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["init_lora_weights"]) == (8, True)
    assert adapters.scales(tmp_path / "adapter")
    adapters.scale_adapter(tmp_path / "adapter", tmp_path / "half", 0.5)
    base, half, whole = (
        load_encoder(str(path)).model[0].model.state_dict()
        for path in (tiny_model, tmp_path / "half", tmp_path / "adapter")
    )
    for name, tensor in half.items():
        torch.testing.assert_close(tensor, (base[name] + whole[name]) / 2, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["dora", "modules_to_save"])
def test_an_adapter_that_is_no_difference_of_weights_is_not_scaled(name: str, tiny_model: Path, tmp_path: Path) -> None:
    adapters.save_adapter(learned(attached(tiny_model, **OPTIONS[name])).model, tmp_path)
    assert not adapters.scales(tmp_path)


def test_rslora_scales_by_the_root_of_the_rank(tiny_model: Path) -> None:
    scales = []
    for rslora in (False, True):
        layer = attached(tiny_model, alpha=8.0, rslora=rslora).model[0].model.base_model.model.encoder.layer[0]
        scales.append(layer.attention.self.query.scaling["default"])
    assert scales == [8 / 4, 8 / 2]


def test_only_the_named_layers_are_adapted(tiny_model: Path) -> None:
    encoder = attached(tiny_model, layers=[1])
    trained = [name for name, p in encoder.model.named_parameters() if p.requires_grad]
    assert trained
    assert all(".layer.1." in name for name in trained)
    with pytest.raises(InputError, match=r"model\.lora\.layers: \[2, 7\] have no such modules; .* are \[0, 1\]"):
        attached(tiny_model, layers=[1, 2, 7])


def test_saved_modules_are_trained_whole_in_float32(tiny_model: Path, tmp_path: Path) -> None:
    encoder = attached(tiny_model, modules_to_save=["word_embeddings"])
    trained = {name: p for name, p in encoder.model.named_parameters() if p.requires_grad and "lora_" not in name}
    assert [name.rpartition("modules_to_save")[2] for name in trained] == [".default.weight"]
    assert {p.dtype for p in trained.values()} == {torch.float32}
    adapters.save_adapter(encoder.model, tmp_path)
    assert any("word_embeddings" in name for name in load_file(tmp_path / adapters.WEIGHTS))
    with pytest.raises(InputError, match=r"modules_to_save: unknown module 'word_embedings': did you mean 'word_emb"):
        attached(tiny_model, modules_to_save=["word_embedings"])


def test_what_does_not_go_together_is_refused_in_one_line(tiny_model: Path) -> None:
    def problem(**block: Any) -> str:
        model = {"name": str(tiny_model), **block}
        with pytest.raises(InputError) as raised:
            check_recipe({"version": 1, "model": model, "data": {"train": "d"}})
        return str(raised.value)

    assert "model.lora.dora: not with init: pissa" in problem(lora={"dora": True, "init": "pissa"})
    assert "model.lora.init: not with model.dtype: 4bit" in problem(lora={"init": "olora"}, dtype="4bit")
    assert "model.lora.init: expected" in problem(lora={"init": "eva"})
    assert "model.lora.init: expected" in problem(lora={"init": False})
    # its first product is 0 but for rounding, so that the untouched model is not the base to the bit
    assert "model.lora.init: expected" in problem(lora={"init": "orthogonal"})


@pytest.mark.parametrize("name", ["dora", "pissa", "olora", "modules_to_save"])
def test_a_run_saves_its_adapter_and_its_model_alike(
    name: str, tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    foreign = write_dataset(tmp_path / "foreign", documents=70, queries=33, seed=7)
    recipe = check_recipe(
        {
            "version": 1,
            "model": {"name": str(tiny_model), "lora": {"rank": 4, **OPTIONS[name]}},
            "data": {"train": str(tiny_dataset)},
            "train": {"batch_size": 6, "max_steps": 4, "learning_rate": 5e-3, "chunk_size": 4},
            "evaluate": {
                "out_of_domain": [str(foreign)],
                "guard": {"largest_drop": 1.0, "interpolate": True, "alphas": [0.5]},
            },
        }
    )
    run = train(recipe, tmp_path / "run")
    base, model, unmixed = (
        load_encoder(str(folder)).encode(ITEMS, "query")
        for folder in (tiny_model, run.model, run.folder / "model-unmixed")
    )
    assert np.abs(unmixed - base).max() > 1e-4
    assert np.abs(unmixed - model).max() > 1e-4  # alpha 0.5
    tuned = load_encoder(str(run.folder / "adapter-unmixed")).encode(ITEMS, "query")
    np.testing.assert_allclose(tuned, unmixed, atol=1e-5)
    assert (run.folder / "adapter").exists() == (name in ("pissa", "olora"))
    if (run.folder / "adapter").exists():
        np.testing.assert_allclose(load_encoder(str(run.folder / "adapter")).encode(ITEMS, "query"), model, atol=1e-5)
