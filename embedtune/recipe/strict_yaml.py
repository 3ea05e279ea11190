"""YAML without its traps: what a person who writes `no`, `1e-5` or a key twice would want to happen."""

from __future__ import annotations

import re
from typing import Any

import yaml

from ..errors import InputError


class Loader(yaml.SafeLoader):
    """Only true/false are booleans, 1e-5 is a number, and a key given twice is an error."""


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
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        line = key_node.start_mark.line + 1
        if key in seen:
            raise InputError(f"{node.start_mark.name}:{line}: key {key!r} is given twice (first on line {seen[key]})")
        seen[key] = line
    return loader.construct_mapping(node, deep=True)


Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def parse(text: str, source: str) -> Any:
    """The value of a YAML text. Raises InputError with the line where it is not valid."""
    try:
        loader = Loader(text)
        loader.name = source
        return loader.get_single_data()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(f"{source}:{line}: not valid YAML: the character U+{error.character:04X}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        raise InputError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise InputError(f"{source}: not valid YAML: nested too deeply") from None
    except ValueError as error:  # a date such as 2020-99-99, a number of too many digits
        raise InputError(f"{source}: not valid YAML: {error}") from None


def flattened(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists as {"a.b.0": leaf}; an empty one is its own leaf, by its type."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inside is None:
        return {prefix: value}
    flat: dict[str, Any] = {prefix: type(value).__name__} if prefix and not value else {}
    for key, part in inside:
        flat |= flattened(part, f"{prefix}.{key}" if prefix else str(key))
    return flat
