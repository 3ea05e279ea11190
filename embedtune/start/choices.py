"""A first recipe's choices. Each is a YAML line and its reason, with the figures that decided it."""

from __future__ import annotations

import json
import math
import textwrap
from dataclasses import dataclass

from ..data.resolution import smallest_difference
from ..train.sizes import batch_count
from .facts import DataFacts, Machine, ModelFacts

FIRST_LINE = "# A first recipe, by `embedtune init`"
SCHEMA_FILE = "recipe.schema.json"
LARGE = 500_000_000  # parameters from which an adapter is trained
MOST_VALIDATED = 20_000  # documents that a validation ranks
FEW_DOCUMENTS = 50  # below these, a batch sees most of the corpus


@dataclass(frozen=True, kw_only=True)
class Names:
    """The names that the recipe gives: its data, the sets to evaluate on, the model. guards: name -> its queries."""

    recipe: str
    train: str
    split: str
    test: str
    guards: dict[str, int]
    compose: tuple[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Reasoned:
    """YAML lines, and the reason for them."""

    yaml: str
    reason: str = ""


def recipe_text(names: Names, data: DataFacts, model: ModelFacts | None, machine: Machine, chunk: int | None) -> str:
    """The recipe's YAML with its comments. model: None for a model composed of names.compose. chunk: the chunk size,
    where the batch does not fit into memory at once."""
    head = [
        FIRST_LINE,
        "#",
        f"#   embedtune train {names.recipe} --dry-run        what it does, and about how long it takes",
        f"#   embedtune train {names.recipe}",
        "#",
        f"# `embedtune recipes schema --output {SCHEMA_FILE}` lets an editor complete and check the keys:",
        f"# yaml-language-server: $schema={SCHEMA_FILE}",
    ]
    composed = names.compose is not None
    choices = [Reasoned(yaml="version: 1"), _model(names, data, model, machine), _data(names, data)]
    if not composed:
        choices.append(_negatives(data, model))
    choices += [_loss(composed), _train(data, model, machine, chunk), _evaluate(names, data, composed)]
    return "\n".join([*head, *map(_shown, choices)]) + "\n"


def _shown(choice: Reasoned) -> str:
    wrapped = [line for part in choice.reason.split("\n") for line in textwrap.wrap(part, 112)]
    return "\n".join([*(f"# {line}" for line in wrapped), choice.yaml])


def batch_size(data: DataFacts, machine: Machine) -> int:
    """32, as in the recipes that were measured; more where there is more data; eight batches an epoch, but at least 8
    queries, which are each other's negatives."""
    pairs, size = data.pairs, 32
    if pairs >= 10_000:
        size = 64 if machine.kind == "cpu" else 128
    while size > 8 and size * 8 > pairs:
        size //= 2
    return size if size <= pairs else max(2, pairs // 2)


def max_length(data: DataFacts, limit: int | None) -> int:
    """The 95th percentile of the longer role, rounded up to 32 tokens, within the model's limit."""
    wanted = max(32, 32 * math.ceil(max(lengths.p95 for lengths in data.lengths.values()) / 32))
    return min(wanted, limit or 512)


def _model(names: Names, data: DataFacts, model: ModelFacts | None, machine: Machine) -> Reasoned:
    if names.compose is not None:
        text, image = names.compose
        yaml = (
            f"model:\n  compose:\n    text: {_q(text)}\n    image: {_q(image)}\n    dimension: 1024\n    towers: frozen"
        )
        return Reasoned(yaml=yaml, reason=(
            f"Queries are {data.modalities['query']}, documents {data.modalities['document']}, and no model was named "
            "that reads both. Two frozen encoders with trained projections into one space are what installed packages "
            "make (recipes/image/quickstart: nDCG@10 .012 -> .290 on unseen names of emoji). A pretrained model of "
            "both, such as a CLIP or SigLIP, starts far above that: embedtune init --model NAME."
        ))  # fmt: skip
    assert model is not None
    length, role = max_length(data, model.limit), max(data.lengths, key=lambda role: data.lengths[role].p95)
    lengths, noun = data.lengths[role], "queries" if role == "query" else "documents"
    how = "by the model's tokenizer" if data.counted else "estimated from words, as the tokenizer is not here"
    reason = [
        f"max_length: 95% of {lengths.sample:,} {noun} have at most {lengths.p95:,} tokens (median {lengths.median:,}, "
        f"longest {lengths.most:,}; {how})"
        + (f"; the model reads {model.limit:,}" if model.limit else "")
        + (
            ", so more than a twentieth of them are cut; eval and index take --passages, too."
            if lengths.p95 > length
            else "."
        )
    ]
    parts = [f"name: {_q(model.name)}", f"max_length: {length}"]
    if _adapted(model, machine):
        assert model.size is not None
        parameters = model.size.parameters
        parts.append("lora: {rank: 16}")
        reason.append(
            f"lora: all {parameters:,} parameters need {_gib(16 * parameters)} with their gradients and optimizer, and "
            f"{_gib(machine.memory)} are free; an adapter needs {_gib(4 * parameters)}."
        )
    if data.latin < 0.8:
        reason.append(
            f"{1 - data.latin:.0%} of the letters are not Latin. all-MiniLM-L6-v2 was trained on English: a "
            "multilingual model (intfloat/multilingual-e5-small, BAAI/bge-m3) is the better start."
        )
    return Reasoned(yaml=f"model: {{{', '.join(parts)}}}", reason="\n".join(reason))


def _adapted(model: ModelFacts, machine: Machine) -> bool:
    """Whether an adapter is trained in place of all weights."""
    if model.size is None:
        return False
    return model.size.parameters > LARGE or 16 * model.size.parameters > machine.memory / 2


def _data(names: Names, data: DataFacts) -> Reasoned:
    parts = [f"train: {_q(names.train)}", f"split: {names.split}"]
    reason = [
        f"{data.queries:,} queries with {data.positives:,} positives ({data.positives_a_query:.1f} a query"
        f"{', graded' if data.graded else ''}), {data.documents:,} documents."
    ]
    share = data.held_out
    if share is None:
        reason.append(
            f"validation: none; {data.queries} queries are too few to hold any out, so that the last step is kept."
        )
    else:
        most = data.documents > MOST_VALIDATED
        value = f"{{share: {share:g}, documents: {MOST_VALIDATED}}}" if most else f"{share:g}"
        parts.append(f"validation: {value}")
        reason.append(
            f"validation: about {share * data.queries:,.0f} queries choose the best step, the untouched model included"
            + (f"; they rank {MOST_VALIDATED:,} of the {data.documents:,} documents, to save time." if most else ".")
        )
    if data.drawn != "each":
        parts.append(f"positives: {data.drawn}")
        reason.append(
            f"positives: {data.drawn} a query are drawn every epoch; with all {data.positives_a_query:.0f} the queries "
            "with many would dominate."
        )
    return Reasoned(yaml=f"data: {{{', '.join(parts)}}}", reason="\n".join(reason))


def _negatives(data: DataFacts, model: ModelFacts | None) -> Reasoned:
    assert model is not None
    if data.documents < FEW_DOCUMENTS:
        return Reasoned(yaml="negatives: {}", reason=f"No mining: the corpus has {data.documents} documents.")
    depth = min(100, max(10, data.documents // 5))
    return Reasoned(
        yaml=f"negatives:\n  mining: [{{name: dense, depth: {depth}}}]\n  filtering: [{{name: guide, margin: 0.0}}]\n"
        f"  teacher: {_q(model.name)}\n  sampling: {{name: top, count: 2}}",
        reason=(
            "Mined negatives gained .020 nDCG@10 on SciFact-mini over the batch's alone (p .03). The filter drops "
            f"likely false negatives: with {data.positives_a_query:.1f} judged positives a query among "
            f"{data.documents:,} documents, some relevant ones are not judged. Where positives were hidden on purpose, "
            "guide, which asks the untouched model about mined candidates and the batch, gained .031 on SciFact-mini "
            "(p .002 after Holm) and .035 on Cranfield (p .05) over no filter, more surely than the others; without a "
            "filter Cranfield became worse than the untouched model (recipes/methods/README.md).\n"
            "No weighting: weights that stress hard negatives lost .006 to .045 there, or made no difference."
        ),
    )


def _loss(composed: bool) -> Reasoned:
    if composed:
        return Reasoned(
            yaml="loss: {name: infonce, temperature: 0.07, directions: [query_document, document_query]}",
            reason="loss: both directions, as CLIP is trained; as in recipes/image/quickstart.",
        )
    return Reasoned(
        yaml="loss: {name: infonce, temperature: 0.05}", reason="loss: as in all recipes that were measured."
    )


def _train(data: DataFacts, model: ModelFacts | None, machine: Machine, chunk: int | None) -> Reasoned:
    size, pairs = batch_size(data, machine), data.pairs
    epochs = 12 if model is None else 2 if pairs <= 20_000 else 1
    rate, why = _rate(model, machine)
    steps = epochs * batch_count(pairs, size)
    parts = [f"epochs: {epochs}", f"batch_size: {size}", f"learning_rate: {rate}", "seed: 0"]
    reason = [
        f"About {steps:,} steps: {epochs} x {pairs:,} pairs in batches of {size}.",
        f"learning_rate: {why}.",
        f"precision is auto: {machine.precision} here ({machine.name}, {machine.cores} threads, "
        f"{_gib(machine.memory)} free).",
    ]
    if chunk is not None:
        parts.insert(2, f"chunk_size: {chunk}")
        reason.append(
            f"chunk_size: a whole batch would need more than half of the {_gib(machine.memory)} that are free. It "
            "decides memory, not results."
        )
    return Reasoned(yaml=f"train: {{{', '.join(parts)}}}", reason="\n".join(reason))


def _rate(model: ModelFacts | None, machine: Machine) -> tuple[str, str]:
    if model is None:
        return "5e-4", "for projections that start at random, as in recipes/image/quickstart"
    if _adapted(model, machine):
        return "2e-4", "for an adapter, ten times what all weights would get"
    parameters = model.size.parameters if model.size else 0
    if parameters > 60_000_000:
        return "2e-5", f"usual for {parameters:,} parameters"
    return "4e-5", "as in recipes/text/scifact-mined, which was measured with a model of 22 million parameters"


def _evaluate(names: Names, data: DataFacts, composed: bool) -> Reasoned:
    lines = ["evaluate:", f"  in_domain: [{_q(names.test)}]"]
    reason = [
        f"in_domain: {data.tested:,} test queries; differences of nDCG@10 under about "
        f"{smallest_difference(data.tested):.2f} will not show."
    ]
    if names.guards:
        lines.append(f"  out_of_domain: [{', '.join(map(_q, names.guards))}]")
        counts = ", ".join(
            f"{name.rstrip('/').rpartition('/')[2]}: {count:,} queries" for name, count in names.guards.items()
        )
        reason.append(f"out_of_domain: what the model was not tuned for ({counts}); your own second dataset is better.")
    if names.guards and not composed:
        half = min(names.guards.values()) / 2
        drop = 0.01 if smallest_difference(round(half)) < 0.02 else 0.02
        lines.append(f"  guard: {{largest_drop: {drop:g}, interpolate: true, alphas: [0.0, 0.3, 0.5, 0.7, 1.0]}}")
        reason.append(
            "guard: base and tuned weights are mixed until the foreign sets keep within largest_drop. At alpha 0.5 "
            "this kept all of the gain on SciFact-mini and all but .003 of Cranfield (recipes/methods/README.md). "
            f"largest_drop: half of {min(names.guards.values()):,} queries choose, so that much smaller drops are "
            "chance."
        )
    return Reasoned(yaml="\n".join(lines), reason="\n".join(reason))


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _q(name: str) -> str:
    """A name as YAML reads it within a flow mapping; JSON's quotes where it needs any."""
    plain = name.replace("/", "").replace("-", "").replace("_", "").replace(".", "").isalnum() and name.isascii()
    return name if plain and not name.replace(".", "").isdigit() else json.dumps(name, ensure_ascii=False)
