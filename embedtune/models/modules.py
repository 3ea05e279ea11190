"""The parts of a sentence-transformers model: its modules, transformers and processors, and their fingerprints."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import InputError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def modules_of(model: SentenceTransformer) -> Iterator[nn.Module]:
    """The model's modules in order; a router's place is taken by the modules of all its routes."""
    for module in model:
        routes = getattr(module, "sub_modules", None)
        if routes is None:
            yield module
        else:
            for route in routes.values():
                yield from route


def first_modules(model: SentenceTransformer) -> dict[str, Any]:
    """The modules that read items: one, under "", or a router's by the name of its route."""
    routes = getattr(model[0], "sub_modules", None)
    return {"": model[0]} if routes is None else {name: route[0] for name, route in routes.items()}


def transformers_of(model: SentenceTransformer) -> dict[str, Any]:
    """Those of the first modules that hold a transformers model."""
    return {name: module for name, module in first_modules(model).items() if hasattr(module, "model")}


def token_embeddings(backbone: Any) -> nn.Embedding | None:
    """The matrix of a transformers model's token embeddings, which has many names; None for a model without one."""
    for part in (backbone, getattr(backbone, "text_model", None)):
        try:
            table = part.get_input_embeddings() if part is not None else None
        except (AttributeError, NotImplementedError):
            continue
        if isinstance(table, nn.Embedding):
            return table
    return None


def image_processors_of(model: SentenceTransformer) -> list[Any]:
    processors = [getattr(module, "processor", None) for module in transformers_of(model).values()]
    image_processors = [getattr(processor, "image_processor", processor) for processor in processors]
    return [processor for processor in image_processors if hasattr(processor, "image_mean")]


def processing_of(model: SentenceTransformer) -> str:
    """A description of everything that turns items into features: tokenizers and image processors."""
    described = [_tokenizer(getattr(module, "tokenizer", None)) for module in first_modules(model).values()]
    for processor in image_processors_of(model):
        described.append(json.dumps([type(processor).__name__, processor.to_dict()], sort_keys=True, default=str))
    return "\n".join(text for text in described if text is not None)


def _tokenizer(tokenizer: Any) -> str | None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return repr(tokenizer) if tokenizer is not None else None
    # Truncation and padding are set at each call on a shared object; max_length stands for them.
    described = json.loads(backend.to_str())
    described["truncation"] = described["padding"] = None
    return json.dumps(described, sort_keys=True)


def weights_fingerprint(model: nn.Module) -> str:
    """sha256 over names, shapes, types and bytes of every parameter and buffer. Numbers of 16 bits count as the float32
    that they are: the same model has one fingerprint in all formats that hold it exactly."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.dtype in (torch.bfloat16, torch.float16):
            tensor = tensor.float()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def expected_length(length: Any, tokenizer: Any, *, texts: int = 1) -> str | None:
    """What is expected instead of a maximum length that is no whole number or leaves no token of each text beside the
    special ones; None for a usable length."""
    counts = hasattr(tokenizer, "num_special_tokens_to_add")
    special = tokenizer.num_special_tokens_to_add(pair=texts == 2) if counts else 0
    whole = type(length) is int or (isinstance(length, float) and length.is_integer())
    if whole and length >= special + texts:
        return None
    return f"expected a whole number of at least {special + texts} ({special} special tokens and one of each text)"


def own_length(length: Any, tokenizer: Any, label: str, *, texts: int = 1, hint: str = "") -> int:
    """The maximum length in a model's files. Raises InputError for one that is not usable."""
    expected = expected_length(length, tokenizer, texts=texts)
    if expected is not None:
        raise InputError(
            f"{label}: its maximum length is {length!r}; {expected}: correct max_seq_length in "
            f"sentence_bert_config.json or model_max_length in tokenizer_config.json{hint}"
        )
    return int(length)
