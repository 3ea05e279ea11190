"""`embedtune methods`: the methods with their papers and options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json
from .output import show_json, show_table, show_text

if TYPE_CHECKING:
    from embedtune.methods import Method


def methods(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A family (mining, loss, ...) or a method.", show_default="all methods"),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the methods that a recipe can name, or show one with its paper and its options.

    Example: embedtune methods loss

    Example: embedtune methods infonce
    """
    from embedtune import methods as known

    if name is None or name in known.FAMILIES:
        families = (name,) if name else known.FAMILIES
        listed = [known.describe(family, method) for family in families for method in known.names(family)]
        show_table(
            ["family", "method", "what it does"], [[m.family, m.name, m.summary] for m in listed], as_json=as_json
        )
        return
    matches = known.find(name)
    if as_json:
        show_json([_as_json(method) for method in matches])
    for method in () if as_json else matches:
        show_text(_as_text(method) + "\n")


def _as_json(method: Method) -> dict[str, object]:
    options = [
        {"name": o.name, "type": o.annotation, "required": o.required} | ({} if o.required else {"default": o.default})
        for o in method.options
    ]
    return {"family": method.family, "name": method.name, "docstring": method.docstring, "options": options}


def _as_text(method: Method) -> str:
    options = [
        f"  {o.name}: {o.annotation}" + (" (must be given)" if o.required else f" = {o.default!r}")
        for o in method.options
    ]
    return "\n".join(
        [f"{method.family}: {method.name}", "", method.docstring, "", "Options:", *(options or ["  none"]), ""]
    )
