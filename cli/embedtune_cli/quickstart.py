"""`embedtune quickstart`: the main job in some minutes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .output import progress, say, show_table
from .train import Watcher

if TYPE_CHECKING:
    from embedtune.quickstart import Quickstart

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


def quickstart(
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder for all that it makes.")] = Path(
        "quickstart"
    ),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Train again, in place of an earlier run.")] = False,
) -> None:
    """Fine-tune a real model on data made on the spot, measure it, index it, search it: some five minutes, no network.

    Example: embedtune quickstart --output quickstart
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # all is on this machine; nothing shall wait for a network
    from embedtune.quickstart import quickstart as run

    with progress("starting") as show:
        made = run(output, overwrite=overwrite, on_event=Watcher(show))
    say(f"\nThe tuned model's answer to {made.query!r}:")
    for found in made.found:
        say(f"  {found.rank}. {found.score:.3f}  {found.document.title}")
    say("")
    show_table(["", "dataset", "measure", "base", "tuned", "change"], _rows(made), as_json=False)
    say(NEXT.format(index=made.index))


def _rows(made: Quickstart) -> list[list[object]]:
    """The recipe's sets in their order: the first is what was trained on (other modules), the second is foreign."""
    names = ["in domain", "out of domain"]
    return [
        [where, dataset, measure, made.run.base[dataset][measure], tuned, tuned - made.run.base[dataset][measure]]
        for where, (dataset, measures) in zip(names, made.run.tuned.items(), strict=True)
        for measure, tuned in measures.items()
    ]
