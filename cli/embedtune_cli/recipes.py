"""`embedtune recipes`: the recipes that ship, and checking one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .output import say, show_table

app = typer.Typer(no_args_is_help=True, help="The recipes that ship: list, show, copy; and check one's own.\n\n"
                  "Example: embedtune recipes list")  # fmt: skip

Name = Annotated[str, typer.Argument(help="As `embedtune recipes list` gives it.", metavar="NAME")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


@app.command("list")
def list_recipes(as_json: AsJson = False) -> None:
    """Name every recipe that ships, and what it does.

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

    print(shipped.read(name), end="")


@app.command()
def copy(
    name: Name,
    to: Annotated[Path | None, typer.Argument(help="A file or a folder; the current folder if not given.")] = None,
) -> None:
    """Copy a recipe, to change it. Nothing is overwritten.

    Example: embedtune recipes copy text/scifact my-recipe.yaml
    """
    from embedtune.recipe import shipped

    target = shipped.copy(name, to)
    say(f"Copied to {target}; change it, then: embedtune train {target} --dry-run")


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A recipe file.")],
    overrides: Annotated[list[str] | None, typer.Option("--set", help="key=value, as for train; repeatable.")] = None,
) -> None:
    """Check a recipe and name every problem at once; exit code 2 if there is one.

    Example: embedtune recipes check my-recipe.yaml --set train.epochs=2
    """
    from embedtune.recipe import load_recipe

    load_recipe(file, overrides or ())
    say(f"{file}: right")
