"""`embedtune encode`: a dataset's embeddings as files."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from . import options
from .output import progress, say


def encode(
    data: options.DataArgument,
    model: options.Model,
    output: options.OutputFolder,
    precision: options.ModelPrecision = "fp32",
    dtype: Annotated[
        Literal["float32", "float16"], typer.Option(help="The number format of the stored vectors.")
    ] = "float32",
    device: options.Device = "auto",
    max_length: options.MaxLength = None,
    overwrite: options.Overwrite = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Encode a dataset's corpus and queries into .npy files, with their ids and a manifest.

    Example: embedtune encode data/scifact --model sentence-transformers/all-MiniLM-L6-v2 --output embeddings/scifact

    Several processes share the work: torchrun --nproc-per-node 2 -m embedtune_cli encode ...
    """
    from embedtune import distributed, recipe
    from embedtune.data.dataset import load_dataset
    from embedtune.models.encoder import load_encoder
    from embedtune.models.export import encode_dataset

    dataset = load_dataset(data)
    block = recipe.Model(name=model, max_length=max_length, trust_remote_code=trust_remote_code)
    encoder = load_encoder(block, device=device, precision=precision)
    if not distributed.leads():
        encoder.encode(dataset.corpus, "document")
        encoder.encode(dataset.queries, "query")
        return
    with progress("encoding") as on_progress:
        manifest = encode_dataset(encoder, dataset, output, dtype=dtype, overwrite=overwrite, on_progress=on_progress)
    say(f"{output}: {manifest['corpus']} documents, {manifest['queries']} queries, {manifest['dimension']} dimensions")
