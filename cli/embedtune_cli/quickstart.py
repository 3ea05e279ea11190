"""`embedtune quickstart`: the main job in some minutes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .output import progress, say, show_table
from .train import Watcher

if TYPE_CHECKING:
    from embedtune.demo.quickstart import Quickstart

NEXT = """
Search it:
  embedtune search {index} "read a file line by line"

With your own data, a folder with corpus.jsonl, queries.jsonl and qrels/{{train,test}}.tsv, or a .jsonl of pairs:
  embedtune data check my-data
  embedtune recipes copy text/quickstart my-recipe.yaml     (then name your data and a model in it)
  embedtune train my-recipe.yaml --dry-run
  embedtune train my-recipe.yaml --output runs/mine
  embedtune index my-data --model runs/mine/model --output indexes/mine
"""
NEXT_IMAGES = """
Untrained, it finds by chance: a composed model's projections begin as random numbers.
A contact sheet, of names and the pictures that they find, from the best answered to the worst: {sheet}

Search it by words, by a picture (this one is drawn in the other style), or by both:
  embedtune search {index} "a vehicle with wheels" --sheet found.png
  embedtune search {index} --image {picture} --sheet found.png --overwrite
  embedtune search {index} "a vehicle" --image {picture} --sheet found.png --overwrite

With your own pictures, named in a .jsonl beside them: {{"query": "a red car", "image": "photos/1.jpg"}}
  embedtune data convert pairs.jsonl all-data
  embedtune data split all-data --test 0.1 --output my-data
  embedtune recipes copy image/quickstart my-recipe.yaml    (then name my-data in it)
  embedtune train my-recipe.yaml --output runs/mine
  embedtune index my-data --model runs/mine/model --output indexes/mine
"""


def quickstart(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The folder for all that it makes. (default: quickstart, or quickstart-images)"
        ),
    ] = None,
    images: Annotated[
        bool, typer.Option("--images", help="With pictures: emoji found by their names; needs embedtune\\[images].")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Train again, in place of an earlier run.")] = False,
) -> None:
    """Fine-tune a real model on data made on the spot, measure it, index it, search it: some five minutes, no network.

    Example: embedtune quickstart --output quickstart

    Example: embedtune quickstart --images
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # all is on this machine; nothing shall wait for a network
    from embedtune.demo import quickstart as library

    plan = library.IMAGES if images else library.TEXT
    folder = output or Path("quickstart-images" if images else "quickstart")
    with progress("starting") as show:
        made = library.quickstart(folder, plan, overwrite=overwrite, on_event=Watcher(show))
    say(f"\nThe tuned model's answer to {made.query!r}:")
    for found in made.found:
        say(f"  {found.rank}. {found.score:.3f}  {found.document.title or found.document.id}")
    say("")
    untuned = "untrained" if images else "base"
    show_table(["", "dataset", "measure", untuned, "tuned", "change"], _rows(made), as_json=False)
    next_steps = NEXT_IMAGES if images else NEXT
    say(next_steps.format(index=made.index, sheet=made.sheet, picture=made.picture))


def _rows(made: Quickstart) -> list[list[object]]:
    """The recipe's sets in their order: the first is what was trained on (other modules), the second is foreign."""
    names = ["in domain", "out of domain"]
    return [
        [where, dataset, measure, made.run.base[dataset][measure], tuned, tuned - made.run.base[dataset][measure]]
        for where, (dataset, measures) in zip(names, made.run.tuned.items(), strict=True)
        for measure, tuned in measures.items()
    ]
