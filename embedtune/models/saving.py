"""Saves a model in the layout that sentence-transformers 3 to 6, and the servers that read its folders, have in common.

sentence-transformers 6 and transformers 5 write keys of their own and read the older ones too. The older readers, and
text-embeddings-inference 1.9 among the servers, know the older ones alone. What a module does that the older versions
cannot do is left as version 6 writes it, so that they refuse it instead of computing something else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from .dtypes import Stored, dtype_in_files, rounded

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Config = dict[str, Any]
OLDER = "sentence_transformers.models."
ROUTER = "router_config.json"
# In the order in which sentence-transformers 3 to 5 join the poolings.
POOLINGS = {
    "cls": "cls_token",
    "max": "max_tokens",
    "mean": "mean_tokens",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean": "weightedmean_tokens",
    "lasttoken": "lasttoken",
}
# Models with two frequencies of rotary positions -> transformers 4's names of that of full and of sliding attention.
FREQUENCIES = {
    "modernbert": ("global_rope_theta", "local_rope_theta"),
    "gemma3_text": ("rope_theta", "rope_local_base_freq"),
}


def save_model(model: SentenceTransformer, folder: Path, dtype: Stored | None = None) -> None:
    """Saves a model into an empty folder, in the number format of the folder that it was loaded from, or in `dtype`.
    sentence-transformers 6 reads it as it reads its own layout, to the bit."""
    with rounded(model, dtype or dtype_in_files(model)):
        model.save_pretrained(str(folder), create_model_card=False)
    entries = _read(folder / "modules.json")
    for entry, module in zip(entries, model, strict=True):
        entry["type"] = _older(folder / entry["path"], entry["type"], module)
    _write(folder / "modules.json", entries)


def _older(folder: Path, name: str, module: nn.Module) -> str:
    """Rewrites a module's files for the older versions; their name of its type, or the given one where they have none
    or cannot do what the module does."""
    if hasattr(module, "sub_modules"):
        _rewrite_router(folder / ROUTER, module)
    kind = type(module).__name__
    if kind not in CONFIGS or type(module).__module__.partition(".")[0] != "sentence_transformers":
        return name
    path = folder / str(getattr(module, "config_file_name", "config.json"))
    config = CONFIGS[kind](module, _read(path) if path.exists() else {})
    if config is None:
        return name
    if path.exists():
        _write(path, config)
    if kind == "Transformer":
        _rewrite_transformer(folder)
    return OLDER + kind


def _rewrite_router(path: Path, router: Any) -> None:
    settings = _read(path)
    for route, names in settings["structure"].items():
        for name, module in zip(names, router.sub_modules[route], strict=True):
            if settings["types"][name].startswith(OLDER):
                continue  # routes may share a module
            settings["types"][name] = _older(path.parent / name, settings["types"][name], module)
    _write(path, settings)


def _transformer(module: Any, config: Config) -> Config | None:
    """None for a module that reads more than texts, or otherwise than sentence-transformers 6 and the older versions
    read a folder without these keys."""
    from sentence_transformers.base.modules.transformer import TRANSFORMER_TASK_DEFAULTS

    known = {"transformer_task", "modality_config", "module_output_name"}
    default = TRANSFORMER_TASK_DEFAULTS["feature-extraction"]
    if config.keys() - known or (module.modality_config, module.module_output_name) != default:
        return None
    length = module.max_seq_length
    limit = {} if length is None or length >= 2**31 else {"max_seq_length": length}  # transformers' "no limit" is 10^30
    return {**limit, "do_lower_case": bool(module.do_lower_case)}


def _pooling(module: Any, config: Config) -> Config | None:
    """None for poolings joined in another order than the older versions join them."""
    mode = module.pooling_mode
    modes = [mode] if isinstance(mode, str) else list(mode)
    if modes != [name for name in POOLINGS if name in modes]:
        return None
    flags = {f"pooling_mode_{key}": name in modes for name, key in POOLINGS.items()}
    # vLLM takes the first key that is true
    return {"word_embedding_dimension": module.embedding_dimension, **flags, "include_prompt": module.include_prompt}


def _dense(module: Any, config: Config) -> Config | None:
    if not _pooled(module) or module.use_residual:
        return None
    return {key: value for key, value in config.items() if not key.startswith("module_")}


def _normalize(module: Any, config: Config) -> Config | None:
    return config if _pooled(module) else None


def _unchanged(module: Any, config: Config) -> Config | None:
    return config


def _pooled(module: Any) -> bool:
    """Whether the module turns sentence embeddings into sentence embeddings, as the older versions' always do."""
    return bool(module.module_input_name == module.module_output_name == "sentence_embedding")


# Type of module -> its configuration as the older versions read it; None where they have no such module.
CONFIGS: dict[str, Callable[[Any, Config], Config | None]] = {
    "Transformer": _transformer,
    "Pooling": _pooling,
    "Dense": _dense,
    "Normalize": _normalize,
    "StaticEmbedding": _unchanged,
    "Router": _unchanged,  # since sentence-transformers 5
}


def _rewrite_transformer(folder: Path) -> None:
    """Adds transformers 4's keys to the configuration, and names the tokenizer as it does."""
    config = _read(folder / "config.json")
    for part in _parts(config):
        part.update(_rotary(part))
    _write(folder / "config.json", config)
    path = folder / "tokenizer_config.json"
    tokenizer = _read(path)
    if tokenizer.get("tokenizer_class") == "TokenizersBackend":
        tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(tokenizer.get("extra_special_tokens"), list):
        tokenizer["additional_special_tokens"] = tokenizer.pop("extra_special_tokens")
    _write(path, tokenizer)


def _parts(config: Config) -> Iterator[Config]:
    """A configuration and those in it."""
    yield config
    for value in list(config.values()):
        if isinstance(value, dict) and "model_type" in value:
            yield from _parts(value)


def _rotary(config: Config) -> Config:
    """The frequencies of rotary positions under transformers 4's names, which otherwise takes its default unasked."""
    parameters = config.get("rope_parameters") or {}
    if "rope_theta" in parameters:
        scaling = {key: value for key, value in parameters.items() if key != "rope_theta"}
        scaled = scaling.get("rope_type", "default") != "default"
        return {"rope_theta": parameters["rope_theta"], **({"rope_scaling": scaling} if scaled else {})}
    names = FREQUENCIES.get(config.get("model_type", ""))
    if names is None or not {"full_attention", "sliding_attention"} <= parameters.keys():
        return {}
    full, sliding = (parameters[kind]["rope_theta"] for kind in ("full_attention", "sliding_attention"))
    older = dict(zip(names, (full, sliding), strict=True))
    layers = config.get("layer_types") or []
    if config["model_type"] == "modernbert" and "full_attention" in layers[1:]:
        older["global_attn_every_n_layers"] = layers.index("full_attention", 1)
    return older


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
