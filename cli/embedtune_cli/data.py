"""`embedtune data`: check, convert and split dataset folders."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from embedtune.errors import BarMissed

from .output import say, show_json, show_table

app = typer.Typer(no_args_is_help=True, help="Dataset folders: check, convert, split.\n\n"
                  "Example: embedtune data check data/scifact")  # fmt: skip

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PLACES = 3  # places that a table shows of each fault


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="A dataset folder.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Count what a dataset folder holds and name every fault in it.

    Exits with 1 where there are errors, with 0 where there are only warnings.

    Example: embedtune data check data/scifact
    """
    from embedtune.data.check import check as check_folder

    report = check_folder(folder)
    if as_json:
        faults = [{**asdict(fault), "count": fault.count} for fault in report.faults]
        show_json({"folder": str(folder), "counts": report.counts, "faults": faults})
    else:
        show_table(["what", "count"], [list(pair) for pair in report.counts.items()], as_json=False, title=str(folder))
        rows = [[fault.severity, fault.kind, fault.count, _places(fault.where)] for fault in report.faults]
        if rows:
            show_table(["severity", "fault", "count", "where"], rows, as_json=False)
        if any(fault.count > PLACES for fault in report.faults):
            say("every place of each fault: --json")
    if report.errors:
        raise BarMissed(f"{folder}: {report.errors} error{'s' if report.errors > 1 else ''}")


def _places(where: tuple[str, ...]) -> str:
    more = f"; and {len(where) - PLACES} more" if len(where) > PLACES else ""
    return "; ".join(where[:PLACES]) + more


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="A file, a saved Hugging Face dataset, or hf://owner/name@revision.")],
    output: Annotated[Path, typer.Argument(help="The dataset folder to write; must not exist.")],
    split: Annotated[str, typer.Option(help="The split to write, where the source has none of its own.")] = "train",
    query_column: Annotated[str, typer.Option(help="The column of queries.", show_default="by name")] = "",
    positive_column: Annotated[str, typer.Option(help="The column of positives.", show_default="by name")] = "",
    negative_column: Annotated[
        list[str] | None, typer.Option(help="A column of negatives; may be given several times.")
    ] = None,
    query_image_column: Annotated[
        str, typer.Option(help="The queries' images, where they have text too.", show_default="by name")
    ] = "",
    positive_image_column: Annotated[
        str, typer.Option(help="The positives' images, where they have text too.", show_default="by name")
    ] = "",
    as_json: Json = False,
) -> None:
    """Turn pairs, triplets and other tools' training files into a dataset folder.

    Takes .jsonl, .csv and .parquet files of pairs or triplets, FlagEmbedding
    and Tevatron .jsonl files, Hugging Face datasets saved on disk, and
    hf://owner/name@revision. Columns are found by name (query; positive or
    document; negative, negative_1, ...), else by position. Given negatives are
    written to negatives/given.run.

    A column may hold images: paths inside the source's folder, bytes, data:
    URIs, Hugging Face's Image. query_image, positive_image or document_image,
    negative_image and image are found by name; text and image beside each other
    are one item. Images are copied to images/.

    Example: embedtune data convert pairs.csv data/mine --query-column question --positive-column answer

    Example: embedtune data convert captions.parquet data/photos --query-column caption --positive-column image
    """
    from embedtune.data.convert import convert as convert_source
    from embedtune.data.pairs import Columns

    columns = Columns(
        query=query_column,
        positive=positive_column,
        negatives=tuple(negative_column or ()),
        query_image=query_image_column,
        positive_image=positive_image_column,
    )
    converted = convert_source(source, output, split=split, columns=columns)
    for note in converted.notes:
        say(note)
    rows: list[list[object]] = [["documents", converted.documents], ["queries", converted.queries]]
    rows += [[f"{name}: judgements", count] for name, count in converted.judgements.items()]
    show_table(["what", "count"], [*rows, ["negatives", converted.negatives]], as_json=as_json, title=str(output))
    say(f"next: embedtune data check {output}")


@app.command()
def split(
    folder: Annotated[Path, typer.Argument(help="A dataset folder.", show_default=False)],
    test: Annotated[float, typer.Option(help="Share of the queries for a new split `test`.")] = 0.0,
    validation: Annotated[float, typer.Option(help="Share of the queries for a new split `validation`.")] = 0.0,
    source: Annotated[str, typer.Option("--from", help="The split that gives them up and keeps the rest.")] = "train",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder to write.", show_default="FOLDER-split")
    ] = None,
    seed: Annotated[int, typer.Option(help="Which queries are drawn.")] = 0,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Let one document be a positive in several splits.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Split by query into a new folder; the old one stays as it is.

    Queries that share a positive stay together, so that no test document is a training positive.

    Example: embedtune data split data/mine --test 0.2 --validation 0.1
    """
    from embedtune.data.split import split_folder

    target = output or folder.resolve().with_name(f"{folder.resolve().name}-split")
    shares = {name: share for name, share in (("test", test), ("validation", validation)) if share}
    parts = split_folder(folder, target, shares, source=source, seed=seed, allow_overlap=allow_overlap)
    rows = [[name, len(qrels), sum(map(len, qrels.values()))] for name, qrels in parts.items()]
    show_table(["split", "queries", "judgements"], rows, as_json=as_json, title=str(target))
    say(f"wrote {target}")
