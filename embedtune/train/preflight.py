"""What a run will do, before it does it: read from the recipe, the data and the model's headers, without torch."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import distributed as processes
from .. import methods
from ..data.dataset import load_dataset, load_training
from ..errors import InputError
from ..models.locate import locate
from ..recipe import REVERSED, Lora, Recipe
from ..types import Dataset
from . import bound
from .bound import columns, comparing

# Activations kept for the backward pass, in bytes for each token, layer and hidden unit in fp32. Measured on MiniLM
# (1.6 GB for 9,000 tokens, 6 layers, 384 units); other architectures are of the same order.
ACTIVATION_BYTES = 80
TOKENS_IN_A_PIECE = 2048
_READS_VISION = {"image_token_id", "image_token_index"}  # in a config: the language part reads the vision part's output


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """The facts, as (name, sentence) lines."""

    lines: list[tuple[str, str]]


def preflight(recipe: Recipe, output: Path) -> Preflight:
    """Raises InputError for data or a model that are not there, as the run would."""
    dataset = load_training(recipe.data)
    refuse_without_texts(recipe, dataset)
    for name in (*recipe.evaluate.in_domain, *recipe.evaluate.out_of_domain):
        load_dataset(name)
    judged = [sum(grade > 0 for grade in documents.values()) for documents in dataset.qrels.values()]
    queries = sum(count > 0 for count in judged)
    share = recipe.data.validation.share if recipe.data.validation else 0.0
    pairs = round((sum(judged) if recipe.data.positives == "each" else queries) * (1 - share))
    train = recipe.train
    if train.batch_size > pairs:
        raise InputError(
            f"train.batch_size: {train.batch_size} is more than the {pairs} pairs of an epoch; choose at most {pairs}"
        )
    batches, first = math.ceil(pairs / train.batch_size), train.projections_first
    first_steps = max(1, math.ceil(batches * first.epochs / train.accumulate)) if first else 0
    steps = first_steps + max(1, math.ceil(batches * train.epochs / train.accumulate))
    steps = min(steps, train.max_steps) if train.max_steps else steps
    own = recipe.negatives.sampling.options.get("count", 4) if recipe.negatives.mining else 0
    started = processes.count()
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
                f"{train.batch_size} queries a batch over {started} process(es), {train.accumulate} batch(es) a step",
            ),
            ("negatives", _negatives(recipe, own)),
            *_scores(recipe, own),
            (
                "steps",
                f"about {steps:,} ({train.epochs:g} epoch(s) of {pairs:,} pairs)"
                + (f", of which the first {min(first_steps, steps):,} train the projections alone" * bool(first)),
            ),
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


def _negatives(recipe: Recipe, own: int) -> str:
    if recipe.negatives.live is not None:
        return (
            f"about {recipe.negatives.live.depth:,} that each query finds at that moment, and those of the batch; "
            "documents stay as the untouched model embeds them, and the saved model has a tower for each role"
        )
    size = recipe.train.batch_size
    return f"about {size - 1 + own * size:,} a query: those of the batch" + (f", of which {own} its own" if own else "")


def _scores(recipe: Recipe, own: int) -> list[tuple[str, str]]:
    """Of batches whose scores do not fit into one matrix of the largest size: what becomes of them."""
    queries, documents = recipe.train.batch_size, columns(recipe, own)
    if queries * documents <= bound.LARGEST_MATRIX:
        return []
    size, whole = 4 * bound.LARGEST_MATRIX / 2**20, 4 * queries * documents / 2**20
    asking = comparing(recipe)
    if not asking:
        rows = max(1, bound.LARGEST_MATRIX // documents)
        return [("scores", f"of about {rows:,} queries at a time, so that no matrix of them exceeds {size:,.0f} MiB")]
    return [
        (
            "scores",
            f"one matrix of about {queries:,} x {documents:,} ({whole:,.0f} MiB, and the objective holds several), not "
            f"bounded: {', '.join(asking)} compares queries with each other",
        )
    ]


def refuse_without_texts(recipe: Recipe, dataset: Dataset) -> None:
    """Raises InputError where rules for texts are given and not a single positive of the split has a text."""
    rules = [c.name for c in recipe.synthesis if methods.describe("synthesis", c.name).spec.kind == "texts"]
    positives = (doc_id for judged in dataset.qrels.values() for doc_id, grade in judged.items() if grade > 0)
    if rules and not any(dataset.corpus[doc_id].content for doc_id in positives):
        raise InputError(
            f"synthesis.{rules[0]}: makes negatives from the documents' texts, and the positives of {dataset.folder} "
            "are images without one; to make hard captions, let images be the queries: data.train: "
            f"{'' if dataset.reversed else REVERSED}{dataset.folder}"
        )


def _model_lines(recipe: Recipe, own: int) -> list[tuple[str, str]]:
    compose, lora = recipe.model.compose, recipe.model.lora
    names = {"model": recipe.model.label} if compose is None else {"text": compose.text, "image": compose.image}
    lines, sizes, pictured = [], [], compose is not None
    for what, name in names.items():
        folder = locate(name).folder
        if folder is None:
            lines.append((what, f"{name}, from the hub"))
            continue
        size = _size(folder, recipe.model.max_length or 0)
        how = "frozen" if compose is not None and compose.towers == "frozen" else _trained(size, lora)
        length = f", {size.length} tokens at most" if what != "image" else ""
        lines.append((what, f"{name}: {size.parameters:,} parameters, {how}{length}"))
        sizes.append(size)
        pictured = pictured or "vision_config" in size.config
        reads = "vision_config" in size.config and size.config.keys() & _READS_VISION
        if reads and lora is not None and lora.target_modules == "auto":
            lines.append(("vision", "frozen: LoRA adapts the language part alone (model.lora.target_modules: auto)"))
    if compose is not None:
        lines.append(("projections", f"into {compose.dimension} dimensions, trained"))
    if len(sizes) < len(names):
        return [*lines, ("memory", "known once the model is here")]
    if pictured:
        return [*lines, ("memory", "not estimated for images; train.chunk_size bounds it whatever the batch")]
    return [*lines, ("memory", _memory(recipe, own, sizes[0]))]


def _trained(size: _Size, lora: Lora | None) -> str:
    if lora is None:
        return "all trained"
    count = size.adapter(lora.rank)  # 0: of a kind that it is not known for
    return f"LoRA of rank {lora.rank}" + (f", about {count:,} trained" if count else "")


def _memory(recipe: Recipe, own: int, size: _Size) -> str:
    lora = recipe.model.lora
    if recipe.train.chunk_size is None:
        encoded = 1 if recipe.negatives.live is not None else 2 + own  # items a query
        tokens = recipe.train.batch_size * encoded * size.length
    else:
        tokens = min(recipe.train.chunk_size * size.length, TOKENS_IN_A_PIECE)
    trained = size.adapter(lora.rank) if lora else size.parameters
    memory = 4 * size.parameters + 12 * trained + ACTIVATION_BYTES * tokens * size.layers * size.hidden
    return (
        f"at most about {memory / 2**30:.1f} GiB and the libraries' own 0.7 GiB; "
        "train.chunk_size bounds it whatever the batch"
    )


@dataclass(frozen=True)
class _Size:
    """What a model's files say of it. length: tokens at most, of those that the recipe allows."""

    parameters: int
    hidden: int
    layers: int
    length: int
    config: dict[str, Any]

    def adapter(self, rank: int) -> int:
        """Each adapted matrix gets rank x (in + out) parameters; attention and MLP of a layer: about 18 x hidden."""
        return rank * 18 * self.hidden * self.layers


def _size(folder: Path, length: int) -> _Size:
    files = [*folder.rglob("*.safetensors")] or [*folder.rglob("*.pth")]
    parameters = sum(_parameters(file) if file.suffix == ".safetensors" else file.stat().st_size // 4 for file in files)
    config = _config(folder)
    sizes = config if "hidden_size" in config else config.get("text_config", {})
    hidden, layers = sizes.get("hidden_size", 0), sizes.get("num_hidden_layers", 0)
    return _Size(parameters, hidden, layers, length or sizes.get("max_position_embeddings", 512), config)


def _config(folder: Path) -> dict[str, Any]:
    """config.json; a multimodal model keeps the sizes of its language part under text_config."""
    path = next((p for p in (folder / "config.json", *sorted(folder.glob("*/config.json"))) if p.exists()), None)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path else {}
    return found


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
