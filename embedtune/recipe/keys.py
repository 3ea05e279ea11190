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

_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_NAMES = {str: "text", int: "whole number", float: "number", bool: "true | false", type(None): "null"}


@dataclass(frozen=True, kw_only=True)
class RecipeKey:
    """One key: its path, as `--set` takes it, what a user may write there, and what it does.

    default: as JSON; `required` for a key without one, empty for a block and for a key that is absent by default.
    """

    path: str
    type: str
    default: str
    text: str


def keys(prefix: str = "") -> list[RecipeKey]:
    """All keys, or those at and below a path. Raises InputError, with the nearest key, for an unknown path."""
    everything = list(_keys(Recipe, ""))
    chosen = [key for key in everything if not prefix or f"{key.path}.".startswith(f"{prefix}.")]
    if not chosen:
        raise InputError(unknown("key", prefix, (key.path for key in everything)))
    return chosen


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
        yield RecipeKey(path=path, type=_type_text(hint), default=_default_text(default), text=text)
        if block:
            yield from _keys(block, f"{path}.")


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
        return " | ".join(map(str, parts))
    if origin in (Union, types.UnionType):
        return " | ".join(map(_type_text, parts))
    if origin is list:
        return f"list of {_type_text(parts[0])}"
    return _NAMES.get(hint, "block")
