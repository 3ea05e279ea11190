"""What a run will take, phase by phase: work, minutes, memory and disk. Estimates, from the data and a short timing.

Work is counted in tokens that are encoded once. A token that is trained on counts three times, for forward and backward
pass, and once more with gradient caching, which encodes twice. Tokens are estimated from characters, alike in the plan
and in the timing, so that the estimate's own error cancels.
"""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .. import methods
from ..data.broken import is_textual
from ..data.dataset import load_training
from ..models import TOKENS_PER_CHUNK
from ..recipe import CROSS_ENCODER, Recipe
from ..types import Dataset, Item, Items
from . import sizes
from .clock import PhaseKind, PhaseWork, in_words
from .lineage import lineage_of
from .preflight import ModelSize, device_kind, is_here, load_suites, size_of_model, training_bytes

if TYPE_CHECKING:
    from .footprint import Observed

VERBS: dict[PhaseKind, str] = {
    "mining": "mine",
    "validation": "validate",
    "training": "train",
    "mixing": "mix",
    "evaluation": "evaluate",
    "bm25": "BM25",
}
CHARACTERS = 4.5  # a token, in English
IMAGE_TOKENS = 200  # 224 x 224 pixels in patches of 16
FORWARD_BACKWARD = 3
BM25_WORK = 0.013  # of encoding the same text: on SciFact 2.7 CPU s beside 208 by MiniLM at 128 tokens
SAMPLE = 200  # items whose length is read
TIMED, TIMED_SECONDS = 128, 4.0  # documents and seconds of the timing, at most
LIBRARIES = 0.7 * 2**30  # bytes of torch and the others
RUN_LINE, EVIDENCE_LINE = 60, 400  # bytes of a document in a run, and of a candidate with its evidence
DEPTH = 1000  # documents of a query in an evaluation's run


@dataclass(frozen=True, kw_only=True)
class Paces:
    """Seconds for a token that is encoded for an evaluation, and for one that is trained on, forward and backward."""

    encoding: float
    training: float
    observed: Observed | None = None  # of a model that is not composed of towers


@dataclass(frozen=True, kw_only=True)
class PhaseForecast:
    """A phase of a run. seconds: None where the model was not timed. memory and disk in bytes; memory None where the
    model's size is not known. host: of memory beside a GPU's; None where the two are one, or it is not known. The disk
    of `mining` and `evaluation` includes the cached embeddings."""

    kind: PhaseKind
    times: int
    seconds: float | None
    memory: float | None
    disk: float | None
    host: float | None = None

    @property
    def sentence(self) -> str:
        parts = [f"{self.times:,} x" if self.times > 1 else ""]
        parts.append(f"about {in_words(self.seconds)}" if self.seconds is not None else "")
        parts.append(_of_memory(self))
        parts.append(f"{self.disk / 2**20:,.0f} MiB on disk" if self.disk else "")
        return ", ".join(filter(None, parts)) or "not estimated"


def _of_memory(phase: PhaseForecast) -> str:
    if phase.memory is None:
        return ""
    if phase.host is None:
        return f"{phase.memory / 2**30:.2f} GiB of memory"
    return f"{phase.memory / 2**30:.2f} GiB of GPU memory, {phase.host / 2**30:.2f} GiB of the host's"


def tokens_of_item(item: Item, most: int) -> float:
    """About how many tokens an item has for the model, at most `most` of text."""
    image = IMAGE_TOKENS if item.image is not None else 0
    return image + (min(most, len(item.content) / CHARACTERS + 2) if item.content else 0)


def mean_tokens(items: Items, ids: Sequence[str], most: int) -> float:
    """Tokens of an item, the mean of a sample."""
    drawn = random.Random("forecast").sample(list(ids), min(SAMPLE, len(ids)))
    return sum(tokens_of_item(items[item_id], most) for item_id in drawn) / max(1, len(drawn))


def work_of(recipe: Recipe, dataset: Dataset, suites: Sequence[Dataset]) -> list[PhaseWork]:
    """The work of each kind of phase, in the order in which they begin; kinds that do not occur are left out."""
    train, negatives, most = recipe.train, recipe.negatives, recipe.model.max_length or 512
    query_ids, validated = sizes.training_queries(dataset, recipe.data.validation, train.seed)
    query, document = (
        mean_tokens(dataset.queries, query_ids, most),
        mean_tokens(dataset.corpus, dataset.corpus.ids, most),
    )
    batches = sizes.batch_count(sizes.pair_count(dataset, query_ids, recipe.data.positives), train.batch_size)
    steps, steps_an_epoch = sizes.steps_of(train, batches)[1], batches / train.accumulate
    corpus, asked = len(dataset.corpus) * document, len(query_ids) * query
    work: dict[PhaseKind, list[float]] = {}
    if negatives.mining:
        work["mining"] = [corpus + asked] * (1 + refreshes(recipe, steps, steps_an_epoch))
        work["mining"][0] += _teacher(recipe, len(query_ids), corpus + asked, query + document)
    if validated and recipe.data.validation is not None:
        ranked = min(recipe.data.validation.documents or len(dataset.corpus), len(dataset.corpus))
        work["validation"] = [ranked * document + len(validated) * query] * (
            1 + validations(recipe, steps, steps_an_epoch)
        )
    passes = FORWARD_BACKWARD + (train.chunk_size is not None)
    pair = query + (1 + sizes.own_negatives(recipe)) * document
    work["training"] = [passes * steps * train.accumulate * train.batch_size * pair]
    guard, inside = recipe.evaluate.guard, len(recipe.evaluate.in_domain)
    measured = [_whole(suite, most) for suite in suites]
    mixed = guard is not None and guard.interpolate
    if guard is not None and mixed:
        each = sum(measured[inside:]) + (work["validation"][0] if "validation" in work else 0)
        work["mixing"] = [len(set(guard.alphas)) * each]
    if suites:
        work["evaluation"] = measured * (2 + mixed + (lineage_of(recipe.model) is not None))
    if recipe.evaluate.bm25 and find_spec("bm25s") and (textual := list(filter(is_textual, suites))):
        work["bm25"] = [BM25_WORK * _whole(suite, most) for suite in textual]
    return [PhaseWork(kind=kind, parts=tuple(parts)) for kind, parts in work.items()]


def refreshes(recipe: Recipe, steps: int, steps_an_epoch: float) -> int:
    """How often the student mines again."""
    refresh = recipe.negatives.refresh
    if refresh is None:
        return 0
    every = steps_an_epoch if refresh.every == "epoch" else refresh.every
    return math.ceil(steps / every) - 1


def validations(recipe: Recipe, steps: int, steps_an_epoch: float) -> int:
    """How often a step is validated: when it is due, and after the last one."""
    return math.ceil(steps / (recipe.train.validate_every or steps_an_epoch))


def _teacher(recipe: Recipe, queries: int, everything: float, pair: float) -> float:
    """The tokens that a teacher reads: an encoder everything once, a cross-encoder every mined pair."""
    teacher = recipe.negatives.teacher
    if teacher is None:
        return 0.0
    if not teacher.startswith(CROSS_ENCODER):
        return everything
    return candidates(recipe, queries) * pair


def candidates(recipe: Recipe, queries: int) -> int:
    """Candidates that are mined for all queries, by the miners' depths."""
    options = [methods.describe("mining", one.name).with_defaults(one.options) for one in recipe.negatives.mining]
    return queries * sum(int(chosen.get("depth") or 0) for chosen in options)


def _whole(suite: Dataset, most: int) -> float:
    """The tokens of a dataset's corpus and judged queries."""
    queries = mean_tokens(suite.queries, list(suite.qrels), most) * len(suite.qrels)
    return queries + mean_tokens(suite.corpus, suite.corpus.ids, most) * len(suite.corpus)


def measure_paces(recipe: Recipe, dataset: Dataset) -> Paces:
    """Times the recipe's own model on this machine, for some seconds: encoding, and forward and backward pass.

    Raises InputError as a run would where the model cannot be loaded.
    """
    import torch

    from ..models.encoder import load_encoder
    from ..models.precision import resolve_precision
    from .footprint import observe
    from .prepare import make_trainable

    block, seed = recipe.model, recipe.train.seed
    measured = dataclasses.replace(block, dtype="auto")
    encoder = load_encoder(measured, precision=recipe.evaluate.precision, cached=False, seed=seed)
    most = recipe.model.max_length or encoder.max_length or 512
    drawn = random.Random("pace").sample(list(dataset.corpus.ids), min(TIMED, len(dataset.corpus)))
    items = [dataset.corpus[doc_id] for doc_id in drawn]

    def timed(call: Any, size: int) -> float:
        """Seconds a token, of as many batches as the time allows; the first one warms up."""
        call(items[:size])
        started, tokens = time.perf_counter(), 0.0
        for first in range(0, len(items), size):
            call(items[first : first + size])
            tokens += sum(tokens_of_item(item, most) for item in items[first : first + size])
            if time.perf_counter() - started > TIMED_SECONDS:
                break
        return (time.perf_counter() - started) / tokens

    encoding = timed(lambda part: encoder.encode(part, "document"), 32)
    encoder.precision = resolve_precision(recipe.train.precision, encoder.device)
    encoder.forget_lowered()
    if block.frozen or encoder.dtype != "float32":
        del encoder
        encoder = load_encoder(block.in_training, precision=recipe.train.precision, cached=False, seed=seed)
    make_trainable(recipe, encoder)

    def learn(part: Sequence[Item]) -> None:
        output = encoder.forward(encoder.prepare(part, "document"), "document").float()
        if output.requires_grad:
            output.square().sum().backward()  # type: ignore[no-untyped-call]
        if encoder.device.type == "cuda":
            torch.cuda.synchronize()

    training = timed(learn, min(16, recipe.train.batch_size)) / FORWARD_BACKWARD
    observed = observe(recipe, dataset, encoder) if recipe.model.compose is None else None
    return Paces(encoding=encoding, training=training, observed=observed)


def forecast(recipe: Recipe, dataset: Dataset, suites: Sequence[Dataset], paces: Paces | None) -> list[PhaseForecast]:
    """Each phase's time, memory and disk. paces: of the model on this machine; None where it is not here."""
    model = size_of_model(recipe)
    phases = []
    for work in work_of(recipe, dataset, suites):
        pace = None if paces is None else paces.training if work.kind == "training" else paces.encoding
        memory, host = _memory(work.kind, recipe, model, paces, [dataset, *suites])
        phases.append(
            PhaseForecast(
                kind=work.kind,
                times=len(work.parts),
                seconds=None if pace is None else pace * work.tokens,
                memory=memory,
                host=host,
                disk=None if model is None else _disk(work.kind, recipe, model, (dataset, suites)),
            )
        )
    return phases


def _memory(
    kind: PhaseKind, recipe: Recipe, model: ModelSize | None, paces: Paces | None, sets: Sequence[Dataset]
) -> tuple[float | None, float | None]:
    """Bytes at most: of the device's memory, and of the host's beside it. From a look at the model where it is here,
    else by its size."""
    if paces is not None and paces.observed is not None:
        from .footprint import need_of

        need = need_of(kind, recipe, paces.observed, _largest_corpus(kind, sets))
        return need.device, need.host or None
    return (None, None) if model is None else (LIBRARIES + _bytes_by_size(kind, recipe, model, sets), None)


def _largest_corpus(kind: PhaseKind, sets: Sequence[Dataset]) -> int:
    return max(len(dataset.corpus) for dataset in (sets[:1] if kind in ("mining", "validation") else sets))


def _bytes_by_size(kind: PhaseKind, recipe: Recipe, model: ModelSize, sets: Sequence[Dataset]) -> float:
    """Bytes at most: weights, activations, and the largest corpus's embeddings."""
    if kind == "training":
        return training_bytes(recipe, model)
    copies = 3 if kind == "mixing" else 1
    if kind == "validation":  # beside the optimizer's
        copies = 3 if recipe.model.lora is not None else 4
    activations = 20 * TOKENS_PER_CHUNK[device_kind()] * model.hidden
    return 4 * copies * model.parameters + activations + 4 * _largest_corpus(kind, sets) * model.hidden


def _disk(kind: PhaseKind, recipe: Recipe, model: ModelSize, data: tuple[Dataset, Sequence[Dataset]]) -> float:
    """Bytes: a run's files, and embeddings in the cache."""
    dataset, suites = data
    weights, lora = 4 * model.parameters, recipe.model.lora
    trained = 4 * model.adapter(lora.rank) if lora is not None else weights
    guard = recipe.evaluate.guard
    if kind == "mining":
        mined = candidates(recipe, len(dataset.qrels))
        return mined * (RUN_LINE + EVIDENCE_LINE) + 4 * len(dataset.corpus) * model.hidden
    if kind == "training":  # three checkpoints of weights and both moments, and the model
        return 3 * 3 * trained + weights + (trained if lora is not None else 0)
    if kind == "mixing":
        return weights
    if kind == "evaluation":
        models = 3 if guard is not None and guard.interpolate else 2
        ranked = sum(len(suite.qrels) * min(DEPTH, len(suite.corpus)) * RUN_LINE for suite in suites)
        return models * (ranked + sum(4 * len(suite.corpus) * model.hidden for suite in suites))
    return 0.0


def facts_of(recipe: Recipe) -> dict[str, str]:
    """The forecast in sentences, by phase, and its sum. Times the model where it is on this machine."""
    dataset, suites = load_training(recipe.data), load_suites(recipe)
    paces = measure_paces(recipe, dataset) if is_here(recipe) else None
    phases = forecast(recipe, dataset, suites, paces)
    facts = {VERBS[phase.kind]: phase.sentence for phase in phases}
    if paces is None:
        return {**facts, "time": "known once the model is here"}
    if paces.observed is not None and phases:
        most = max(phases, key=lambda phase: phase.memory or 0.0)
        facts["memory"] = f"at most {_of_memory(most)} in a process, to {VERBS[most.kind]}; measured on some passes"
    total, disk = in_words(sum(phase.seconds or 0 for phase in phases)), sum(phase.disk or 0 for phase in phases)
    facts["time"] = (
        f"about {total} on this machine, an estimate by a short timing of the model; less where it is cached"
    )
    return facts | (
        {"disk": f"about {disk / 2**30:.2f} GiB, checkpoints and cached embeddings included"} if disk else {}
    )
