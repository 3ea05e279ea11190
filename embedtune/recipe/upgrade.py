"""Keys that recipes used to have: read as present ones, and rewritten on request."""

from __future__ import annotations

from typing import Any

import yaml

from ..errors import InputError

# Old path -> the present name of its last part.
RENAMED = {"train.backward": "selective_backward"}


def with_present_keys(values: dict[str, Any], source: str) -> None:
    """Renames old keys in a recipe's values, in place. Raises InputError where the old and the new key are given."""
    for old, new in RENAMED.items():
        *parents, last = old.split(".")
        block: Any = values
        for part in parents:
            block = block.get(part) if isinstance(block, dict) else None
        if isinstance(block, dict) and last in block:
            if new in block:
                raise InputError(f"{source}: {old} is called {new} now; remove one of the two")
            block[new] = block.pop(last)


def upgraded(text: str) -> tuple[str, dict[str, str]]:
    """A recipe's text with present keys and nothing else changed, and the renamed keys: old path -> new path."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    nodes = {old: node for old in RENAMED if (node := _key_node(root, old.split("."))) is not None}
    for old, node in sorted(nodes.items(), key=lambda item: item[1].start_mark.index, reverse=True):
        text = text[: node.start_mark.index] + RENAMED[old] + text[node.end_mark.index :]
    return text, {old: ".".join([*old.split(".")[:-1], RENAMED[old]]) for old in nodes}


def _key_node(node: yaml.Node | None, path: list[str]) -> yaml.Node | None:
    """Where a key stands in the text; None where the recipe does not have it."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    for key, value in pairs:
        if key.value == path[0]:
            return key if len(path) == 1 else _key_node(value, path[1:])
    return None
