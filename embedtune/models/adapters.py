"""LoRA through peft: on which modules, attached, merged, saved and read back with every key accounted for."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ..errors import InputError
from ..files import MARK
from ..recipe import Lora
from .modules import transformers_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_VISION = re.compile(r"(^|\.)(vision|visual|image)[^.]*(\.|$)")
_IN_A_LAYER = re.compile(r"\.\d+\.")


def target_modules(backbone: torch.nn.Module, chosen: str | list[str]) -> list[str]:
    """Full names of the modules that LoRA adapts; none where a list names none of this model's.

    `auto`: every linear layer inside the repeated layers (attention and MLP); never poolers, embeddings or heads. Of a
    model whose language part reads what its vision part gives, the language part alone; of CLIP and its like both; of
    a convolutional network the 1 x 1 convolutions, which are linear layers over channels, but for its gates. A list
    matches the ends of names, as peft does.
    """
    linear = [name for name, module in backbone.named_modules() if _is_linear(module)]
    if chosen != "auto":
        return [name for name in linear if any(name == end or name.endswith(f".{end}") for end in chosen)]
    inside = [name for name in linear if _IN_A_LAYER.search(f".{name}.") and "squeeze" not in name]
    language = [name for name in inside if not _VISION.search(name)]
    return inside if hasattr(backbone, "get_text_features") or not language else language


def _is_linear(module: torch.nn.Module) -> bool:
    pointwise = isinstance(module, torch.nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
    return pointwise or isinstance(module, torch.nn.Linear)


def attach(model: SentenceTransformer, lora: Lora, base_names: str | Mapping[str, str]) -> list[str]:
    """Puts a fresh adapter on the model's transformers and freezes everything else; returns the adapted modules.

    The zero-initialised B makes the adapted model equal the base model until the first step. base_names: what each
    adapter says that it is of; by route where the model has several transformers.
    """
    from peft import LoraConfig, get_peft_model

    towers = transformers_of(model)
    targets = {route: target_modules(tower.model, lora.target_modules) for route, tower in towers.items()}
    _refuse_unmatched(targets, lora.target_modules, [tower.model for tower in towers.values()])
    model.requires_grad_(False)
    for route, modules in targets.items():
        if not modules:
            continue
        config = LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, bias="none", target_modules=modules
        )
        with quiet():
            towers[route].model = get_peft_model(towers[route].model, config)
        name = base_names if isinstance(base_names, str) else base_names[route]
        towers[route].model.peft_config["default"].base_model_name_or_path = name
    return [f"{route}.{name}" if route else name for route, modules in targets.items() for name in modules]


def _refuse_unmatched(
    targets: Mapping[str, list[str]], chosen: str | list[str], backbones: Sequence[torch.nn.Module]
) -> None:
    found = [name for modules in targets.values() for name in modules]
    if chosen == "auto" and not found:
        raise InputError("model.lora.target_modules: auto found no linear layers here; name them in a list")
    wanted = [] if chosen == "auto" else chosen
    missed = [end for end in wanted if not any(n == end or n.endswith(f".{end}") for n in found)]
    if missed:
        linear = (name for model in backbones for name, module in model.named_modules() if _is_linear(module))
        ends = sorted({name.rpartition(".")[2] for name in linear})
        raise InputError(f"model.lora.target_modules: {missed} match no linear layer; there are {ends}")


def adapted(model: SentenceTransformer) -> dict[str, Any]:
    """The transformers that carry an adapter, by route."""
    return {route: tower for route, tower in transformers_of(model).items() if hasattr(tower.model, "peft_config")}


@contextmanager
def quiet() -> Iterator[None]:
    """peft warns of names that transformers renamed, and of keys that we check and name ourselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def save_adapter(model: SentenceTransformer, folder: Path) -> None:
    """Writes adapter_config.json and adapter_model.safetensors, which peft opens; in a folder for each of several."""
    for route, tower in adapted(model).items():
        with quiet():
            tower.model.save_pretrained(str(folder / route), safe_serialization=True, save_embedding_layers=False)


def merge(model: SentenceTransformer) -> None:
    """Adds the adapters to the weights, in place; the model is then plain and self-contained."""
    for tower in adapted(model).values():
        tower.model = tower.model.merge_and_unload()


def merge_adapter_folder(model: SentenceTransformer, folder: Path) -> None:
    """Loads a peft adapter folder onto the model and merges it.

    Raises InputError where a key of the file has no place in the model, or a place is not filled: an adapter that is
    silently not applied looks like a model that did not learn.
    """
    from peft import PeftModel

    weights = folder / "adapter_model.safetensors"
    if not weights.exists():
        raise InputError(f"model {folder}: adapter_model.safetensors is missing")
    with safe_open(weights, "pt") as file:
        stored = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
    try:
        with quiet():
            adapted: Any = PeftModel.from_pretrained(model[0].model, str(folder))
    except (RuntimeError, ValueError) as error:
        raise InputError(f"model {folder}: the adapter does not fit its base model: {error}") from error
    expected = {
        name.replace(".default", ""): list(parameter.shape)
        for name, parameter in adapted.named_parameters()
        if "lora_" in name
    }
    missing, unexpected = sorted(expected.keys() - stored.keys()), sorted(stored.keys() - expected.keys())
    if missing or unexpected:
        first = (missing or unexpected)[0]
        raise InputError(
            f"model {folder}: the adapter does not fit its base model: {len(missing)} keys missing, "
            f"{len(unexpected)} unexpected, first {first!r}"
        )
    model[0].model = adapted.merge_and_unload()


def scale_adapter(adapter: Path, target: Path, alpha: float) -> None:
    """Writes a LoRA adapter into the empty folder `target` with its effect scaled by alpha: lora_B times alpha.

    Raises InputError where the adapter holds anything but lora_A and lora_B, which scaling would not mix.
    """
    weights = load_file(adapter / "adapter_model.safetensors")
    others = sorted(name for name in weights if "lora_A" not in name and "lora_B" not in name)
    if others:
        raise InputError(f"{adapter}: holds {others[0]}, which is no LoRA matrix; mix the merged models instead")
    scaled = {name: tensor * alpha if "lora_B" in name else tensor for name, tensor in weights.items()}
    for file in adapter.iterdir():
        if file.is_file() and file.name not in ("adapter_model.safetensors", MARK):
            shutil.copyfile(file, target / file.name)
    save_file(scaled, target / "adapter_model.safetensors", {"format": "pt"})


def base_of_adapter(adapter: Path) -> str:
    """The name of the model that an adapter was trained on."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    return str(config.get("base_model_name_or_path") or "")
