"""`embedtune init`: a first recipe for your data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from . import options
from .options import option, switch
from .output import progress, say, say_left_out, show_text


def init(
    data: options.DataArgument,
    output: Annotated[Path, option("FILE", options.OUTPUT_HELP, "--output", "-o")] = Path("recipe.yaml"),
    corpus: options.Corpus = None,
    model: Annotated[
        str | None, options.model_option("all-MiniLM-L6-v2 for texts; images need a model that reads them")
    ] = None,
    guard: Annotated[
        list[str],
        option("DATA...", "A dataset of another domain, to see what the model forgets.", default="the sample sets"),
    ] = [],  # noqa: B006
    no_guard: Annotated[bool, switch("--no-guard", "Name no dataset of another domain.")] = False,
    sample_sets: Annotated[
        Path, option("DIR", "Where the sample sets are, or are made: see `embedtune data sample-sets`.")
    ] = Path("sample-sets"),
    skip_bad: options.SkipBad = 0,
    overwrite: options.Overwrite = False,
) -> None:
    """Write a first recipe for your data: a commented file, with the reason and the figure for each choice.

    The choices follow from the data (size, lengths, images, positives a query, splits), the model and this machine.
    DATA is a dataset folder, or a file of pairs as `embedtune data convert` reads it; data with a single split is
    copied, and a part of its queries held out to test on.

    Example: embedtune init my-data

    Example: embedtune init pairs.csv --output my-recipe.yaml --model intfloat/multilingual-e5-small

    Example: embedtune init questions.csv --corpus articles.csv
    """
    from embedtune.errors import InputError
    from embedtune.start.begin import Wishes, begin

    if guard and no_guard:
        raise InputError("--guard names a dataset and --no-guard none; choose one")
    guards = [] if no_guard else guard or None
    wishes = Wishes(
        data=data,
        output=output,
        corpora=tuple(corpus or ()),
        model=model,
        guards=guards,
        sample_sets=sample_sets,
        skip_bad=skip_bad,
        overwrite=overwrite,
    )
    with progress("reading the data"):
        begun = begin(wishes)
    say_left_out(begun.left_out)
    for note in begun.notes:
        say(note)
    show_text(begun.text)
    say(f"written: {output}; next: embedtune train {output} --dry-run")
