"""`embedtune mine`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .output import progress, say, say_left_out, show_json, show_table


def mine(
    source: Annotated[str, typer.Argument(metavar="RECIPE|DATA", help="A recipe, or a dataset (DIR or DIR:split).")],
    changes: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the recipe.")
    ] = [],  # noqa: B006
    model: Annotated[str | None, typer.Option("--model", "-m", help="For DATA: the encoder that mines.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The run. [default: DATA/negatives/<recipe's name>.run]")
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="Who decides: an encoder, or cross-encoder:NAME.")] = None,
    num_negatives: Annotated[int | None, typer.Option(help="A query; absent, all that are kept.")] = None,
    range_min: Annotated[int | None, typer.Option(help="Skip so many of the best that are left.")] = None,
    range_max: Annotated[int | None, typer.Option(help="Retrieve so many a query.")] = None,
    relative_margin: Annotated[float | None, typer.Option(help="0.05: below the positive by 5% of it.")] = None,
    absolute_margin: Annotated[float | None, typer.Option(help="Below the positive by so much.")] = None,
    max_score: Annotated[float | None, typer.Option(help="Below this.")] = None,
    sampling_strategy: Annotated[Literal["top", "random"] | None, typer.Option(help="Of those that are left.")] = None,
    max_length: Annotated[int | None, typer.Option(min=1, help="For DATA: tokens; the model's own if absent.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run and what is beside it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find hard negatives, keep the false ones out, and keep the evidence for `embedtune audit`.

    Example: embedtune mine recipes/text/scifact-mined.yaml --output mined.run

    Example: embedtune mine data/scifact:train --model sentence-transformers/all-MiniLM-L6-v2 --output mined.run
    --num-negatives 4 --relative-margin 0.05

    Writes a TREC run, the evidence (.jsonl) and a summary (.json) beside it. If it is killed, the same command goes on.
    The flags mean what they mean in sentence-transformers' mine_hard_negatives, and stand for options of the recipe.
    On several processes (torchrun --nproc-per-node 2 -m embedtune_cli mine ...) all encode.
    """
    from embedtune import distributed as processes
    from embedtune.data.dataset import load_training
    from embedtune.errors import InputError
    from embedtune.files import refuse_existing
    from embedtune.recipe import Data, Model, Recipe, load_recipe
    from embedtune.recipe.mining_flags import Flags, adjusted

    by_recipe = source.endswith((".yaml", ".yml"))
    if by_recipe and (model or max_length):
        raise InputError("--model and --max-length go with DATA; for a recipe use --set model.name=... instead")
    if not by_recipe and (model is None or output is None or changes):
        raise InputError(f"{source}: to mine DATA give --model and --output, and no --set (which goes with a recipe)")
    if by_recipe:
        recipe = load_recipe(source, changes)
    else:
        recipe = Recipe(version=1, model=Model(name=str(model), max_length=max_length), data=Data(train=source))
    flags = Flags(
        num_negatives=num_negatives,
        range_min=range_min,
        range_max=range_max,
        relative_margin=relative_margin,
        absolute_margin=absolute_margin,
        max_score=max_score,
        sampling_strategy=sampling_strategy,
        teacher=teacher,
    )
    recipe = adjusted(recipe, flags)
    dataset = load_training(recipe.data)
    if not processes.leads():
        from embedtune.train.negatives import encode_for_recipe

        encode_for_recipe(recipe, dataset)
        return
    say_left_out(dataset.left_out)
    target = output or dataset.folder / "negatives" / f"{Path(source).stem}.run"
    refuse_existing(target, overwrite=overwrite)

    from embedtune.train.negatives import mine_recipe

    with progress("mining") as show:
        report = mine_recipe(recipe, target, draw=num_negatives is not None, on_progress=show, dataset=dataset)
    for text in report.sentences():
        say(text)
    if as_json:
        show_json({"output": str(target), **vars(report)})
        return
    dropped = [[f"dropped by {name}", count] for name, count in report.dropped.items()]
    rows = [
        ["queries", report.queries],
        ["candidates", report.candidates],
        *dropped,
        ["kept", report.kept],
        ["written", report.written],
        [f"queries with fewer than {report.asked}", report.fewer],
        ["queries without any", report.without],
    ]
    show_table(["mined", "count"], rows, as_json=False)
    say(f"written to {target}; see `embedtune audit {target}`")
