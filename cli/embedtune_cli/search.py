"""`embedtune search`: what an index finds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .output import say, show_table

SNIPPET = 160  # characters


def search(
    index: Annotated[Path, typer.Argument(help="An index folder.", metavar="DIR")],
    words: Annotated[str | None, typer.Argument(help="What to search for.", show_default=False)] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many documents to find.")] = 10,
    queries: Annotated[
        Path | None, typer.Option("--queries", help="A queries.jsonl, or a dataset folder that holds one.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="With --queries: the TREC run to write.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Where the index's model is now; else where it was.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Search an index by words, or by a file of queries.

    Example: embedtune search indexes/scifact "does vitamin D prevent influenza" -k 5

    Example: embedtune search indexes/scifact --queries data/scifact --output scifact.run -k 100
    """
    from embedtune.errors import InputError

    if (words is None) == (queries is None):
        raise InputError("expected words to search for or --queries FILE, and not both")
    if words is not None and not words.strip():
        raise InputError("the query is empty; give some words")
    if (queries is None) != (output is None):
        raise InputError("--queries FILE and --output RUN go together")
    if output is not None and output.exists() and not overwrite:
        raise InputError(f"{output}: exists already; choose another --output, or replace it with --overwrite")

    from embedtune.data.jsonl import JsonLines
    from embedtune.data.trec import write_run
    from embedtune.encode.encoder import load_encoder
    from embedtune.index import find, open_index

    opened = open_index(index)
    encoder = load_encoder(opened.manifest.model_to_load(model), device=device)
    if words is not None:
        found = find(opened, encoder, words, k)
        pictured = any(f.document.image for f in found)
        columns = ["rank", "score", "id", "title", "text", *(["image"] if pictured else [])]
        rows = [[f.rank, f.score, f.document.id, f.document.title, _snippet(f.document.text),
                 *([str(f.document.image or "")] if pictured else [])] for f in found]  # fmt: skip
        show_table(columns, rows, as_json=as_json)
    elif queries is not None and output is not None:
        items = JsonLines(queries / "queries.jsonl" if queries.is_dir() else queries)
        write_run(output, opened.run(encoder, items, k), Path(encoder.name).name)
        say(f"written: {output} ({len(items)} queries)")


def _snippet(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= SNIPPET else words[:SNIPPET].rpartition(" ")[0] + " ..."
