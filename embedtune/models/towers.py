"""The parts of a sentence-transformers model: its transformers, their processors, what it can read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def modules_of(model: SentenceTransformer) -> Iterator[nn.Module]:
    """The model's modules in order, those of each of a router's routes in its place."""
    for module in model:
        routes = getattr(module, "sub_modules", None)
        if routes is None:
            yield module
        else:
            for route in routes.values():
                yield from route


def transformers_of(model: SentenceTransformer) -> dict[str, Any]:
    """The modules that hold a transformers model: one, under "", or a router's by the name of its route."""
    routes = getattr(model[0], "sub_modules", None)
    found = {"": model[0]} if routes is None else {name: route[0] for name, route in routes.items()}
    return {name: module for name, module in found.items() if hasattr(module, "model")}


def image_processors_of(model: SentenceTransformer) -> list[Any]:
    processors = [getattr(module, "processor", None) for module in transformers_of(model).values()]
    found = [getattr(processor, "image_processor", processor) for processor in processors]
    return [processor for processor in found if hasattr(processor, "image_mean")]


def processing_of(model: SentenceTransformer) -> str:
    """Everything that turns items into features: tokenizers and image processors."""
    described = [_tokenizer(getattr(module, "tokenizer", None)) for module in _readers(model)]
    for processor in image_processors_of(model):
        described.append(json.dumps([type(processor).__name__, processor.to_dict()], sort_keys=True, default=str))
    return "\n".join(text for text in described if text is not None)


def _readers(model: SentenceTransformer) -> list[Any]:
    routes = getattr(model[0], "sub_modules", None)
    return [model[0]] if routes is None else [route[0] for route in routes.values()]


def _tokenizer(tokenizer: Any) -> str | None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return repr(tokenizer) if tokenizer is not None else None
    # Truncation and padding are set per call on a shared object; they are covered by max_length.
    described = json.loads(backend.to_str())
    described["truncation"] = described["padding"] = None
    return json.dumps(described, sort_keys=True)
