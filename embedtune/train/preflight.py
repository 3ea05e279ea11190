"""What a run will do, before it does it: read from the recipe, the data and the model's headers, without torch."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

from ..data.dataset import load_dataset, load_training
from ..encode.locate import locate
from ..errors import InputError
from ..recipe import Recipe

# Activations kept for the backward pass, in bytes for each token, layer and hidden unit in fp32. Measured on MiniLM
# (1.6 GB for 9,000 tokens, 6 layers, 384 units); other architectures are of the same order.
ACTIVATION_BYTES = 80
TOKENS_IN_A_PIECE = 2048


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """The facts, as (name, sentence) lines."""

    lines: list[tuple[str, str]]


def preflight(recipe: Recipe, output: Path) -> Preflight:
    """Raises InputError for data or a model that are not there, as the run would."""
    dataset = load_training(recipe.data)
    for name in (*recipe.evaluate.in_domain, *recipe.evaluate.out_of_domain):
        load_dataset(name)
    judged = [sum(grade > 0 for grade in documents.values()) for documents in dataset.qrels.values()]
    queries = sum(count > 0 for count in judged)
    share = recipe.data.validation.share if recipe.data.validation else 0.0
    turns = round((sum(judged) if recipe.data.positives == "each" else queries) * (1 - share))
    train = recipe.train
    if train.batch_size > turns:
        raise InputError(
            f"train.batch_size: {train.batch_size} is more than the {turns} turns of an epoch; choose at most {turns}"
        )
    steps = max(1, math.ceil(math.ceil(turns / train.batch_size) * train.epochs / train.accumulate))
    steps = min(steps, train.max_steps) if train.max_steps else steps
    own = recipe.negatives.sampling.options.get("count", 4) if recipe.negatives.mining else 0
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return Preflight(
        lines=[
            (
                "data",
                f"{dataset.folder}, split {dataset.split}: {queries:,} queries with {sum(judged):,} positives, "
                f"{len(dataset.corpus):,} documents"
                + (f"; {len(judged) - queries:,} queries without a positive are left out" * (queries < len(judged)))
                + (f"; {len(dataset.left_out):,} items with a broken image are left out" * bool(dataset.left_out)),
            ),
            ("validation", f"{share:.0%} of the queries, by {recipe.evaluate.measure}" if share else "none"),
            (
                "batch",
                f"{train.batch_size} queries a batch over {processes} process(es), {train.accumulate} batch(es) a step",
            ),
            (
                "negatives",
                f"about {train.batch_size - 1 + own * train.batch_size:,} a query: those of the batch"
                + (f", of which {own} its own" if own else ""),
            ),
            ("steps", f"about {steps:,} ({train.epochs:g} epoch(s) of {turns:,} turns)"),
            *_model_lines(recipe, own),
            ("precision", _precision(recipe)),
            ("dropout", "off (model.dropout: off)" if recipe.model.dropout == "off" else "the model's own"),
            (
                "writes",
                f"{output}/: recipe.yaml, model/"
                + (", adapter/" if recipe.model.lora else "")
                + ", checkpoints/, log.jsonl, evaluation/",
            ),
        ]
    )


def _model_lines(recipe: Recipe, own: int) -> list[tuple[str, str]]:
    folder = locate(recipe.model.name).folder
    if folder is None:
        return [("model", f"{recipe.model.name}, from the hub"), ("memory", "known once the model is here")]
    config = _config(folder)
    total = sum(_parameters(file) for file in folder.rglob("*.safetensors"))
    hidden, layers = config.get("hidden_size", 0), config.get("num_hidden_layers", 0)
    lora = recipe.model.lora
    # Each adapted matrix gets rank x (in + out) parameters; attention and MLP of a layer come to about 18 x hidden.
    trained = lora.rank * 18 * hidden * layers if lora else total
    how = f"LoRA of rank {lora.rank}, about {trained:,} trained" if lora else "all trained"
    length = recipe.model.max_length or config.get("max_position_embeddings", 512)
    if recipe.train.chunk_size is None:
        tokens = recipe.train.batch_size * (2 + own) * length
    else:
        tokens = min(recipe.train.chunk_size * length, TOKENS_IN_A_PIECE)
    memory = 4 * total + 12 * trained + ACTIVATION_BYTES * tokens * layers * hidden
    return [
        ("model", f"{recipe.model.name}: {total:,} parameters, {how}, {length} tokens at most"),
        (
            "memory",
            f"at most about {memory / 2**30:.1f} GiB and the libraries' own 0.7 GiB; "
            "train.chunk_size bounds it whatever the batch",
        ),
    ]


def _config(folder: Path) -> dict[str, int]:
    """The sizes in config.json; a multimodal model keeps those of its language part under text_config."""
    path = next((p for p in (folder / "config.json", *sorted(folder.glob("*/config.json"))) if p.exists()), None)
    found = json.loads(path.read_text(encoding="utf-8")) if path else {}
    sizes: dict[str, int] = found if "hidden_size" in found else found.get("text_config", {})
    return sizes


def _parameters(file: Path) -> int:
    """From the header of a safetensors file: 8 bytes of length, then JSON."""
    with file.open("rb") as handle:
        size = int.from_bytes(handle.read(8), "little")
        header = json.loads(handle.read(size))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


def _precision(recipe: Recipe) -> str:
    if recipe.train.precision != "auto":
        return recipe.train.precision
    if list(Path("/dev").glob("nvidia[0-9]*")):
        return "auto: bf16 on this GPU, or fp16 where it has no bf16"
    information = Path("/proc/cpuinfo")
    flags = information.read_text(encoding="utf-8") if information.exists() else ""
    native = "avx512_bf16" in flags or "amx_bf16" in flags
    return "auto: bf16, which this processor has" if native else "auto: fp32 (this processor has no bf16 instructions)"
