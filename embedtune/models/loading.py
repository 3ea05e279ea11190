"""Loads a sentence-transformers model, or a bare transformers checkpoint with the recipe's pooling."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..recipe import Model
from .adapters import attach_folder, merge, routed
from .attention import pad_three_axes, refuse_absent, refuse_other
from .dtypes import common_dtype, dtype_in_files, lower, options_of, ready_to_train, resolve_dtype, stored_dtype
from .folders import (
    ADAPTER_CONFIG,
    base_of_adapter,
    completed,
    model_folder,
    module_paths,
    refuse_other_kind,
    transformer_paths,
    with_safetensors,
)
from .modules import (
    expected_length,
    first_modules,
    image_processors_of,
    own_length,
    token_embeddings,
    transformers_of,
)
from .opening import Loaded, opened, transformer_in
from .precision import Resolved

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

_log = logging.getLogger(__name__)


def model_of(model: Model | str) -> Model:
    """The recipe's block for a model that is only named."""
    return model if isinstance(model, Model) else Model(name=str(model))


def load_model(
    model: Model, device: torch.device, *, seed: int = 0, frozen_in: Resolved | None = None, merged: bool = True
) -> SentenceTransformer:
    """The model's own pooling and normalisation; prompts, lengths and sizes as the recipe says.

    Nothing is looked up on the network for a model in a folder, and nothing asks on stdin. seed: of weights that no
    file has, such as a composed model's projections. frozen_in: the precision that computes with weights that stay
    frozen, whose number format is then model.dtype; without it all weights are float32. merged: whether the adapters of
    an adapter folder are merged into its base. Raises InputError for a model
    that does not exist, is of another kind, lacks weights or code that it needs, or has no pooling where the recipe has
    none either.
    """
    with _drawn_from(seed):
        loaded = _load(model, device, frozen_in, merged=merged)
    missing = [name for part in first_modules(loaded).values() for name in getattr(part, "missing_weights", ())]
    for pattern in model.new_weights:
        if not any(fnmatchcase(name, pattern) for name in missing):
            here = f"; it lacks {missing[0]!r}" if missing else ", which lacks none"
            raise InputError(f"model.new_weights: {pattern!r} matches no missing weight of {model.label}{here}")
    return loaded


@contextmanager
def _drawn_from(seed: int) -> Iterator[None]:
    """Draws weights that no file has from the seed, and leaves the generator as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def load_base(
    base: Model, tuned: Model, device: torch.device, *, seed: int = 0, frozen_in: Resolved | None = None
) -> SentenceTransformer:
    """The base of a tuned model, to mix the two models' weights. A bare checkpoint without the recipe's pooling takes
    the tuned folder's modules, its pooling among them. seed, frozen_in: as in `load_model`, which also raises as
    this."""
    if base.compose is not None or base.pooling is not None:
        return load_model(base, device, seed=seed, frozen_in=frozen_in)
    checkpoint, folder = model_folder(base.label), model_folder(tuned.label)
    bare = not any((checkpoint / name).exists() for name in ("modules.json", ADAPTER_CONFIG))
    if not bare or not (folder / "modules.json").exists():
        return load_model(base, device, seed=seed, frozen_in=frozen_in)
    bases = dict.fromkeys(transformer_paths(folder).values(), _base_transformer(base.label))
    block = replace(tuned, new_weights=base.new_weights)
    with completed(with_safetensors(folder), bases) as whole, _drawn_from(seed):
        return _open(block, whole, device, None if base.new_weights else frozen_in).eval()


def _load(
    model: Model, device: torch.device, frozen_in: Resolved | None, *, merged: bool = True
) -> SentenceTransformer:
    if model.compose is not None:
        from .compose import compose

        text = replace(model, name=model.compose.text, compose=None, min_pixels=None, max_pixels=None)
        loaded = compose(model, model.compose, _load(text, device, frozen_in), device, frozen_in)
        _set_pixels(loaded, model)
        return loaded.eval()
    if model.attention is not None:
        refuse_absent(model.attention, model.trust_remote_code)
    folder = model_folder(model.label)
    refuse_other_kind(folder, model.label, pooled=model.pooling is not None)
    if (folder / ADAPTER_CONFIG).exists() and not (folder / "modules.json").exists():
        loaded = _load_adapter(model, folder, device)
        whole_first = True
    else:
        whole_first = bool(_adapters_in(folder) or model.new_weights)  # merged, and drawn, in float32
        loaded = _load_folder(model, folder, device, None if whole_first else frozen_in)
    if merged:
        merge(loaded)
        if whole_first:
            _lower(loaded, model, frozen_in)
    if model.attention is not None:
        refuse_other(loaded, model.attention, model.label)
    pad_three_axes(loaded)
    for transformer in transformers_of(loaded).values():
        _set_padding(transformer, model.label)
        if model.suffix:
            _set_suffix(transformer.tokenizer, model.suffix, model.label)
    _set_prompts(loaded, model)
    _set_length(loaded, model)
    _set_pixels(loaded, model)
    return loaded.eval()


def _load_adapter(model: Model, folder: Path, device: torch.device) -> SentenceTransformer:
    """A peft adapter folder: its base model with the adapter on it; of a router's route, the whole router."""
    name, route = routed(base_of_adapter(folder))
    loaded = _load(replace(model, name=name), device, None)
    attach_folder(first_modules(loaded)[route], with_safetensors(folder))
    return loaded


def _load_folder(model: Model, folder: Path, device: torch.device, frozen_in: Resolved | None) -> SentenceTransformer:
    """A model folder. sentence-transformers saves adapters without their base: its files are put beside them."""
    adapters = _adapters_in(folder)
    with ExitStack() as stack:
        whole = folder
        if adapters:
            folder = with_safetensors(folder)
            bases = {path: _base_transformer(base_of_adapter(folder / path)) for path in adapters}
            whole = stack.enter_context(completed(folder, bases))
        loaded = _open(model, with_safetensors(whole), device, frozen_in)
    for route, path in transformer_paths(folder).items():
        if path in adapters:
            attach_folder(first_modules(loaded)[route], folder / path)
            adapters.remove(path)  # routes may share a transformer
    return loaded


def _adapters_in(folder: Path) -> list[str]:
    """The paths of the modules that are adapters."""
    return [path for path in module_paths(folder) if (folder / path / ADAPTER_CONFIG).exists()]


def _lower(loaded: SentenceTransformer, model: Model, frozen_in: Resolved | None) -> None:
    """Rounds a model that was loaded in float32 to the number format that its weights are to have."""
    dtype = resolve_dtype(model.dtype, dtype_in_files(loaded), frozen_in)
    if dtype == "4bit":
        raise InputError(
            f"model.dtype: 4bit reads a whole model, and {model.label} is an adapter; merge it first with `embedtune "
            f"export {model.label} --output MODEL`"
        )
    lower(loaded, dtype)


def _base_transformer(name: str) -> Path:
    """The folder of a base model's transformer."""
    folder = with_safetensors(model_folder(name))
    refuse_other_kind(folder, name, pooled=True)
    return folder / next(iter(transformer_paths(folder).values()))


def _open(model: Model, folder: Path, device: torch.device, frozen_in: Resolved | None) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    def opened_as(load: Callable[[], Loaded]) -> Loaded:
        return opened(f"model {model.label}", load, new_weights=model.new_weights)

    trust, attention = model.trust_remote_code, model.attention
    local: dict[str, Any] = {"device": str(device), "local_files_only": True}
    stored = {route: stored_dtype(folder / path) for route, path in transformer_paths(folder).items()}
    dtype = resolve_dtype(model.dtype, common_dtype(stored.values()), frozen_in)
    weights = {**options_of(dtype, device, frozen_in), "attn_implementation": attention}
    if (folder / "modules.json").exists():
        options = local | {"trust_remote_code": trust, "model_kwargs": {**weights, "use_safetensors": True}}
        loaded = opened_as(lambda: SentenceTransformer(str(folder), **options))
        _refuse_truncation(loaded.truncate_dim, model.label)
        pooled = True
    else:
        module = opened_as(lambda: transformer_in(folder, weights, trust_remote_code=trust))
        loaded = SentenceTransformer(modules=[module], **local)
        pooled = module.module_output_name == "sentence_embedding"  # CLIP and its like pool by themselves
    if pooled and model.pooling is not None:
        raise InputError(f"model {model.label}: has its own pooling; remove model.pooling")
    if not pooled and model.pooling is None:
        raise InputError(
            f"model {model.label}: a bare checkpoint has no pooling; set model.pooling: mean|cls|lasttoken"
        )
    if not pooled:
        loaded.append(Pooling(loaded[0].get_embedding_dimension(), model.pooling))
    for route, part in first_modules(loaded).items():
        part.stored_dtype = stored[route]
        part.missing_weights = getattr(loaded, "missing_weights", getattr(part, "missing_weights", ()))
        ready_to_train(part)
    return loaded


def _refuse_truncation(dimensions: Any, label: str) -> None:
    """Raises InputError unless the folder's truncate_dim is absent or a number of dimensions."""
    if dimensions is not None and (type(dimensions) is not int or dimensions < 1):
        raise InputError(
            f"model {label}: truncate_dim in config_sentence_transformers.json: expected a whole number of at least 1, "
            f"or no such key, got {dimensions!r}"
        )


def _set_padding(transformer: Any, label: str) -> None:
    """Sets what a tokenizer needs for batches; the saved folder keeps it.

    A tokenizer without attention mask (SigLIP's) pads every text to the full length, as its model was trained: else an
    embedding would depend on the other texts of its batch. A decoder's tokenizer without a padding token pads with its
    end of text, which the mask hides. Raises InputError for a tokenizer with tokens that the model has no row for.
    """
    tokenizer = transformer.tokenizer
    if tokenizer is None:
        return
    if "attention_mask" not in tokenizer.model_input_names:
        text = {**transformer.processing_kwargs.get("text", {}), "padding": "max_length"}
        transformer.processing_kwargs = {**transformer.processing_kwargs, "text": text}
    elif tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise InputError(f"model {label}: its tokenizer has neither a padding nor an end-of-text token; set one")
        tokenizer.pad_token = tokenizer.eos_token
    table = token_embeddings(transformer.model)
    if table is not None and len(tokenizer) > table.num_embeddings:
        raise InputError(
            f"model {label}: its tokenizer has {len(tokenizer)} tokens, its embedding matrix {len(table.weight)} rows; "
            "use the tokenizer that belongs to the model, or resize the matrix (resize_token_embeddings) and train it"
        )


def _set_suffix(tokenizer: Any, suffix: str, label: str) -> None:
    """Puts the suffix's tokens behind each text, within the length, where the tokenizer does not do so itself; the
    saved tokenizer keeps them. Raises InputError for a tokenizer that takes none, and for a suffix without tokens."""
    from tokenizers import processors

    if not getattr(tokenizer, "is_fast", False):
        raise InputError(f"model.suffix: the tokenizer of {label} is not of the package tokenizers; it takes no suffix")
    ids = tokenizer(suffix, add_special_tokens=False)["input_ids"]
    if not ids:
        raise InputError(f"model.suffix: {suffix!r} is no token of {label}'s tokenizer; give a word or a token of its")
    if tokenizer("")["input_ids"][-len(ids) :] == ids:
        return
    backend = tokenizer.backend_tokenizer
    first, tokens = backend.post_processor, {"id": "suffix", "ids": ids, "tokens": tokenizer.convert_ids_to_tokens(ids)}
    ending = processors.TemplateProcessing(
        single="$A:0 suffix:0", pair="$A:0 suffix:0 $B:1 suffix:1", special_tokens=[tokens]
    )
    backend.post_processor = ending if first is None else processors.Sequence([first, ending])


def _set_prompts(loaded: SentenceTransformer, model: Model) -> None:
    """The recipe's prompts, or the model's own. A document's prompt may be named passage or corpus (E5)."""
    others = [name for name in ("passage", "corpus") if loaded.prompts.get(name)]
    if model.prompts.document is None and others and not loaded.prompts.get("document"):
        loaded.prompts["document"] = loaded.prompts[others[0]]
        _say_once(
            f"model {model.label}: its prompt {others[0]!r} is put before documents; sentence-transformers 6 itself "
            "puts none before them"
        )
    if model.prompts.query is not None:
        loaded.prompts["query"] = model.prompts.query
    if model.prompts.document is not None:
        # under all names, or the saved folder's old name would be read as the document's
        loaded.prompts.update(dict.fromkeys(["document", *others], model.prompts.document))


@cache
def _say_once(note: str) -> None:
    _log.warning(note)


def _set_length(loaded: SentenceTransformer, model: Model) -> None:
    """The recipe's length, or the model's own, within the model's positions. Raises InputError for a recipe's length
    beyond them, and for a length that leaves no token beside the special ones."""
    for transformer in transformers_of(loaded).values():
        rows = _position_rows(transformer.model)
        limit = rows or getattr(transformer.config, "max_position_embeddings", None)
        if limit is not None and model.max_length is not None and model.max_length > limit:
            raise InputError(f"model.max_length: {model.max_length} exceeds the {limit} positions of {model.label}")
        length = transformer.max_seq_length if model.max_length is None else model.max_length
        if length is not None:
            length = _checked_length(length, transformer.tokenizer, model)
        if rows is not None and (length is None or length > rows):
            length = rows
        transformer.max_seq_length = length
    if model.max_length is not None:
        loaded.max_seq_length = model.max_length


def _checked_length(length: Any, tokenizer: Any, model: Model) -> int:
    """Raises InputError for a length that is no whole number, or without room for a token beside the special ones."""
    if model.max_length is None:
        return own_length(length, tokenizer, f"model {model.label}", hint=", or set model.max_length")
    expected = expected_length(length, tokenizer)
    if expected is not None:
        raise InputError(f"model.max_length: {length} is too short for {model.label}; {expected}")
    return int(length)


def _position_rows(backbone: Any) -> int | None:
    """How many tokens a matrix of learned positions is for; None without one. RoBERTa and its like (XLM-R, MPNet) start
    to count behind the padding's row."""
    for name, module in backbone.named_modules():
        if name.endswith("position_embeddings") and hasattr(module, "num_embeddings"):
            return int(module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1))
    return None


def _set_pixels(loaded: SentenceTransformer, model: Model) -> None:
    """The pixels that an image is scaled to, for processors that keep its shape (Qwen-VL's)."""
    bounds = {"shortest_edge": model.min_pixels, "longest_edge": model.max_pixels}
    bounds = {edge: pixels for edge, pixels in bounds.items() if pixels is not None}
    if not bounds:
        return
    processors = [processor for processor in image_processors_of(loaded) if hasattr(processor, "merge_size")]
    if not processors:
        raise InputError(f"model.min_pixels, model.max_pixels: {model.label} does not take images of any size")
    for processor in processors:
        size = {**dict(processor.size), **bounds}
        if size["shortest_edge"] > size["longest_edge"]:
            raise InputError(
                f"model.min_pixels: {size['shortest_edge']:,} is more than model.max_pixels: {size['longest_edge']:,}"
            )
        processor.size = type(processor.size)(**size) if not isinstance(processor.size, dict) else size
