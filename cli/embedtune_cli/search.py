"""`embedtune search`: the documents of an index that match a query."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from . import options
from .options import IMAGE_FOLDER_HELP, MODEL_HELP, QUANTIZE_HELP, argument, option, output_option
from .output import say, say_missing_images, show_table

if TYPE_CHECKING:
    from embedtune.search.folder import SearchResult

SNIPPET = 160  # characters
MOST_SHEET_QUERIES = 12


def search(
    index: Annotated[Path, argument("INDEX", "An index folder.")],
    words: Annotated[str | None, typer.Argument(metavar="WORDS", help="The query's text.", show_default=False)] = None,
    text: Annotated[str | None, typer.Option("--text", hidden=True)] = None,
    image: Annotated[
        Path | None,
        option(
            "FILE",
            "The query's image. With WORDS too, a model that reads both encodes both; else the embeddings' mean.",
            "--image",
        ),
    ] = None,
    k: Annotated[int, option("K", "How many documents to list for a query.", "-k", min=1)] = 10,
    queries: Annotated[
        str | None, option("FILE|DIR[:SPLIT]", "Search for all queries of a .jsonl or dataset.", "--queries")
    ] = None,
    output: Annotated[Path | None, output_option("FILE", "with --queries, a TREC run")] = None,
    sheet: options.Sheet = None,
    image_folder: Annotated[
        list[Path], option("DIR...", IMAGE_FOLDER_HELP, default="the folder that was indexed")
    ] = [],  # noqa: B006
    model: Annotated[
        str | None,
        option(
            "MODEL",
            f"The model that encodes queries, if the index's has moved. {MODEL_HELP}",
            "--model",
            "-m",
            default="the index's model",
        ),
    ] = None,
    truncate_dim: options.TruncateDim = None,
    quantize: Annotated[
        Literal["none", "float16", "int8", "binary"] | None,
        option("FORMAT", QUANTIZE_HELP, "--quantize", default="as the index stores them"),
    ] = None,
    rescore: options.Rescore = None,
    overwrite: options.Overwrite = False,
    chunk_tokens: options.ChunkTokens = None,
    device: options.Device = "auto",
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
) -> None:
    """Search an index by words, by an image, by both, or by a file of queries.

    An index of passages gives each document once, with its best passage and where in the text that starts and ends, in
    characters.

    --model says where the index's model is now, if it has moved. A sheet of --queries shows the first 12 of them. It
    shows only images in the folder that was indexed and in folders named by --image-folder.

    --truncate-dim and --quantize try a smaller index: the vectors of an exact float32 index are stored so in memory.

    Example: embedtune search indexes/scifact "does vitamin D prevent influenza" -k 5

    Example: embedtune search indexes/emoji "with a hat" --image cat.jpg --sheet found.png

    Example: embedtune search indexes/scifact --queries data/scifact:test --output scifact.run -k 100
    """
    from embedtune import distributed
    from embedtune.errors import InputError

    if words is not None and text is not None:
        raise InputError("--text is the former spelling of WORDS; leave --text out")
    query_text = words if words is not None else text
    asks_one = query_text is not None or image is not None
    contradictions = {
        "name one query (WORDS, --image FILE or both) or --queries, and not both": asks_one == (queries is not None),
        "the query is empty; give some words": query_text is not None and not query_text.strip(),
        "--output goes with --queries": queries is None and output is not None,
        "--queries needs --output FILE, --sheet FILE, or both": bool(queries and not output and not sheet),
        "--json has no effect with --queries, whose results are written to --output": bool(queries and as_json),
        "--overwrite has no effect without --output or --sheet": bool(overwrite and not output and not sheet),
        "--image-folder has no effect without --sheet": bool(image_folder and not sheet),
    }
    for message, applies in contradictions.items():
        if applies:
            raise InputError(message)
    if not distributed.leads():  # queries are few: one process does all
        return

    from embedtune.data.dataset import load_queries
    from embedtune.data.trec import SEARCHED, write_run
    from embedtune.files import check_file
    from embedtune.models.encoder import load_encoder
    from embedtune.report.sheet import refuse, rows_of_search, write_sheet
    from embedtune.search.folder import find_all, open_index, readable_images
    from embedtune.types import Item

    if output is not None:
        check_file(output, SEARCHED, overwrite=overwrite)
    if sheet is not None:
        refuse(sheet, overwrite=overwrite)
    opened = open_index(index).stored_as(truncate_dim, quantize, rescore)
    block = dataclasses.replace(
        opened.manifest.model_to_load(model), chunk_tokens=chunk_tokens, trust_remote_code=trust_remote_code
    )
    if queries is not None:
        items = load_queries(queries)
        shown = [items[query_id] for query_id in items.ids[:MOST_SHEET_QUERIES]]
    else:
        items = None
        shown = [Item(id="query", text=query_text or "", image=image)]
    encoder = load_encoder(block, device=device)
    if items is not None and output is not None:
        write_run(output, opened.run(encoder, items, k), f"search:{Path(encoder.name).name}")
        say(f"written: {output} ({len(items)} queries)")
    results = find_all(opened, encoder, shown, k) if sheet is not None or queries is None else []
    if queries is None:
        _show(results[0], as_json)
    if sheet is not None:
        title = f"{index.resolve().name}: {opened.manifest.documents:,} documents"
        drawn, left_out = readable_images(opened, results, image_folder)
        missing = left_out + write_sheet(sheet, title, rows_of_search(shown, drawn))
        say(f"written: {sheet}")
    else:
        paths = [result.document.image for of_query in results for result in of_query]
        missing = [f"{path}: no such image" for path in paths if path is not None and not path.exists()]
    say_missing_images(missing)


def _show(results: list[SearchResult], as_json: bool) -> None:
    pictured = any(result.document.image for result in results)
    split = any(result.span is not None for result in results)
    columns = ["rank", "score", "id", "title", *(["start", "end", "passage"] if split else ["text"])]
    shown = _snippet if sys.stdout.isatty() and not as_json else str
    rows = [[r.rank, r.score, r.document.id, r.document.title, *(r.span or ()), shown(r.passage),
             *([str(r.document.image or "")] if pictured else []), *([r.document.text] if split and as_json else [])]
            for r in results]  # fmt: skip
    columns += [*(["image"] if pictured else []), *(["text"] if split and as_json else [])]
    show_table(columns, rows, as_json=as_json)


def _snippet(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= SNIPPET else words[:SNIPPET].rpartition(" ")[0] + " ..."
