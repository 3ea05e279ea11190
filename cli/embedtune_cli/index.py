"""`embedtune index`: documents made searchable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .output import progress, say, say_left_out, show_table


def index(
    data: Annotated[str, typer.Argument(help="A dataset folder; its corpus.jsonl alone will do.", metavar="DATA")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The index folder.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="A model folder or hub id; with --add, the index's own.")
    ] = None,
    kind: Annotated[
        Literal["auto", "exact", "hnsw", "ivfpq"],
        typer.Option(help="auto: exact below 50,000 documents, hnsw below a million, else ivfpq."),
    ] = "auto",
    add: Annotated[bool, typer.Option("--add", help="Add the documents to the index that is there.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="With --add: replace documents that it has.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make the index that is there anew.")] = False,
    broken_images: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Leave documents with a broken image out, up to this share.", metavar="SHARE"),
    ] = None,
    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16"], typer.Option(help="What it computes in.")] = "fp32",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a folder that `embedtune search` searches: vectors, documents, and which model they belong to.

    Example: embedtune index data/scifact --model runs/scifact/model --output indexes/scifact

    Example: embedtune index data/new-documents --output indexes/scifact --add

    On several processes (torchrun --nproc-per-node 2 -m embedtune_cli index ...) all encode.
    """
    from embedtune import distributed as processes
    from embedtune.errors import InputError

    if add and (overwrite or kind != "auto"):
        raise InputError("--add keeps the index's kind and documents: leave out --overwrite and --kind")
    if replace and not add:
        raise InputError("--replace goes with --add; to make the index anew use --overwrite")
    if model is None and not add:
        raise InputError("no model to index with; name one with --model")

    from embedtune.models.encoder import load_encoder
    from embedtune.recipe import Model
    from embedtune.search.build import add_documents, build, read_source
    from embedtune.search.folder import open_index

    source = read_source(data, broken_images)
    if processes.leads():
        say_left_out(source.left_out)
    to_load = open_index(output).manifest.model_to_load(model) if model is None or add else Model(name=model)
    encoder = load_encoder(to_load, device=device, precision=precision)
    if not processes.leads():
        encoder.encode(source.documents, "document")
        return
    with progress("Encoding") as on_progress:
        if add:
            made = add_documents(encoder, source.documents, output, replace=replace, on_progress=on_progress)
        else:
            made = build(encoder, source, output, kind=kind, overwrite=overwrite, on_progress=on_progress)
    if made.recall:
        measured = "{queries:.0f} queries over {documents:.0f} documents".format(**made.recall)
        say(f"recall@{made.recall['k']:.0f} against exact search was measured with {measured}")
    row = [str(output), made.documents, made.kind, made.dimension, made.model, made.recall and made.recall["value"]]
    show_table(["index", "documents", "kind", "dimension", "model", "recall@10"], [row], as_json=as_json)
