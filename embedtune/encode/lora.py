"""LoRA through peft: on which modules, attached, merged, saved and read back with every key accounted for."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from ..errors import InputError
from ..recipe import Lora

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_VISION = re.compile(r"(^|\.)(vision|visual|image)[^.]*(\.|$)")
_IN_A_LAYER = re.compile(r"\.\d+\.")


def target_modules(backbone: torch.nn.Module, chosen: str | list[str]) -> list[str]:
    """Full names of the linear modules that LoRA adapts.

    `auto`: every linear layer inside the repeated layers (attention and MLP) of the language part; never poolers,
    embeddings, heads or a vision tower. A list matches the ends of names, as peft does.
    """
    linear = [name for name, module in backbone.named_modules() if isinstance(module, torch.nn.Linear)]
    if chosen == "auto":
        found = [name for name in linear if _IN_A_LAYER.search(f".{name}.") and not _VISION.search(name)]
    else:
        found = [name for name in linear if any(name == end or name.endswith(f".{end}") for end in chosen)]
        missed = [end for end in chosen if not any(n == end or n.endswith(f".{end}") for n in linear)]
        if missed:
            ends = sorted({name.rpartition(".")[2] for name in linear})
            raise InputError(f"model.lora.target_modules: {missed} match no linear layer; there are {ends}")
    if not found:
        raise InputError("model.lora.target_modules: auto found no linear layers here; name them in a list")
    return found


def attach(model: SentenceTransformer, lora: Lora, base_name: str) -> list[str]:
    """Puts a fresh adapter on the model's transformer and freezes everything else; returns the adapted modules.

    The zero-initialised B makes the adapted model equal the base model until the first step.
    """
    from peft import LoraConfig, get_peft_model

    backbone = model[0].model
    modules = target_modules(backbone, lora.target_modules)
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, bias="none", target_modules=modules
    )
    model.requires_grad_(False)
    with quiet():
        model[0].model = get_peft_model(backbone, config)
    model[0].model.peft_config["default"].base_model_name_or_path = base_name
    return modules


@contextmanager
def quiet() -> Iterator[None]:
    """peft warns of names that transformers renamed, and of keys that we check and name ourselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def save_adapter(model: SentenceTransformer, folder: Path) -> None:
    """Writes adapter_config.json and adapter_model.safetensors, which peft opens."""
    with quiet():
        model[0].model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)


def merge(model: SentenceTransformer) -> None:
    """Adds the adapter to the weights, in place; the model is then plain and self-contained."""
    model[0].model = model[0].model.merge_and_unload()


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
