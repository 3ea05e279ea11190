"""`embedtune encode`: a dataset's embeddings as files."""

from __future__ import annotations

from . import options
from .output import progress, say, say_outside, show_json


def encode(
    data: options.DataArgument,
    model: options.Model,
    output: options.OutputFolder,
    precision: options.ModelPrecision = "fp32",
    truncate_dim: options.TruncateDim = None,
    quantize: options.Quantize = "none",
    calibrate: options.Calibrate = None,
    device: options.Device = "auto",
    max_length: options.MaxLength = None,
    chunk_tokens: options.ChunkTokens = None,
    passages: options.Passages = None,
    stride: options.Stride = None,
    overwrite: options.Overwrite = False,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
) -> None:
    """Encode a dataset's corpus and queries, or a file of documents, into .npy files, with ids and a manifest.

    Vectors are cut and quantised as sentence-transformers does, without being normalised again. Beside int8 vectors
    stands calibration.npy, the smallest and the largest value of each dimension.

    With --passages each row is a passage: its id is its document's, # and its number, and corpus.spans.npy says where
    its text starts and ends in its document's, in characters.

    Example: embedtune encode data/scifact --model sentence-transformers/all-MiniLM-L6-v2 --output embeddings/scifact

    Several processes share the work: torchrun --nproc-per-node 2 -m embedtune_cli encode ...
    """
    from embedtune import distributed, recipe
    from embedtune.data.dataset import load_to_encode
    from embedtune.models.encoder import load_encoder
    from embedtune.search.build import read_source
    from embedtune.search.embeddings import encode_dataset
    from embedtune.search.storage import Storage

    documents = read_source(calibrate).documents if calibrate is not None else None
    storage = Storage(truncate_dim=truncate_dim, quantize=quantize, calibrate=documents)
    dataset = load_to_encode(data)
    block = recipe.Model(
        name=model,
        max_length=max_length,
        chunk_tokens=chunk_tokens,
        passages=recipe.passages_of_flags(passages, stride),
        trust_remote_code=trust_remote_code,
    )
    encoder = load_encoder(block, device=device, precision=precision)
    if not distributed.leads():
        encoder.encode(encoder.split(dataset.corpus), "document")
        if len(dataset.queries):
            encoder.encode(dataset.queries, "query")
        return
    with progress("encoding") as on_progress:
        written = encode_dataset(
            encoder, dataset, output, storage=storage, overwrite=overwrite, on_progress=on_progress
        )
    rows = f"{written['corpus']} {'documents' if passages is None else 'passages'}"
    counts = f"{rows}, {written['queries']} queries, {written['dimension']} dimensions"
    if as_json:
        show_json({"output": str(output), **written})
    say(f"{output}: {counts}, {written['bytes']} bytes a document")
    say_outside(written.get("outside_calibration", 0.0))
