"""Keys that recipes used to have: read as present ones, and rewritten on request."""

from __future__ import annotations

from typing import Any

import yaml

from ..errors import InputError

# Old path -> the present name of its last part.
RENAMED = {"train.backward": "selective_backward", "model.random_weights": "new_weights"}
# Old path -> old value -> the present one. Other values stay as they are.
VALUES: dict[str, dict[Any, Any]] = {"model.random_weights": {True: ["*"], False: []}}


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
            block[new] = _present(old, block.pop(last))


def upgraded(text: str) -> tuple[str, dict[str, str]]:
    """A recipe's text with present keys and nothing else changed, and the renamed keys: old path -> new path."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    nodes = {old: pair for old in RENAMED if (pair := _nodes(root, old.split("."))) is not None}
    for old, (key, value) in sorted(nodes.items(), key=lambda item: item[1][0].start_mark.index, reverse=True):
        after = text[value.start_mark.index :]
        if old in VALUES:
            now = _present(old, yaml.safe_load(text[value.start_mark.index : value.end_mark.index]))
            written = yaml.safe_dump(now, default_flow_style=True).strip()
            after = written + text[value.end_mark.index :]
        between = text[key.end_mark.index : value.start_mark.index]
        text = text[: key.start_mark.index] + RENAMED[old] + between + after
    return text, {old: ".".join([*old.split(".")[:-1], RENAMED[old]]) for old in nodes}


def _present(old: str, value: Any) -> Any:
    return VALUES.get(old, {}).get(value, value) if isinstance(value, bool) else value


def _nodes(node: yaml.Node | None, path: list[str]) -> tuple[yaml.Node, yaml.Node] | None:
    """Where a key and its value stand in the text; None where the recipe does not have it."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    for key, value in pairs:
        if key.value == path[0]:
            return (key, value) if len(path) == 1 else _nodes(value, path[1:])
    return None
