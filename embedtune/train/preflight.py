"""What a run will do, read from the recipe, the data and the model's headers, without torch."""

from __future__ import annotations

import math
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from .. import distributed, methods
from ..data.dataset import load_dataset, load_training
from ..data.jsonl import read_json_object
from ..errors import InputError, reason
from ..evaluate.results import distinct
from ..evaluate.slices import refuse_unknown_slices
from ..models import TOKENS_PER_CHUNK
from ..models.folders import ADAPTER_CONFIG, base_of_adapter, locate
from ..recipe import REVERSED, Lora, Recipe
from ..types import Dataset
from . import sizes
from .lineage import facts_of_lineage

# Activations kept for the backward pass, in bytes for each token, layer and hidden unit in fp32. Measured on MiniLM
# (1.6 GB for 9,000 tokens, 6 layers, 384 units); other architectures are of the same order.
ACTIVATION_BYTES = 80
_READS_VISION = {"image_token_id", "image_token_index"}  # in a config: the language part reads the vision part's output


def preflight(recipe: Recipe, output: Path) -> dict[str, str]:
    """The facts of a run, each by its name in a sentence. Raises InputError for missing data or model, as the run
    would."""
    dataset = load_training(recipe.data)
    refuse_without_texts(recipe, dataset)
    load_suites(recipe)
    train, validation = recipe.train, recipe.data.validation
    query_ids, _ = sizes.training_queries(dataset, validation, train.seed)
    pairs = sizes.pair_count(dataset, query_ids, recipe.data.positives)
    sizes.check_batch_size(dataset, pairs, train.batch_size)
    first, steps = sizes.steps_of(train, sizes.batch_count(pairs, train.batch_size))
    alone = f"; the first {min(first, steps):,} train the projections alone" if first else ""
    share = f"{validation.share:.0%} of the queries, by {recipe.evaluate.measure}" if validation else "none"
    batch = f"{train.batch_size} queries a batch over {distributed.count()} process(es)"
    adapter = ", adapter/" if recipe.model.lora else ""
    return {
        "data": _data(dataset),
        "validation": share,
        "batch": f"{batch}, {train.accumulate} batch(es) a step",
        "negatives": _negatives(recipe),
        **_scores(recipe),
        "steps": f"about {steps:,} ({train.epochs:g} epoch(s) of {pairs:,} pairs){alone}",
        **_model(recipe),
        **facts_of_lineage(recipe),
        "precision": _precision(recipe),
        "dropout": "off (model.dropout: off)" if recipe.model.dropout == "off" else "the model's own",
        "writes": f"{output}/: recipe.yaml, model/{adapter}, checkpoints/, log.jsonl, evaluation/",
    }


def load_suites(recipe: Recipe) -> list[Dataset]:
    """The sets to evaluate on: those in domain, then those out of it.

    Raises InputError for one that is named twice, and for `evaluate.slices` that none of them has.
    """
    suites = distinct([load_dataset(name) for name in (*recipe.evaluate.in_domain, *recipe.evaluate.out_of_domain)])
    refuse_unknown_slices(recipe.evaluate.slices, suites)
    return suites


def measures_of(recipe: Recipe) -> list[str]:
    """The measures of a run's evaluations: the one that chooses, the guard's, and those to report."""
    guard = recipe.evaluate.guard
    guarded = [guard.measure] if guard and guard.measure else []
    return list(dict.fromkeys([recipe.evaluate.measure, *guarded, *recipe.evaluate.measures]))


def _data(dataset: Dataset) -> str:
    judged = [sum(grade > 0 for grade in documents.values()) for documents in dataset.qrels.values()]
    queries = sum(count > 0 for count in judged)
    return (
        f"{dataset.folder}, split {dataset.split}: {queries:,} queries with {sum(judged):,} positives, "
        f"{len(dataset.corpus):,} documents"
        + (f"; {len(judged) - queries:,} queries without a positive are left out" * (queries < len(judged)))
        + (f"; {len(dataset.left_out):,} items with a broken image are left out" * bool(dataset.left_out))
    )


def _negatives(recipe: Recipe) -> str:
    if recipe.negatives.live is not None:
        return (
            f"about {recipe.negatives.live.depth:,} that each query finds at that moment, and those of the batch; "
            "documents stay as the untouched model embeds them, and the saved model has a tower for each role"
        )
    size, mined = recipe.train.batch_size, sizes.own_negatives(recipe)
    share = f", {mined} of them its own" if mined else ""
    return f"about {size - 1 + mined * size:,} a query: those of the batch{share}"


def _scores(recipe: Recipe) -> dict[str, str]:
    """For batches whose scores exceed the largest matrix: how they are taken."""
    queries, documents = recipe.train.batch_size, sizes.columns(recipe)
    if queries * documents <= sizes.LARGEST_MATRIX:
        return {}
    largest, whole = 4 * sizes.LARGEST_MATRIX / 2**20, 4 * queries * documents / 2**20
    comparing = sizes.comparing(recipe)
    if not comparing:
        rows = max(1, sizes.LARGEST_MATRIX // documents)
        return {"scores": f"of about {rows:,} queries at a time, so that no matrix of them exceeds {largest:,.0f} MiB"}
    matrix = f"one matrix of about {queries:,} x {documents:,} ({whole:,.0f} MiB, and the objective holds several)"
    return {"scores": f"{matrix}, not bounded: {', '.join(comparing)} compares queries with each other"}


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


def _model(recipe: Recipe) -> dict[str, str]:
    compose, lora = recipe.model.compose, recipe.model.lora
    names = {"model": recipe.model.label} if compose is None else {"text": compose.text, "image": compose.image}
    facts, models, pictured = {}, [], compose is not None
    for part, name in names.items():
        folder = with_weights(locate(name).folder)
        if folder is None:
            facts[part] = f"{name}, from the hub"
            continue
        model = model_size(folder, recipe.model.max_length)
        how = "frozen" if compose is not None and compose.towers == "frozen" else _trained(model, lora)
        length = f", {model.length} tokens at most" if part != "image" else ""
        if (passages := recipe.model.passages) is not None:
            length += f", longer documents in passages of {passages.tokens} (stride {passages.stride})"
        facts[part] = f"{name}: {model.parameters:,} parameters, {how}{length}"
        models.append(model)
        pictured = pictured or "vision_config" in model.config
        reads = "vision_config" in model.config and model.config.keys() & _READS_VISION
        if reads and lora is not None and lora.target_modules == "auto":
            facts["vision"] = "frozen: LoRA adapts the language part alone (model.lora.target_modules: auto)"
    if compose is not None:
        facts["projections"] = f"into {compose.dimension} dimensions, trained"
    if len(models) < len(names):
        facts["memory"] = "known once the model is here"
    elif pictured:
        facts["memory"] = "not estimated for images; train.chunk_size bounds it for any batch"
    else:
        facts["memory"] = _memory(recipe, models[0])
    return facts


def size_of_model(recipe: Recipe) -> ModelSize | None:
    """The size of a single model of texts that is on this machine; None of others."""
    if recipe.model.compose is not None or (folder := with_weights(locate(recipe.model.label).folder)) is None:
        return None
    model = model_size(folder, recipe.model.max_length)
    return None if "vision_config" in model.config else model


def is_here(recipe: Recipe) -> bool:
    """Whether the model, or every tower of it, is on this machine."""
    compose = recipe.model.compose
    names = [recipe.model.label] if compose is None else [compose.text, compose.image]
    return all(with_weights(locate(name).folder) is not None for name in names)


def _trained(model: ModelSize, lora: Lora | None) -> str:
    if lora is None:
        return "all trained"
    count = model.adapter(lora.rank)  # 0: of a kind that it is not known for
    return f"LoRA of rank {lora.rank}" + (f", about {count:,} trained" if count else "")


def _memory(recipe: Recipe, model: ModelSize) -> str:
    return (
        f"at most about {training_bytes(recipe, model) / 2**30:.1f} GiB and the libraries' own 0.7 GiB; "
        "train.chunk_size bounds it for any batch"
    )


def training_bytes(recipe: Recipe, model: ModelSize) -> int:
    """Bytes of weights, optimizer and activations at most, where every item has the recipe's maximum length."""
    lora, train = recipe.model.lora, recipe.train
    if train.chunk_size is None:
        encoded = 1 if recipe.negatives.live is not None else 2 + sizes.own_negatives(recipe)  # items a query
        tokens = train.batch_size * encoded * model.length
    else:
        tokens = min(train.chunk_size * model.length, TOKENS_PER_CHUNK[device_kind()])
    trained = model.adapter(lora.rank) if lora else model.parameters
    return 4 * model.parameters + 12 * trained + ACTIVATION_BYTES * tokens * model.layers * model.hidden


@dataclass(frozen=True)
class ModelSize:
    """A model's size, by its files. length: tokens of the longest item that the recipe allows."""

    parameters: int
    hidden: int
    layers: int
    length: int
    config: dict[str, Any]

    def adapter(self, rank: int) -> int:
        """Each adapted matrix gets rank x (in + out) parameters; attention and MLP of a layer: about 18 x hidden."""
        return rank * 18 * self.hidden * self.layers


def with_weights(folder: Path | None) -> Path | None:
    """The folder with a model's weights: an adapter's is its base's. None for a model on the hub."""
    while folder is not None and (folder / ADAPTER_CONFIG).exists():
        folder = locate(base_of_adapter(folder)).folder
    return folder


def model_size(folder: Path, max_length: int | None) -> ModelSize:
    files = next((files for end in ("safetensors", "bin", "pth") if (files := [*folder.rglob(f"*.{end}")])), [])
    parameters = sum(_parameters(file) if file.suffix == ".safetensors" else file.stat().st_size // 4 for file in files)
    config = _config(folder)
    language = config if "hidden_size" in config else config.get("text_config", {})
    length = max_length or language.get("max_position_embeddings", 512)
    return ModelSize(parameters, language.get("hidden_size", 0), language.get("num_hidden_layers", 0), length, config)


def _config(folder: Path) -> dict[str, Any]:
    """config.json; a multimodal model keeps the sizes of its language part under text_config."""
    path = next((p for p in (folder / "config.json", *sorted(folder.glob("*/config.json"))) if p.exists()), None)
    return read_json_object(path) if path else {}


def _parameters(file: Path) -> int:
    """From the header of a safetensors file. Raises InputError for a damaged one."""
    try:
        with safe_open(file, framework="numpy") as weights:
            return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{file}: damaged weights: {reason(error)}") from None


def _precision(recipe: Recipe) -> str:
    if recipe.train.precision != "auto":
        return recipe.train.precision
    if device_kind() == "cuda":
        return "auto: bf16 on this GPU, or fp16 where it has no bf16"
    information = Path("/proc/cpuinfo")
    flags = information.read_text(encoding="utf-8") if information.exists() else ""
    native = "avx512_bf16" in flags or "amx_bf16" in flags
    return "auto: bf16, which this processor has" if native else "auto: fp32 (this processor has no bf16 instructions)"


def device_kind() -> str:
    """The kind of device that the run will use, without asking torch."""
    if list(Path("/dev").glob("nvidia[0-9]*")) and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
        return "cuda"
    return "mps" if (sys.platform, platform.machine()) == ("darwin", "arm64") else "cpu"
