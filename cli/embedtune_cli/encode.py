"""`embedtune encode`: a dataset's embeddings as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .output import progress, say


def encode(
    data: Annotated[str, typer.Argument(help="A dataset folder, or DIR:split.", metavar="DATA")],
    model: Annotated[str, typer.Option("--model", "-m", help="A model folder or hub id.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to make.")],
    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16"], typer.Option(help="What it computes in.")] = "fp32",
    dtype: Annotated[Literal["float32", "float16"], typer.Option(help="What is stored.")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, mps.")] = "auto",
    max_length: Annotated[int | None, typer.Option(min=1, help="Tokens; the model's own if not given.")] = None,
) -> None:
    """Encode a dataset's corpus and queries into .npy files with their ids and a manifest.

    Example: embedtune encode data/scifact --model sentence-transformers/all-MiniLM-L6-v2 --output embeddings/scifact

    On several processes: torchrun --nproc-per-node 2 -m embedtune_cli encode ...
    """
    from embedtune import distributed as processes
    from embedtune.data.dataset import load_dataset
    from embedtune.models.encoder import load_encoder
    from embedtune.models.export import encode_dataset
    from embedtune.recipe import Model

    dataset = load_dataset(data)
    encoder = load_encoder(Model(name=model, max_length=max_length), device=device, precision=precision)
    if not processes.leads():
        encoder.encode(dataset.corpus, "document")
        encoder.encode(dataset.queries, "query")
        return
    with progress("Encoding") as on_progress:
        manifest = encode_dataset(encoder, dataset, output, dtype=dtype, on_progress=on_progress)
    say(f"{output}: {manifest['corpus']} documents, {manifest['queries']} queries, {manifest['dimension']} dimensions")
