"""`embedtune index`: documents made searchable."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import typer

from . import options
from .options import model_option, switch
from .output import progress, say, say_left_out, say_outside, show_table


def index(
    data: options.DataArgument,
    output: options.OutputFolder,
    model: Annotated[str | None, model_option("with --add, the index's model")] = None,
    kind: Annotated[
        Literal["auto", "exact", "hnsw", "ivfpq"],
        typer.Option(help="The FAISS index: auto is exact below 50,000 documents, hnsw below a million, else ivfpq."),
    ] = "auto",
    add: Annotated[bool, switch("--add", "Add the documents to the existing index.")] = False,
    replace: Annotated[
        bool, switch("--replace", "With --add: replace documents that the index already holds.")
    ] = False,
    truncate_dim: options.TruncateDim = None,
    quantize: options.Quantize = "none",
    rescore: options.Rescore = None,
    calibrate: options.Calibrate = None,
    id_column: options.IdColumn = "",
    title_column: options.TitleColumn = "",
    text_column: options.TextColumn = None,
    overwrite: options.Overwrite = False,
    broken_images: options.BrokenImages = None,
    passages: options.Passages = None,
    stride: options.Stride = None,
    precision: options.ModelPrecision = "fp32",
    device: options.Device = "auto",
    chunk_tokens: options.ChunkTokens = None,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
) -> None:
    """Encode a corpus into an index folder for `embedtune search`. Of a dataset, corpus.jsonl is enough.

    DATA may be a file of documents, one a row (.jsonl, .csv, .parquet, ...), whose columns are found by name.

    Example: embedtune index data/scifact --model runs/scifact/model --output indexes/scifact

    The calibration of int8 vectors is kept in the folder, and --add stores by it.

    Example: embedtune index data/scifact --model runs/scifact/model --output indexes/small --quantize int8

    Example: embedtune index data/scifact --model runs/scifact/model --passages 200 --stride 50 --output indexes/parts

    Example: embedtune index data/new-documents --output indexes/scifact --add

    Several processes share the encoding: torchrun --nproc-per-node 2 -m embedtune_cli index ...
    """
    from embedtune import distributed
    from embedtune.errors import InputError

    if add and (overwrite or kind != "auto"):
        raise InputError("--add keeps the index's kind and documents: leave out --overwrite and --kind")
    if add and (truncate_dim is not None or quantize != "none" or rescore is not None or calibrate is not None):
        raise InputError(
            "--add stores vectors as the index does: leave out --truncate-dim, --quantize, --rescore and --calibrate"
        )
    if add and (passages is not None or stride is not None):
        raise InputError("--add splits documents as the index does: leave out --passages and --stride")
    if replace and not add:
        raise InputError("--replace goes with --add; to build the index again use --overwrite")
    if model is None and not add:
        raise InputError("no model to encode the documents; name one with --model")

    from embedtune import recipe
    from embedtune.data.documents import TextColumns
    from embedtune.models.encoder import load_encoder
    from embedtune.search.build import add_documents, build, read_source
    from embedtune.search.folder import open_index
    from embedtune.search.storage import Storage

    documents = read_source(calibrate).documents if calibrate is not None else None
    storage = Storage(truncate_dim=truncate_dim, quantize=quantize, rescore=rescore, calibrate=documents)
    named = id_column or title_column or text_column
    columns = TextColumns(id=id_column, title=title_column, texts=tuple(text_column or ())) if named else None
    source = read_source(data, broken_images, columns)
    if distributed.leads():
        say_left_out(source.left_out)
    block = open_index(output).manifest.model_to_load(model) if add else recipe.Model(name=model)
    if not add:
        block = dataclasses.replace(block, passages=recipe.passages_of_flags(passages, stride))
    block = dataclasses.replace(block, chunk_tokens=chunk_tokens, trust_remote_code=trust_remote_code)
    encoder = load_encoder(block, device=device, precision=precision)
    if not distributed.leads():
        encoder.encode(encoder.split(source.documents), "document")
        return
    with progress("encoding") as on_progress:
        if add:
            built = add_documents(encoder, source.documents, output, replace=replace, on_progress=on_progress)
        else:
            built = build(
                encoder, source, output, kind=kind, storage=storage, overwrite=overwrite, on_progress=on_progress
            )
    if built.recall:
        measured = "{queries:.0f} queries over {documents:.0f} documents".format(**built.recall)
        say(f"recall@{built.recall['k']:.0f} against exact search was measured with {measured}")
    say_outside(built.outside)
    row = [str(output), built.documents, built.kind, built.dimension, built.quantize, built.bytes, built.model,
           built.recall and built.recall["value"]]  # fmt: skip
    show_table(
        ["index", "documents", "kind", "dimension", "stored", "bytes", "model", "recall@10"], [row], as_json=as_json
    )
