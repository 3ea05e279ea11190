"""LoRA through peft: which modules are adapted; attaching, merging, saving, scaling and reading adapters."""

from __future__ import annotations

import math
import re
import shutil
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ..data.jsonl import read_json_object
from ..errors import InputError, unknown
from ..files import MARK, write_json
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


def target_modules(
    backbone: torch.nn.Module, names: str | list[str], layers: Collection[int] | None = None
) -> list[str]:
    """Full names of the modules that LoRA adapts; empty where a list names none of this model's.

    `auto`: every linear layer inside the repeated layers (attention and MLP), but no poolers, embeddings or heads. A
    model whose language part reads the output of its vision part is adapted in the language part only, CLIP and its
    like in both. In a convolutional network the 1 x 1 convolutions are adapted, which are linear layers over channels,
    except its gates. `all-linear`: every linear layer but the output head, as in peft. A list matches the ends of
    names, as peft does. layers: only modules in layers of these numbers; None: all.
    """
    chosen = _of_all_layers(backbone, names)
    return chosen if layers is None else [name for name in chosen if layer_of(name) in layers]


def layer_of(name: str) -> int | None:
    """The number of the layer that a module stands in, the first in its name; None outside of layers."""
    match = _IN_A_LAYER.search(f".{name}.")
    return None if match is None else int(match[0].strip("."))


def _of_all_layers(backbone: torch.nn.Module, names: str | list[str]) -> list[str]:
    if names == "all-linear":
        return _all_linear(backbone)
    linear = [name for name, module in backbone.named_modules() if _is_linear(module)]
    if names != "auto":
        return [name for name in linear if _ends_so(name, names)]
    inside = [name for name in linear if _IN_A_LAYER.search(f".{name}.") and "squeeze" not in name]
    language = [name for name in inside if not _VISION.search(name)]
    return inside if hasattr(backbone, "get_text_features") or not language else language


def _ends_so(name: str, ends: Iterable[str]) -> bool:
    return any(name == end or name.endswith(f".{end}") for end in ends)


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

    The adapted model equals the base model until the first step. bases: the name of the base model, or of each
    transformer's by route, which the saved adapter refers to. Raises InputError where target_modules, layers or
    modules_to_save match nothing, and for options that peft refuses.
    """
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    transformers = transformers_of(model)
    targets = {
        route: target_modules(one.model, lora.target_modules, lora.layers) for route, one in transformers.items()
    }
    _refuse_unmatched(targets, lora, [one.model for one in transformers.values()])
    names = base_names(bases, transformers) if isinstance(bases, str) else bases
    model.requires_grad_(False)
    for route, modules in targets.items():
        if not modules:
            continue
        config = LoraConfig(target_modules=modules, **_settings(lora, transformers[route].model))
        try:
            with quiet():
                wrapped: Any = get_peft_model(transformers[route].model, config)
        except (ValueError, TypeError) as error:
            raise InputError(f"model.lora: {first_line(error)}") from None
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()  # modules that are saved whole have the base's number format
        wrapped.peft_config["default"].base_model_name_or_path = names[route]
        if lora.moves_base:
            wrapped.beginning = {name: t.detach().clone() for name, t in get_peft_model_state_dict(wrapped).items()}
        transformers[route].model = wrapped
    return [f"{route}.{name}" if route else name for route, modules in targets.items() for name in modules]


def _settings(lora: Lora, backbone: torch.nn.Module) -> dict[str, Any]:
    """The recipe's options under peft's names. modules_to_save: those that this transformer has."""
    names = [name for name, _ in backbone.named_modules()]
    return {
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "bias": "none",
        "use_rslora": lora.rslora,
        "use_dora": lora.dora,
        "init_lora_weights": lora.init,
        "modules_to_save": [end for end in lora.modules_to_save if any(_ends_so(name, [end]) for name in names)]
        or None,
    }


def _refuse_unmatched(targets: Mapping[str, list[str]], lora: Lora, backbones: Sequence[torch.nn.Module]) -> None:
    _refuse_unmatched_layers(targets, lora, backbones)
    _refuse_unmatched_whole(lora.modules_to_save, backbones)
    names = lora.target_modules
    matched = [name for modules in targets.values() for name in modules]
    if not backbones:
        raise InputError("model.lora: this model has no layers that LoRA could adapt; remove the key")
    if isinstance(names, str) and not matched:
        raise InputError(f"model.lora.target_modules: {names} matches no linear layers here; name them in a list")
    ends = [] if isinstance(names, str) else names
    unmatched = [end for end in ends if not any(_ends_so(name, [end]) for name in matched)]
    if unmatched:
        linear = (name for model in backbones for name, module in model.named_modules() if _is_linear(module))
        known = sorted({name.rpartition(".")[2] for name in linear})
        raise InputError(f"model.lora.target_modules: {unmatched} match no linear layer; there are {known}")


def _refuse_unmatched_layers(
    targets: Mapping[str, list[str]], lora: Lora, backbones: Sequence[torch.nn.Module]
) -> None:
    if lora.layers is None:
        return
    adapted_layers = {layer_of(name) for names in targets.values() for name in names}
    missing = sorted(set(lora.layers) - adapted_layers)
    if missing:
        everything = (name for one in backbones for name in target_modules(one, lora.target_modules))
        known = sorted({layer for name in everything if (layer := layer_of(name)) is not None})
        raise InputError(f"model.lora.layers: {missing} have no such modules; the layers that have are {known}")


def _refuse_unmatched_whole(ends: Sequence[str], backbones: Sequence[torch.nn.Module]) -> None:
    modules = {name: module for one in backbones for name, module in one.named_modules() if name}
    for end in ends:
        matched = [module for name, module in modules.items() if _ends_so(name, [end])]
        parameters = [parameter for module in matched for parameter in module.parameters()]
        if not parameters:
            known = {
                name.rpartition(".")[2]
                for name, module in modules.items()
                if next(module.parameters(), None) is not None
            }
            raise InputError(f"model.lora.modules_to_save: {unknown('module', end, known)}")
        if not all(parameter.is_floating_point() for parameter in parameters):
            raise InputError(f"model.lora.modules_to_save: {end} has weights in 4 bits, which cannot be trained")


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
        if hasattr(transformer.model, "beginning"):
            _write_difference(folder / route, transformer.model.beginning)


def _write_difference(folder: Path, beginning: Mapping[str, torch.Tensor]) -> None:
    """Rewrites an adapter that began as a part of the base as what was learned, for the base as it was: BA less
    the B0 A0 that it began as is [B, -B0] [A; A0], of twice the rank. peft would decompose the base again in place."""
    weights = load_file(folder / WEIGHTS)
    start = {name: tensor.to(weights[name].device) for name, tensor in beginning.items()}
    learned = any(not torch.equal(tensor, start[name]) for name, tensor in weights.items())
    for name in [name for name in weights if _MATRIX.search(name)]:
        second = is_second(name)
        both = torch.cat([weights[name], -start[name] if second else start[name]], dim=1 if second else 0)
        weights[name] = both if learned or not second else torch.zeros_like(both)
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    config = read_json_object(folder / ADAPTER_CONFIG)
    rank = int(config["r"])
    scale = config["lora_alpha"] / (math.sqrt(rank) if config["use_rslora"] else rank)
    config |= {"r": 2 * rank, "lora_alpha": scale * 2 * rank, "use_rslora": False, "init_lora_weights": True}
    write_json(folder / ADAPTER_CONFIG, config)


def merge(model: SentenceTransformer) -> None:
    """Adds the adapters to the weights, in place; the model is plain and self-contained afterwards. Where nothing was
    learned it is the base to the bit."""
    for transformer in dict.fromkeys(adapted(model).values()):  # routes may share one
        learned = has_learned(transformer.model)
        transformer.model = transformer.model.merge_and_unload() if learned else transformer.model.unload()


def has_learned(backbone: torch.nn.Module) -> bool:
    """Whether an adapted transformer is not just its base: a B is not 0, or a module that is saved whole differs."""
    if any(is_second(name) and bool(parameter.any()) for name, parameter in backbone.named_parameters()):
        return True
    wrappers: list[Any] = [module for module in backbone.modules() if hasattr(module, "original_module")]
    return any(
        not torch.equal(ours.float(), before.float())
        for module in wrappers
        for copy in getattr(module, "modules_to_save", {}).values()
        for ours, before in zip(copy.parameters(), module.original_module.parameters(), strict=True)
    )


def put_on_whole(model: SentenceTransformer, adapter: Path, load: Callable[[], SentenceTransformer]) -> None:
    """Gives a model that was trained on rounded or 4-bit weights the base's own weights, in place, with the saved
    adapters on them. load: the base in float32, once the rounded weights are gone."""
    parts = transformers_of(model)
    for part in parts.values():
        part.model = torch.nn.Identity()
    whole = load()
    for route, part in transformers_of(whole).items():
        if (adapter / route / ADAPTER_CONFIG).exists():
            attach_folder(part, adapter / route)
        parts[route].model = part.model
    exact = dict(whole.named_parameters())
    for name, parameter in model.named_parameters():
        if parameter.dtype != exact[name].dtype:  # a module behind the transformer
            parameter.data = exact[name].data


def is_second(name: str) -> bool:
    """Whether a parameter is LoRA's B, which is 0 until something is learned."""
    return bool(_MATRIX.search(name)) and "_B" in name


def attach_folder(transformer: Any, folder: Path) -> None:
    """Loads a peft adapter folder onto a transformer module.

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
                transformer.model = adapted.eval()
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
    scaled = {name: tensor * alpha if is_second(name) else tensor for name, tensor in weights.items()}
    save_file(scaled, target / WEIGHTS, {"format": "pt"})
