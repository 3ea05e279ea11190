"""`embedtune search`: what an index finds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .output import say, say_missing_images, show_table

if TYPE_CHECKING:
    from embedtune.search.folder import SearchResult

SNIPPET = 160  # characters
FEW = 12  # queries that a sheet shows


def search(
    index: Annotated[Path, typer.Argument(help="An index folder.", metavar="DIR")],
    words: Annotated[str | None, typer.Argument(help="What to search for.", show_default=False)] = None,
    text: Annotated[str | None, typer.Option("--text", help="The same as words after DIR.")] = None,
    image: Annotated[
        Path | None,
        typer.Option(
            "--image",
            help="Search by a picture. With words as well, by both: as one input where the "
            "model reads both at once, else by the mean of the two embeddings, each of length 1.",
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many documents to find.")] = 10,
    queries: Annotated[
        Path | None, typer.Option("--queries", help="A queries.jsonl, or a dataset folder that holds one.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="With --queries: the TREC run to write.")
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            help="A picture (.png, .jpg, .webp) to draw query and results in, 50 at most; "
            f"of --queries the first {FEW}, with 10 results each."
        ),
    ] = None,
    images: Annotated[
        list[Path],
        typer.Option(
            "--images",
            metavar="DIR",
            help="For --sheet: another folder whose images may be read; repeatable. Images are read inside the folder "
            "that was indexed, where it lies in the current folder or beside the index.",
        ),
    ] = [],  # noqa: B006
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Where the index's model is now; else where it was.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT and SHEET.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Search an index by words, by a picture, by both, or by a file of queries.

    Example: embedtune search indexes/scifact "does vitamin D prevent influenza" -k 5

    Example: embedtune search indexes/emoji --image cat.jpg --text "with a hat" --sheet found.png

    Example: embedtune search indexes/scifact --queries data/scifact --output scifact.run -k 100
    """
    from embedtune import distributed as processes
    from embedtune.errors import InputError
    from embedtune.files import refuse_existing

    if words is not None and text is not None:
        raise InputError("the words after DIR and --text are the same thing; give one of them")
    asked = words if words is not None else text
    if (asked is None and image is None) == (queries is None):
        raise InputError("expected something to search for (words, --image FILE) or --queries FILE, and not both")
    if asked is not None and not asked.strip():
        raise InputError("the query is empty; give some words")
    if queries is None and output is not None:
        raise InputError("--output RUN goes with --queries FILE")
    if queries is not None and output is None and sheet is None:
        raise InputError("--queries FILE wants --output RUN, --sheet FILE, or both")
    if not processes.leads():  # queries are few: one process does all
        return
    if output is not None:
        refuse_existing(output, overwrite=overwrite)

    from embedtune.data.jsonl import JsonLines
    from embedtune.data.trec import write_run
    from embedtune.models.encoder import load_encoder
    from embedtune.report import side_by_side
    from embedtune.report.sheet import refuse, write_sheet
    from embedtune.search.folder import find_all, open_index, readable_images
    from embedtune.types import Item

    if sheet is not None:
        refuse(sheet, overwrite=overwrite)
    opened = open_index(index)
    encoder = load_encoder(opened.manifest.model_to_load(model), device=device)
    if queries is not None:
        items = JsonLines(queries / "queries.jsonl" if queries.is_dir() else queries)
        if output is not None:
            write_run(output, opened.run(encoder, items, k), Path(encoder.name).name)
            say(f"written: {output} ({len(items)} queries)")
        shown = [items[query_id] for query_id in items.ids[:FEW]]
    else:
        shown = [Item(id="query", text=asked or "", image=image)]
    found = find_all(opened, encoder, shown, k) if sheet is not None or queries is None else []
    if queries is None:
        _show(found[0], as_json)
    if sheet is not None:
        title = f"{index.resolve().name}: {opened.manifest.documents:,} documents"
        drawn, left_out = readable_images(opened, found, images)
        missing = left_out + write_sheet(sheet, title, side_by_side.of_search(shown, drawn))
        say(f"written: {sheet}")
    else:
        paths = [one.document.image for of_query in found for one in of_query]
        missing = [f"{path}: no such image" for path in paths if path is not None and not path.exists()]
    say_missing_images(missing)


def _show(found: list[SearchResult], as_json: bool) -> None:
    pictured = any(one.document.image for one in found)
    columns = ["rank", "score", "id", "title", "text", *(["image"] if pictured else [])]
    rows = [[f.rank, f.score, f.document.id, f.document.title, _snippet(f.document.text),
             *([str(f.document.image or "")] if pictured else [])] for f in found]  # fmt: skip
    show_table(columns, rows, as_json=as_json)


def _snippet(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= SNIPPET else words[:SNIPPET].rpartition(" ")[0] + " ..."
