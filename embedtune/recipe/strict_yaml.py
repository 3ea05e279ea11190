"""YAML without its traps, for recipes: `no`, `1e-5`, a key given twice, aliases that unfold without end."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError, reason


class Loader(yaml.SafeLoader):
    """Only true and false are booleans, 1e-5 is a number, and a key given twice is an error."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not read; write the value out", problem_mark=mark)
        return super().compose_node(parent, index)


Loader.yaml_implicit_resolvers = {
    key: [(tag, pattern) for tag, pattern in rules if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float")]
    for key, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$", re.I), list("tTfF"))
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$"),
    list("-+.0123456789"),
)


def _mapping(loader: Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    lines: dict[Any, int] = {}
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        line = key_node.start_mark.line + 1
        if not isinstance(key, Hashable):
            raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key_node.start_mark)
        if key in lines:
            raise InputError(f"{node.start_mark.name}:{line}: key {key!r} is given twice (first on line {lines[key]})")
        lines[key] = line
    return loader.construct_mapping(node, deep=True)


def _number(loader: Loader, node: yaml.ScalarNode) -> float:
    value = float(node.value)
    if math.isinf(value):
        mark = node.start_mark
        raise InputError(f"{mark.name}:{mark.line + 1}: the number {node.value} is too large")
    return value


Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
Loader.add_constructor("tag:yaml.org,2002:float", _number)


def read(path: Path) -> Any:
    """The value of a YAML file. Raises InputError for a file that cannot be read and for text that is not YAML."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as YAML: {reason(error)}") from None
    return parse(text, str(path))


def parse(text: str, source: str) -> Any:
    """The value of a YAML text. Raises InputError with the line where it is not valid."""
    try:
        loader = Loader(text)
        loader.name = source
        return loader.get_single_data()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(
            f"{source}:{line}: not valid YAML: the character U+{error.character:04X} is not allowed"
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        raise InputError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise InputError(f"{source}: not valid YAML: nested too deeply") from None
    except ValueError as error:  # a date such as 2020-99-99, a number of too many digits
        raise InputError(f"{source}: not valid YAML: {error}") from None


def flattened(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists as {"a.b.0": leaf}; an empty one is a leaf: the name of its type."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if parts is None:
        return {prefix: value}
    flat: dict[str, Any] = {prefix: type(value).__name__} if prefix and not value else {}
    for key, part in parts:
        flat |= flattened(part, f"{prefix}.{key}" if prefix else str(key))
    return flat
