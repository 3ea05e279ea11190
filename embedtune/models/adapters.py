"""LoRA through peft: which modules are adapted; attaching, merging, saving, scaling and reading adapters."""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ..data.jsonl import read_json_object
from ..errors import InputError
from ..files import MARK
from ..recipe import Lora
from .folders import ADAPTER_CONFIG, first_line, model_folder, transformer_paths
from .modules import transformers_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_VISION = re.compile(r"(^|\.)(vision|visual|image)[^.]*(\.|$)")
_IN_A_LAYER = re.compile(r"\.\d+\.")
_MATRIX = re.compile(r"\.lora_(embedding_)?[AB](\.|$)")
WEIGHTS = "adapter_model.safetensors"
# Ways to initialise LoRA that leave the base's weights as they are.
LINEAR_INITS = (True, False, "gaussian", "eva", "orthogonal")


def target_modules(backbone: torch.nn.Module, names: str | list[str]) -> list[str]:
    """Full names of the modules that LoRA adapts; empty where a list names none of this model's.

    `auto`: every linear layer inside the repeated layers (attention and MLP), but no poolers, embeddings or heads. A
    model whose language part reads the output of its vision part is adapted in the language part only, CLIP and its
    like in both. In a convolutional network the 1 x 1 convolutions are adapted, which are linear layers over channels,
    except its gates. `all-linear`: every linear layer but the output head, as in peft. A list matches the ends of
    names, as peft does.
    """
    if names == "all-linear":
        return _all_linear(backbone)
    linear = [name for name, module in backbone.named_modules() if _is_linear(module)]
    if names != "auto":
        return [name for name in linear if any(name == end or name.endswith(f".{end}") for end in names)]
    inside = [name for name in linear if _IN_A_LAYER.search(f".{name}.") and "squeeze" not in name]
    language = [name for name in inside if not _VISION.search(name)]
    return inside if hasattr(backbone, "get_text_features") or not language else language


def _all_linear(backbone: Any) -> list[str]:
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer

    head = backbone.get_output_embeddings() if hasattr(backbone, "get_output_embeddings") else None
    linear = (torch.nn.Linear, Conv1D)
    return [name for name, module in backbone.named_modules() if isinstance(module, linear) and module is not head]


def _is_linear(module: torch.nn.Module) -> bool:
    pointwise = isinstance(module, torch.nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
    return pointwise or isinstance(module, torch.nn.Linear)


def attach(model: SentenceTransformer, lora: Lora, bases: str | Mapping[str, str]) -> list[str]:
    """Puts a fresh adapter on the model's transformers and freezes everything else; returns the adapted modules' names.

    The zero-initialised B makes the adapted model equal the base model until the first step. bases: the name of the
    base model, or of each transformer's by route, which the saved adapter refers to. Raises InputError where
    target_modules match nothing.
    """
    from peft import LoraConfig, get_peft_model

    transformers = transformers_of(model)
    targets = {route: target_modules(one.model, lora.target_modules) for route, one in transformers.items()}
    _refuse_unmatched(targets, lora.target_modules, [one.model for one in transformers.values()])
    names = base_names(bases, transformers) if isinstance(bases, str) else bases
    model.requires_grad_(False)
    for route, modules in targets.items():
        if not modules:
            continue
        config = LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, bias="none", target_modules=modules
        )
        with quiet():
            transformers[route].model = get_peft_model(transformers[route].model, config)
        transformers[route].model.peft_config["default"].base_model_name_or_path = names[route]
    return [f"{route}.{name}" if route else name for route, modules in targets.items() for name in modules]


def _refuse_unmatched(
    targets: Mapping[str, list[str]], names: str | list[str], backbones: Sequence[torch.nn.Module]
) -> None:
    matched = [name for modules in targets.values() for name in modules]
    if not backbones:
        raise InputError("model.lora: this model has no layers that LoRA could adapt; remove the key")
    if isinstance(names, str) and not matched:
        raise InputError(f"model.lora.target_modules: {names} matches no linear layers here; name them in a list")
    ends = [] if isinstance(names, str) else names
    unmatched = [end for end in ends if not any(name == end or name.endswith(f".{end}") for name in matched)]
    if unmatched:
        linear = (name for model in backbones for name, module in model.named_modules() if _is_linear(module))
        known = sorted({name.rpartition(".")[2] for name in linear})
        raise InputError(f"model.lora.target_modules: {unmatched} match no linear layer; there are {known}")


def adapted(model: SentenceTransformer) -> dict[str, Any]:
    """The transformers that carry an adapter, by route."""
    return {route: one for route, one in transformers_of(model).items() if hasattr(one.model, "peft_config")}


def may_take_any_dtype(module: torch.nn.Module) -> bool:
    """Whether the module is an adapted layer whose adapter gives the same under autocast if its input keeps its number
    format, instead of being copied to the adapter's: plain LoRA without dropout."""
    layer: Any = module
    if not hasattr(layer, "lora_A") or not layer.cast_input_dtype_enabled:
        return False
    return not layer.lora_variant and all(isinstance(drop, torch.nn.Identity) for drop in layer.lora_dropout.values())


@contextmanager
def quiet() -> Iterator[None]:
    """Without peft's warnings of names that transformers renamed, and of keys, which are checked here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def save_adapter(model: SentenceTransformer, folder: Path) -> None:
    """Writes adapter_config.json and adapter_model.safetensors, which peft opens, in a folder for each route."""
    for route, transformer in adapted(model).items():
        with quiet():
            transformer.model.save_pretrained(str(folder / route), safe_serialization=True, save_embedding_layers=False)


def merge(model: SentenceTransformer) -> None:
    """Adds the adapters to the weights, in place; the model is plain and self-contained afterwards."""
    for transformer in adapted(model).values():
        transformer.model = transformer.model.merge_and_unload()


def merge_whole(model: SentenceTransformer, adapter: Path, load: Callable[[], SentenceTransformer]) -> None:
    """Merges in float32 what was trained on rounded or 4-bit weights, in place: the base's own weights take their
    place, and the saved adapters are added to them. load: the base in float32, once the rounded weights are gone."""
    parts = transformers_of(model)
    for part in parts.values():
        part.model = torch.nn.Identity()
    whole = load()
    for route, part in transformers_of(whole).items():
        if (adapter / route / ADAPTER_CONFIG).exists():
            merge_adapter_folder(part, adapter / route)
        parts[route].model = part.model
    exact = dict(whole.named_parameters())
    for name, parameter in model.named_parameters():
        if parameter.dtype != exact[name].dtype:  # a module behind the transformer
            parameter.data = exact[name].data


def merge_adapter_folder(transformer: Any, folder: Path) -> None:
    """Loads a peft adapter folder onto a transformer module and merges it into the weights.

    Raises InputError where a key of the file has no parameter in the model, or a parameter has no key: an adapter that
    is silently not applied looks like a model that did not learn.
    """
    from peft import PeftModel, get_peft_model_state_dict

    weights = folder / WEIGHTS
    if not weights.exists():
        raise InputError(f"model {folder}: {WEIGHTS} is missing")
    try:
        with safe_open(weights, "pt") as file:
            stored = {_key(name) for name in file.keys()}  # noqa: SIM118
        with quiet():
            adapted: Any = PeftModel.from_pretrained(transformer.model, str(folder))
            expected = {_key(name) for name in get_peft_model_state_dict(adapted, save_embedding_layers=False)}
            known = expected | set(adapted.state_dict())  # embeddings that were saved with the adapter
            missing, unexpected = sorted(expected - stored), sorted(stored - known)
            if not missing and not unexpected:
                transformer.model = adapted.merge_and_unload()
    except Exception as error:  # peft, torch and safetensors each raise their own kinds
        raise InputError(f"model {folder}: the adapter does not fit its base model: {first_line(error)}") from error
    if missing or unexpected:
        raise InputError(
            f"model {folder}: the adapter does not fit its base model: {len(missing)} keys missing, "
            f"{len(unexpected)} unexpected, first {(missing or unexpected)[0]!r}"
        )


def _key(name: str) -> str:
    """A key of an adapter's file; peft before 0.11 wrote DoRA's magnitudes without the ending."""
    return name.removesuffix(".weight") if "lora_magnitude_vector" in name else name


def routed(name: str) -> tuple[str, str]:
    """The model and the route that a base's name stands for: a router, where it names the folder of the transformer of
    one of its routes; else the model itself, without a route."""
    base = model_folder(name)
    if (base.parent / "router_config.json").exists():
        for route, path in transformer_paths(base.parent).items():
            if path == base.name:
                return str(base.parent), route
    return name, ""


def base_names(model: str, routes: Iterable[str]) -> dict[str, str]:
    """What each route's adapter names as its base: the model, or of a router's routes the folder of their transformer,
    which peft opens and from which `load_model` finds the router."""
    if list(routes) == [""]:
        return {"": model}
    folder = model_folder(model)
    return {route: str((folder / path).absolute()) for route, path in transformer_paths(folder).items()}


def scales(adapter: Path) -> bool:
    """Whether an adapter times alpha is the mixture (1 - alpha) base + alpha tuned: it holds LoRA matrices alone and
    peft does not change the base's weights when it loads them, as it does for PiSSA and its like."""
    config, weights = read_json_object(adapter / ADAPTER_CONFIG), adapter / WEIGHTS
    if config.get("init_lora_weights", True) not in LINEAR_INITS or not weights.exists():
        return False
    if any(file != weights for file in (*adapter.rglob("*.safetensors"), *adapter.rglob("*.bin"))):
        return False  # another module has weights of its own
    with safe_open(weights, "pt") as file:
        return all(_MATRIX.search(name) for name in file.keys())  # noqa: SIM118


def scale_adapter(adapter: Path, target: Path, alpha: float) -> None:
    """Writes an adapter into the empty folder `target` with its effect scaled by alpha: lora_B times alpha.

    Raises InputError for an adapter that does not scale (see `scales`).
    """
    if not scales(adapter):
        raise InputError(f"{adapter}: its effect is not proportional to lora_B; mix the merged models instead")
    shutil.copytree(adapter, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MARK))
    weights = load_file(adapter / WEIGHTS)
    scaled = {name: tensor * alpha if "_B" in name else tensor for name, tensor in weights.items()}
    save_file(scaled, target / WEIGHTS, {"format": "pt"})
