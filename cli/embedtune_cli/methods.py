"""`embedtune methods`: the methods with their papers and options, and methods of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .options import argument, option
from .output import say, show_json, show_table, show_text

if TYPE_CHECKING:
    from embedtune.methods import Method

app = typer.Typer(
    help="List and show the methods that a recipe can name. Write and check methods of your own.\n\n"
    "Example: embedtune methods loss\n\n"
    "Example: embedtune methods infonce"
)


@app.command()
def show(
    name: Annotated[
        str | None, argument("NAME", "A family (mining, loss, ...) or a method.", default="all methods")
    ] = None,
    folders: options.MethodFolders = [],  # noqa: B006
    as_json: options.Json = False,
) -> None:
    """List the methods, or show a family with its contract, or a method with its paper and its options.

    Example: embedtune methods show infonce

    Example: embedtune methods show --methods ./my_methods
    """
    from embedtune import methods as known
    from embedtune.recipe.keys import named as keys_named

    known.use_folders(folders)
    keys = [] if name is None or name in known.FAMILIES else keys_named(name)
    if name is not None and keys and not any(name in known.names(family) for family in known.FAMILIES):
        say(f"{name} is a key of recipes and no method; more with: embedtune recipes keys {name}")
        rows: list[list[object]] = [[key.path, key.type, key.default, key.example, key.text] for key in keys]
        show_table(["key", "type", "default", "example", "what it does"], rows, as_json=as_json)
        return
    if name is not None and name not in known.FAMILIES:
        described = known.find(name)
        if as_json:
            show_json([_as_json(method) for method in described])
        for method in () if as_json else described:
            show_text(_as_text(method) + "\n")
        return
    if name is not None and not as_json:
        say(known.contract(name) + "\n")
    listed, problems = known.listing((name,) if name else known.FAMILIES)
    for problem in problems:
        say(f"note: left out: {problem}")
    if folders and name is None:
        listed = [method for method in listed if method.source.package is None]
    rows = [
        [method.family, method.name, "experimental" * method.spec.experimental, method.summary, method.source.label]
        for method in sorted(listed, key=lambda method: method.spec.experimental)
    ]
    show_table(["family", "method", "status", "what it does", "from"], rows, as_json=as_json)


@app.command()
def new(
    family: Annotated[str, argument("FAMILY", "The family, such as weighting or loss.")],
    name: Annotated[str, argument("NAME", "The method's name, such as my_weighting.")],
    output: Annotated[Path, option("DIR", "Where to write the result.", "--output", "-o")] = Path("my_methods"),
) -> None:
    """Write a method that works as it is, with a test of it, to start from. No file is overwritten.

    Example: embedtune methods new weighting closeness --output my_methods
    """
    from embedtune.methods._skeletons import write_skeleton

    method, test = write_skeleton(family, name, output)
    say(f"written: {method} and {test}; check it with: embedtune methods check {output}")


@app.command()
def check(
    folder: Annotated[Path, argument("DIR", "A folder of methods, as DIR/weighting/NAME.py.")],
    as_json: options.Json = False,
) -> None:
    """Run the contract tests of the families on the methods of a folder. A broken contract ends with exit code 1.

    A method is tried with its default options, and with those that its SPEC gives as `trial`.

    Example: embedtune methods check ./my_methods
    """
    from embedtune.errors import BarMissed
    from embedtune.methods.contracts import check_methods

    findings = check_methods(folder)
    rows = [[f"{one.family}.{one.method}", one.contract, one.problem or "kept"] for one in findings]
    show_table(["method", "contract", "result"], rows, as_json=as_json)
    broken = sum(one.problem is not None for one in findings)
    if broken:
        raise BarMissed(f"{broken} of {len(findings)} contracts are broken")


def _as_json(method: Method) -> dict[str, object]:
    options = [
        {"name": o.name, "type": o.annotation, "required": o.required} | ({} if o.required else {"default": o.default})
        for o in method.options
    ]
    return {
        "family": method.family,
        "name": method.name,
        "docstring": method.docstring,
        "options": options,
        "experimental": method.spec.experimental,
        "file": str(method.file),
    }


def _as_text(method: Method) -> str:
    options = [
        f"  {o.name}: {o.annotation}" + (" (required)" if o.required else f" = {o.default!r}") for o in method.options
    ]
    title = f"{method.family}: {method.name}" + " (experimental)" * method.spec.experimental
    return "\n".join([title, "", method.docstring, "", "Options:", *(options or ["  none"]), ""])
