"""`embedtune merge`: between a base model and a tuned one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .output import say, show_json, show_table


def merge(
    base: Annotated[str, typer.Argument(help="The model that was tuned: a folder or hub id.")],
    tuned: Annotated[str, typer.Argument(help="What came of it: a model folder, or a LoRA adapter's.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    alpha: Annotated[float | None, typer.Option(min=0, max=1, help="0: the base, 1: the tuned model.")] = None,
    choose_on: Annotated[
        list[str] | None, typer.Option("--choose-on", metavar="DIR", help="A foreign set (DIR:split); repeatable.")
    ] = None,
    largest_drop: Annotated[
        float | None, typer.Option(min=0, help="With --choose-on: what each set may lose. [default: 0.01]")
    ] = None,
    largest_flips: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="With --choose-on: the share of its queries that may go from right to wrong."),
    ] = None,
    measure: Annotated[
        str | None, typer.Option(help="With --choose-on: by which it is measured. [default: nDCG@10]")
    ] = None,
    alphas: Annotated[
        list[float] | None, typer.Option("--try", min=0, max=1, help="With --choose-on: an alpha; repeatable.")
    ] = None,
    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16"], typer.Option(help="What it computes in.")] = "fp32",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Mix a base model's weights with a tuned one's: less gained in domain, less lost elsewhere (WiSE-FT).

    Example: embedtune merge sentence-transformers/all-MiniLM-L6-v2 runs/mine/model --alpha 0.5 --output mixed

    Example: embedtune merge sentence-transformers/all-MiniLM-L6-v2 runs/mine/model --choose-on data/cranfield
    --largest-drop 0.005 --output mixed

    --choose-on takes the largest alpha with which no set loses more than it may, by half of its queries; the other half
    reports. An adapter folder stays one: its effect is scaled by alpha.
    """
    from embedtune.errors import InputError
    from embedtune.recipe import Guard
    from embedtune.recipe.measures import parse
    from embedtune.ship.merge import merge as run

    only_choosing = {
        "--largest-drop": largest_drop,
        "--largest-flips": largest_flips,
        "--measure": measure,
        "--try": alphas,
    }
    for option, given in only_choosing.items():
        if given is not None and not choose_on:
            raise InputError(f"{option} has no effect without --choose-on")
    (name,) = parse([measure or "nDCG@10"])
    default = Guard()
    guard = Guard(
        largest_drop=default.largest_drop if largest_drop is None else largest_drop,
        largest_flips=largest_flips,
        measure=name,
        alphas=alphas or default.alphas,
    )
    found = run(base, tuned, output, alpha=alpha, choose_on=choose_on or (), guard=guard, precision=precision)
    if as_json:
        curve = [vars(point) for point in found.points]
        show_json({"folder": str(found.folder), "kind": found.kind, "alpha": found.alpha, "curve": curve,
                   "sets": found.sets})  # fmt: skip
        return
    if found.points:
        labels = list(found.points[0].sets)
        rows: list[list[object]] = [[p.alpha, *p.sets.values(), "yes" if p.fits else "no"] for p in found.points]
        show_table(["alpha", *labels, "within budget"], rows, as_json=False, title="On the queries that choose")
        print()
        rows = [[label, *values.values()] for label, values in found.sets.items()]
        columns = ["dataset", *next(iter(found.sets.values()))]
        show_table(columns, rows, as_json=False, title=f"On the others, alpha {found.alpha:g}")
    say(f"the {found.kind}, alpha {found.alpha:g}, is in {found.folder}")
