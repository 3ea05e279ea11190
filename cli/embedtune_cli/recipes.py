"""`embedtune recipes`: the recipes that ship, and the check of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .options import argument, output_option
from .output import say, show_json, show_table, show_text

app = typer.Typer(
    no_args_is_help=True,
    help="List, show and copy the recipes that ship. Check and upgrade recipes. List the keys of a recipe.\n\n"
    "Example: embedtune recipes list",
)

Name = Annotated[str, argument("NAME", "A name from `embedtune recipes list`.")]


@app.command("list")
def list_recipes(as_json: options.Json = False) -> None:
    """List the recipes, grids of `ablate` and scripts for CI that ship, with a line on each.

    Example: embedtune recipes list
    """
    from embedtune.recipe import shipped

    names = [*shipped.names(), *shipped.others()]
    show_table(["recipe", "what it does"], [[name, shipped.summary(name)] for name in names], as_json=as_json)


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
    to: Annotated[Path | None, argument("PATH", "A file or a folder.", default="the current folder")] = None,
) -> None:
    """Copy a recipe, a grid or a script so that you can change it. An existing file is never overwritten.

    Example: embedtune recipes copy text/scifact my-recipe.yaml

    Example: embedtune recipes copy ci/github-actions.yaml .github/workflows/retrieval.yaml
    """
    from embedtune.recipe import shipped

    target = shipped.copy(name, to)
    use = f"change it, then: embedtune train {target} --dry-run"
    say(f"written: {target}; {use if shipped.is_recipe(name) else 'its first lines say how it is used'}")


@app.command()
def keys(
    section: Annotated[
        str, argument("KEY", "A key, as in train or model.lora, or a word to look for.", default="every key")
    ] = "",
    as_json: options.Json = False,
) -> None:
    """List the keys of a recipe: the type, the default, an example and the meaning of each.

    Example: embedtune recipes keys model.lora

    Example: embedtune recipes keys pooling
    """
    from embedtune.recipe.keys import keys as known

    rows = [[key.path, key.type, key.default, key.example, key.text] for key in known(section)]
    show_table(["key", "type", "default", "example", "what it does"], rows, as_json=as_json)


@app.command()
def schema(output: Annotated[Path | None, output_option("FILE", "stdout")] = None) -> None:
    """Print the JSON Schema of recipes, by which editors complete and check them.

    Editors with yaml-language-server read it where a recipe says so in a line of its own:
    # yaml-language-server: $schema=recipe.schema.json

    Example: embedtune recipes schema --output recipe.schema.json
    """
    from embedtune.files import check_file, write_json
    from embedtune.recipe.json_schema import WRITTEN, json_schema

    if output is None:
        show_json(json_schema())
        return
    check_file(output, WRITTEN, overwrite=True)
    write_json(output, json_schema())
    say(f"written: {output}")


@app.command()
def check(
    recipe: options.RecipeArgument,
    changes: options.Changes = [],  # noqa: B006
    methods: options.MethodFolders = [],  # noqa: B006
) -> None:
    """Check a recipe: its keys, the values of its methods, and whether its local data, models and files exist.

    The methods are made and tried on small data. Any problem ends with exit code 2.

    Example: embedtune recipes check my-recipe.yaml --set train.epochs=2
    """
    from embedtune.errors import InputError
    from embedtune.methods.values import value_problems
    from embedtune.recipe import load_recipe, refuse_absent

    checked = load_recipe(recipe, changes, methods=methods)
    refuse_absent(checked, str(recipe))
    if problems := value_problems(checked.chosen(), checked.train.batch_size):
        raise InputError("\n".join([f"{recipe}: values that a method refuses", *(f"  {text}" for text in problems)]))
    say(f"{recipe}: no problem found")


@app.command()
def upgrade(recipe: options.RecipeArgument) -> None:
    """Rewrite the former keys of a recipe as present ones. The rest of the file stays as it is.

    Example: embedtune recipes upgrade my-recipe.yaml
    """
    from embedtune.recipe import upgrade_recipe

    renamed = upgrade_recipe(recipe)
    for old, new in renamed.items():
        say(f"{recipe}: {old} is now {new}")
    if not renamed:
        say(f"{recipe}: all keys are present ones; nothing changed")
