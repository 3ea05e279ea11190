"""Reading and writing recipes: one YAML file, checked once at the edge, all problems reported together."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from ..errors import InputError, unknown
from . import schema
from .rules import broken_rules
from .schema import Chosen, Recipe
from .strict_yaml import parse as parse_yaml

_BLOCKS = [kind for kind in vars(schema).values() if isinstance(kind, type) and dataclasses.is_dataclass(kind)]


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads and checks a recipe file. `overrides` are `train.epochs=2` strings, as `--set` takes them.

    Raises InputError that lists every problem with its path and, for unknown names, the nearest valid one.
    """
    source = Path(path)
    try:
        text = source.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{source}: no such recipe; `embedtune recipes list` names those that ship") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: cannot be read as a recipe: {error}") from None
    values = parse_yaml(text, str(source))
    if not isinstance(values, dict):
        raise InputError(f"{source}: expected a mapping with version, model and data at the top")
    for override in overrides:
        _override(values, override)
    return check_recipe(values, str(source))


def check_recipe(values: Mapping[str, Any], source: str = "recipe") -> Recipe:
    """Checks plain values (as from YAML). Raises InputError listing all problems."""
    try:
        # As JSON: strict about numbers and text, while a mapping still becomes a dataclass.
        recipe = TypeAdapter(Recipe).validate_json(json.dumps(dict(values), default=str))
        problems = broken_rules(recipe)
    except ValidationError as error:
        problems = [line for problem in error.errors() for line in _sentences(problem)]
    if problems:
        head = f"{source}: {len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise InputError("\n".join([head, *(f"  {line}" for line in problems)]))
    return recipe


def _sentences(problem: Any) -> list[str]:
    """The sentences for one of pydantic's problems: the key's path first."""
    location = [part for part in problem["loc"] if isinstance(part, int) or not _is_union_branch(str(part))]
    where = ".".join(str(part) for part in location)
    if problem["type"] == "unexpected_keyword_argument":
        return [f"{where}: {unknown('key', str(location[-1]), _keys_at(location[:-1]))}"]
    if problem["type"] == "missing":
        return [f"{where}: missing; it must be given"]
    if problem["type"] == "measure":
        return [f"{where}: {problem['msg']}"]
    if problem["type"] == "value_error":
        return [f"{where}.{line}" for line in str(problem["ctx"]["error"]).split("\n")]
    return [f"{where}: {problem['msg']}, got {problem['input']!r}"]


def _is_union_branch(part: str) -> bool:
    return "[" in part or part in {"float", "int", "str", "none"} or part.startswith(("function-", "constrained-"))


def _keys_at(location: Sequence[Any]) -> list[str]:
    """The keys that are valid at a place of the schema."""
    kind: Any = Recipe
    for part in location:
        hints = {f.name: f.type for f in dataclasses.fields(kind)}
        named = [n for n in _BLOCKS if re.search(rf"\b{n.__name__}\b", str(hints.get(str(part), "")))]
        if not named:
            return []
        kind = named[0]
    return [f.name for f in dataclasses.fields(kind)]


def _override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputError(f"--set {override}: expected key=value, as in --set train.epochs=2")
    target: Any = values
    *parents, last = key.split(".")
    for part in parents:
        if isinstance(target, list) and part.isdigit() and int(part) < len(target):
            target = target[int(part)]
        elif isinstance(target, dict):
            if target.get(part) is None:
                target[part] = {}
            target = target[part]
        else:
            raise InputError(f"--set {override}: {part!r} is not a key of a mapping there")
    value = parse_yaml(text, f"--set {key}")
    if isinstance(target, list) and last.isdigit() and int(last) < len(target):
        target[int(last)] = value
    elif isinstance(target, dict):
        target[last] = value
    else:
        raise InputError(f"--set {override}: {last!r} cannot be set there")


def dump(recipe: Recipe) -> str:
    """The recipe as YAML that `load_recipe` reads back to the same recipe: complete, every default written out."""
    return str(yaml.safe_dump(plain(recipe), sort_keys=False, allow_unicode=True, width=120))


def plain(value: Any) -> Any:
    """A recipe, or a part of it, as plain values, methods with their options inline."""
    if isinstance(value, Chosen):
        weight = {} if value.weight == 1.0 else {"weight": value.weight}
        return {"name": value.name, **weight, **value.options}
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return [plain(part) for part in value] if isinstance(value, list) else value
