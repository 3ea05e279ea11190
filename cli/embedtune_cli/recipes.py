"""`embedtune recipes`: the recipes that ship, and the check of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Changes, Json, RecipeArgument
from .output import say, show_table, show_text

app = typer.Typer(no_args_is_help=True, help="List, show and copy the recipes that ship, and check recipes.\n\n"
                  "Example: embedtune recipes list")  # fmt: skip

Name = Annotated[str, typer.Argument(metavar="NAME", help="A name from `embedtune recipes list`.")]


@app.command("list")
def list_recipes(as_json: Json = False) -> None:
    """List the recipes that ship with a line on each.

    Example: embedtune recipes list
    """
    from embedtune.recipe import shipped

    show_table(["recipe", "what it does"], [[name, shipped.summary(name)] for name in shipped.names()], as_json=as_json)


@app.command()
def show(name: Name) -> None:
    """Print a recipe.

    Example: embedtune recipes show text/scifact
    """
    from embedtune.recipe import shipped

    show_text(shipped.read(name))


@app.command()
def copy(
    name: Name,
    to: Annotated[
        Path | None, typer.Argument(metavar="PATH", help="A file or a folder.", show_default="the current folder")
    ] = None,
) -> None:
    """Copy a recipe so that you can change it. An existing file is never overwritten.

    Example: embedtune recipes copy text/scifact my-recipe.yaml
    """
    from embedtune.recipe import shipped

    target = shipped.copy(name, to)
    say(f"written: {target}; change it, then: embedtune train {target} --dry-run")


@app.command()
def check(
    recipe: RecipeArgument,
    changes: Changes = [],  # noqa: B006
) -> None:
    """Check a recipe and list all problems. A problem ends with exit code 2.

    Example: embedtune recipes check my-recipe.yaml --set train.epochs=2
    """
    from embedtune.recipe import load_recipe

    load_recipe(recipe, changes)
    say(f"{recipe}: no problem found")
