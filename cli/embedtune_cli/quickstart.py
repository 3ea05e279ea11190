"""`embedtune quickstart`: training, measuring and searching on generated data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from . import options
from .options import output_option, switch
from .output import progress, say
from .train import Watcher, show_outcome

NEXT = """
Search the index:
  embedtune search {index} "read a file line by line"

With your own data, a file of pairs or a folder with corpus.jsonl, queries.jsonl and qrels/{{train,test}}.tsv:
  embedtune init my-data --output my-recipe.yaml     (looks at the data and writes a recipe for it)
  embedtune train my-recipe.yaml --dry-run
  embedtune train my-recipe.yaml --output runs/mine
  embedtune index my-data --model runs/mine/model --output indexes/mine
"""
NEXT_IMAGES = """
The untrained model ranks by chance, because a composed model's projections start as random numbers.
A picture of names and the emoji found for them, the best answered name first: {sheet}

Search by words, by an image (this one is drawn in the other style), or by both:
  embedtune search {index} "a vehicle with wheels" --sheet found.png
  embedtune search {index} --image {picture} --sheet found.png --overwrite
  embedtune search {index} "a vehicle" --image {picture} --sheet found.png --overwrite

With your own pictures, named in a .jsonl beside them: {{"query": "a red car", "image": "photos/1.jpg"}}
  embedtune data convert pairs.jsonl --output all-data
  embedtune data split all-data --test 0.1 --output my-data
  embedtune init my-data --output my-recipe.yaml
  embedtune train my-recipe.yaml --output runs/mine
  embedtune index my-data --model runs/mine/model --output indexes/mine
"""


def quickstart(
    output: Annotated[Path | None, output_option("DIR", "quickstart, or quickstart-images")] = None,
    images: Annotated[
        bool, switch("--images", "Use images: emoji to be found by their names. Needs embedtune\\[images].")
    ] = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Fine-tune, measure, index and search on generated data: about five minutes, no network.

    Example: embedtune quickstart --output quickstart

    Example: embedtune quickstart --images
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # model and data are on this machine: never wait for a network
    from embedtune.demo import quickstart as library
    from embedtune.report.record import read_record

    plan = library.IMAGES if images else library.TEXT
    folder = output or Path("quickstart-images" if images else "quickstart")
    with progress("starting") as show:
        made = library.quickstart(folder, plan, overwrite=overwrite, on_event=Watcher(show))
    say(f"\nThe tuned model's answer to {made.query!r}:")
    for result in made.results:
        say(f"  {result.rank}. {result.score:.3f}  {result.document.title or result.document.id}")
    say("")
    show_outcome(read_record(made.run.folder, negatives=False))
    next_steps = NEXT_IMAGES if images else NEXT
    say(next_steps.format(index=made.index, sheet=made.sheet, picture=made.picture))
