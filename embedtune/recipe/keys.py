"""Every key of a recipe with its type, its default and its documentation, read from the schema."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from ..errors import InputError, unknown
from . import schema
from .schema import Chosen, Recipe, plain

# What types and defaults do not say. tests/recipes/test_keys.py holds that each is right.
EXAMPLES = {
    "version": "1",
    "model": "{name: sentence-transformers/all-MiniLM-L6-v2, max_length: 256}",
    "model.name": "sentence-transformers/all-MiniLM-L6-v2",
    "model.compose": "{text: intfloat/multilingual-e5-small, image: google/vit-base-patch16-224}",
    "model.compose.text": "intfloat/multilingual-e5-small",
    "model.compose.image": "google/vit-base-patch16-224",
    "model.compose.dimension": "512",
    "model.compose.image_size": "224",
    "model.max_length": "256",
    "model.passages": "{tokens: 200, stride: 50}",
    "model.passages.tokens": "200",
    "model.passages.stride": "50",
    "model.min_pixels": "3136",
    "model.max_pixels": "802816",
    "model.pooling": "cls",
    "model.suffix": '"</s>"',
    "model.lora.rank": "32",
    "model.lora.alpha": "64.0",
    "model.lora.dropout": "0.05",
    "model.lora.target_modules": "[query, value]",
    "model.lora.layers": "[10, 11]",
    "model.lora.modules_to_save": "[embed_tokens]",
    "model.lora.init": "pissa",
    "model.dtype": "4bit",
    "model.prompts": '{query: "query: ", document: "passage: "}',
    "model.prompts.query": '"query: "',
    "model.prompts.document": '"passage: "',
    "model.chunk_tokens": "8192",
    "model.attention": "eager",
    "model.new_weights": "[pooler.*]",
    "data": "{train: my-data, validation: 0.1}",
    "data.train": "[my-data, other-data:train]",
    "data.split": "train",
    "data.validation": "0.1",
    "data.validation.share": "0.2",
    "data.validation.documents": "10000",
    "data.validation.seed": "0",
    "data.positives": "2",
    "data.broken_images": "0.05",
    "methods": "[./my_methods]",
    "negatives": "{mining: dense, filtering: {name: positive_ratio, at_most: 0.95}}",
    "negatives.mining": "[{name: dense, depth: 100}, {name: bm25, depth: 50}]",
    "negatives.filtering": "[{name: positive_ratio, at_most: 0.95}]",
    "negatives.sampling": "{name: top, count: 2}",
    "negatives.teacher": "cross-encoder:cross-encoder/ms-marco-MiniLM-L6-v2",
    "negatives.refresh": "{every: 200}",
    "negatives.refresh.every": "200",
    "negatives.replace.fallen": "1.2",
    "negatives.replace.below": "0.7",
    "negatives.replace.easy": "0.4",
    "negatives.replace.every": "50",
    "negatives.replace.start": "20",
    "negatives.live.depth": "100",
    "batching": "{name: length, window: 16}",
    "synthesis": "{name: memory_queue, size: 1024}",
    "weighting": "{name: relative_hardness, alpha: 5.0}",
    "loss": "[{name: infonce, temperature: 0.05}, {name: variance, weight: 0.1}]",
    "matryoshka": "[256, 128, 64]",
    "train": "{epochs: 2, batch_size: 64, chunk_size: 16, learning_rate: 2e-5}",
    "train.projections_first.epochs": "10.0",
    "train.projections_first.learning_rate": "5e-4",
    "train.epochs": "2",
    "train.max_steps": "1000",
    "train.batch_size": "64",
    "train.chunk_size": "16",
    "train.selective_backward.keep": "0.95",
    "train.accumulate": "2",
    "train.learning_rate": "1e-5",
    "train.weight_decay": "0.01",
    "train.warmup": "100",
    "train.clip": "null",
    "train.precision": "bf16",
    "train.shard": "true",
    "train.seed": "1",
    "train.validate_every": "50",
    "train.checkpoint_every": "200",
    "train.early_stopping.patience": "5",
    "train.track": "[tensorboard]",
    "stay_close": "{pull: 20.0}",
    "stay_close.distill": "{data: other-data, weight: 0.5}",
    "stay_close.distill.data": "other-data",
    "stay_close.distill.weight": "0.5",
    "stay_close.distill.batch_size": "32",
    "stay_close.distill.candidates": "8",
    "stay_close.distill.temperature": "0.02",
    "stay_close.pull": "20.0",
    "stay_close.freeze_layers": "2",
    "stay_close.layer_decay": "0.7",
    "evaluate": "{in_domain: [my-data], out_of_domain: [other-data], guard: {largest_drop: 0.01}}",
    "evaluate.in_domain": "[my-data, judged:my-data:dev]",
    "evaluate.out_of_domain": "[other-data]",
    "evaluate.measure": "R@10",
    "evaluate.measures": "[nDCG@10, Success@5]",
    "evaluate.guard": "{largest_drop: 0.01, interpolate: true}",
    "evaluate.guard.largest_drop": "0.02",
    "evaluate.guard.largest_flips": "0.05",
    "evaluate.guard.measure": "R@10",
    "evaluate.guard.alphas": "[0.0, 0.5, 1.0]",
}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_NAMES = {str: "text", int: "whole number", float: "number", bool: "true | false", type(None): "null"}


@dataclass(frozen=True, kw_only=True)
class RecipeKey:
    """One key: its path, as `--set` takes it, what a user may write there, and what it does.

    default: as JSON; `required` for a key without one, empty for a block and for a key that is absent by default.
    example: a value as one writes it, in YAML's flow style, which is also what `--set` takes; of a block, of its keys.
    """

    path: str
    type: str
    default: str
    example: str
    text: str


def keys(section: str = "") -> list[RecipeKey]:
    """All keys, those at and below a path, or those of a word: a part of a path, else in the documentation.

    Raises InputError, with the nearest key, for a word that stands nowhere.
    """
    everything = list(_keys(Recipe, ""))
    chosen = [key for key in everything if not section or f"{key.path}.".startswith(f"{section}.")] or named(section)
    if not chosen and "." not in section:
        word = section.lower()
        chosen = [key for key in everything if word in key.path or word in key.text.lower()]
    if not chosen:
        raise InputError(unknown("key", section, (key.path for key in everything)))
    return chosen


def named(word: str) -> list[RecipeKey]:
    """The keys that have this word as a part of their path."""
    return [key for key in _keys(Recipe, "") if word in key.path.split(".")]


def block_of(hint: Any) -> Any:
    """The dataclass of the schema that a type holds, or None."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return None if hint is Chosen else hint
    return next((block for part in get_args(hint) if (block := block_of(part)) is not None), None)


def keys_of(kind: Any) -> dict[str, Any]:
    """A block's keys with their types."""
    hints = get_type_hints(kind, include_extras=True)
    return {part.name: hints[part.name] for part in dataclasses.fields(kind)}


def _keys(kind: Any, prefix: str) -> Iterator[RecipeKey]:
    comments = _comments()[kind.__name__]
    for part, hint in zip(dataclasses.fields(kind), keys_of(kind).values(), strict=True):
        path, block = prefix + part.name, block_of(hint)
        default = part.default_factory() if callable(part.default_factory) else part.default
        about = " ".join(inspect.getdoc(block).partition("\n\n")[0].split()) if block else ""  # type: ignore[union-attr]
        text = " ".join(filter(None, [about, comments[part.name]]))
        kind, default_text = _type_text(hint), _default_text(default)
        example = EXAMPLES.get(path) or _example(block, kind, default_text)
        yield RecipeKey(path=path, type=kind, default=default_text, example=example, text=text)
        if block:
            yield from _keys(block, f"{path}.")


def _example(block: Any, kind: str, default: str) -> str:
    """A value that differs from the default, where the type says enough; of a block, its first key with a default."""
    if block is not None:
        parts = {part.name: part.default for part in dataclasses.fields(block)}
        return (
            "{" + ", ".join(f"{name}: {json.dumps(value)}" for name, value in parts.items() if _is_plain(value)) + "}"
        )
    if kind == "true | false":
        return "true" if default == "false" else "false"
    choices = [choice for choice in kind.split(" | ") if choice not in ("null", json.loads(default or "null"))]
    return choices[0]


def _is_plain(value: Any) -> bool:
    return isinstance(value, int | float | str)


@cache
def _comments() -> dict[str, dict[str, str]]:
    """Block -> key -> the comment lines above the key and behind it, as one text."""
    source = inspect.getsource(schema)
    lines = source.split("\n")
    comments: dict[str, dict[str, str]] = {}
    for block in ast.parse(source).body:
        if not isinstance(block, ast.ClassDef):
            continue
        for node in block.body:
            if isinstance(node, ast.AnnAssign):
                first = node.lineno - 1
                while lines[first - 1].lstrip().startswith("#"):
                    first -= 1
                above = [line.strip().removeprefix("# ") for line in lines[first : node.lineno - 1]]
                behind = lines[(node.end_lineno or 0) - 1][node.end_col_offset :].strip().removeprefix("# ")
                text = " ".join(filter(None, [*above, behind]))
                comments.setdefault(block.name, {})[ast.unparse(node.target)] = text
    return comments


def _default_text(default: Any) -> str:
    if default is dataclasses.MISSING:
        return "required"
    block = dataclasses.is_dataclass(default) and not isinstance(default, Chosen)
    return "" if default is None or block else json.dumps(plain(default), ensure_ascii=False)


def _type_text(hint: Any) -> str:
    """A type as a user reads it: `number above 0`, `linear | cosine`, `list of methods`."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        if parts[0] is Chosen:
            return "method"
        limits = [
            f"{words} {getattr(limit, name):g}"
            for extra in parts[1:]
            for limit in getattr(extra, "metadata", ())
            for name, words in _BOUNDS.items()
            if hasattr(limit, name)
        ]
        return " ".join([_type_text(parts[0]), " and ".join(limits)]).strip()
    if origin is Literal:
        return " | ".join(json.dumps(part) if isinstance(part, bool) else str(part) for part in parts)
    if origin in (Union, types.UnionType):
        return " | ".join(map(_type_text, parts))
    if origin is list:
        return f"list of {_type_text(parts[0])}"
    return _NAMES.get(hint, "block")
