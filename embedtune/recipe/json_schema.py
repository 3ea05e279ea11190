"""The recipe's keys as JSON Schema, by which editors complete and check a recipe; methods with their options."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from .. import methods
from ..files import FileKind
from .keys import keys
from .schema import Recipe

DIALECT = "https://json-schema.org/draft/2020-12/schema"
TITLE = "embedtune recipe"
WRITTEN = FileKind(verb="recipes schema", wrote=lambda path: f'"title": "{TITLE}"' in path.read_text("utf-8")[:500])
FAMILIES = ("mining", "filtering", "sampling", "batching", "synthesis", "weighting", "loss")
_SCHEDULE = {
    "type": "object",
    "properties": {name: {"type": "number"} for name in ("from", "to", "over")},
    "required": ["from", "to"],
    "additionalProperties": False,
}


def json_schema() -> dict[str, Any]:
    """The schema of a recipe's YAML as a person writes it: methods inline, a single value where a list may stand."""
    schema: dict[str, Any] = TypeAdapter(Recipe).json_schema()
    definitions = schema["$defs"]
    del definitions["Chosen"]
    texts = {key.path: key.text for key in keys()}
    _describe(schema, "", texts, definitions)
    for block in (schema, definitions["Negatives"]):
        for name in FAMILIES:
            if name in block["properties"]:
                block["properties"][name] = _of_family(name, block["properties"][name])
    schema["properties"]["methods"]["anyOf"] = [schema["properties"]["methods"].copy(), {"type": "string"}]
    for key in ("type", "items"):
        del schema["properties"]["methods"][key]
    definitions["Data"]["properties"]["validation"]["anyOf"].append(
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
    )
    definitions |= {family: _method(family) for family in FAMILIES}
    return {"$schema": DIALECT, "title": TITLE, **{k: v for k, v in schema.items() if k != "title"}}


def _describe(block: dict[str, Any], prefix: str, texts: dict[str, str], definitions: dict[str, Any]) -> None:
    """Gives every key its documentation in place of pydantic's title."""
    block.pop("title", None)
    for name, key in block["properties"].items():
        key.pop("title", None)
        if text := texts.get(prefix + name):
            key["description"] = text
        for part in (key, *key.get("anyOf", ())):
            inner = definitions.get(part.get("$ref", "").removeprefix("#/$defs/"))
            if inner is not None:
                _describe(inner, f"{prefix}{name}.", texts, definitions)


def _of_family(family: str, key: dict[str, Any]) -> dict[str, Any]:
    """A key that names methods of a family: one, or a list where pydantic's schema has one."""
    one = {"$ref": f"#/$defs/{family}"}
    listed = [{"type": "array", "items": one}] if key.get("type") == "array" else []
    return {"description": key.get("description", ""), "anyOf": [one, *listed]}


def _method(family: str) -> dict[str, Any]:
    """A method's name, or its name with its options."""
    known = [methods.describe(family, name) for name in methods.names(family)]
    return {"anyOf": [{"enum": [method.name for method in known]}, *(_with_options(method) for method in known)]}


def _with_options(method: methods.Method) -> dict[str, Any]:
    properties: dict[str, Any] = {"name": {"const": method.name, "description": method.summary}}
    if method.family == "loss":
        properties["weight"] = {"type": "number", "description": "The loss's weight in the sum.", "default": 1.0}
    for option in method.options:
        kind = methods.option_schema(option.annotation)
        if option.annotation == "float" and method.family in methods.SCHEDULED:
            kind = {"anyOf": [kind, _SCHEDULE]}
        properties[option.name] = kind if option.required else {**kind, "default": option.default}
    return {
        "type": "object",
        "properties": properties,
        "required": ["name", *(option.name for option in method.options if option.required)],
        "additionalProperties": False,
    }
