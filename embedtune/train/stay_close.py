"""What holds the tuned model near the base model (`stay_close`): frozen layers, layer-wise rates, distillation.

Distillation is a second stream of batches: unlabelled text on which the student keeps the base model's own scores.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from .. import methods
from ..data.dataset import load_texts
from ..data.relevance import Relevance
from ..errors import InputError
from ..models.encoder import Encoder
from ..models.scorers import EncoderScores
from ..recipe import Distill
from ..search.exact import Searcher, as_run, tie_order
from ..seeds import generator_for
from ..types import Dataset, Pair
from .objective import Objective
from .step import Batch, lay_out

_LAYER = re.compile(r"\.(?:layers?|blocks?|h)\.(\d+)\.")
_EMBEDDING = re.compile(r"embed|\.wte\.|\.wpe\.")


def layers_of(names: Iterable[str], embeddings: Collection[str] = ()) -> dict[str, int | None]:
    """name -> its layer from 0 at the bottom; -1 for embeddings; None for weights above all layers.

    embeddings: names of embedding weights that their names do not show.
    """
    layers: dict[str, int | None] = {}
    for name in names:
        numbered = _LAYER.search(name)
        embeds = name in embeddings or _EMBEDDING.search(name)
        layers[name] = int(numbered[1]) if numbered else -1 if embeds else None
    return layers


def layers_of_model(model: nn.Module) -> dict[str, int | None]:
    """`layers_of` the model's weights. Token embeddings are asked of the model: T5 calls them `shared`."""
    embedded: set[nn.Parameter] = set()
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            try:
                table = module.get_input_embeddings()
            except NotImplementedError:  # some vision towers
                continue
            embedded |= set(table.parameters()) if isinstance(table, nn.Module) else set()
    named = dict(model.named_parameters())
    return layers_of(named, {name for name, parameter in named.items() if parameter in embedded})


def rate_scales(layers: dict[str, int | None], decay: float) -> dict[str, float]:
    """name -> its share of the learning rate: 1 in the highest layer and above, times `decay` for each layer below.

    Layer-wise rates: ULMFiT, arXiv 1801.06146; BERT, arXiv 1905.05583. Raises InputError where the names show no
    layers.
    """
    highest = _highest(layers, "stay_close.layer_decay")
    return {name: 1.0 if layer is None else decay ** (highest - layer) for name, layer in layers.items()}


def freeze(model: nn.Module, count: int) -> None:
    """Stops gradients of the lowest `count` layers and of the embeddings, so that no graph is recorded below the lowest
    trained layer. Raises InputError for more layers than there are."""
    layers = layers_of_model(model)
    highest = _highest(layers, "stay_close.freeze_layers")
    if count > highest + 1:
        raise InputError(f"stay_close.freeze_layers: {count} is more than the model's {highest + 1} layers")
    for name, parameter in model.named_parameters():
        layer = layers[name]
        if layer is not None and layer < count:
            parameter.requires_grad_(False)


def _highest(layers: dict[str, int | None], key: str) -> int:
    numbers = [layer for layer in layers.values() if layer is not None]
    if not numbers or max(numbers) < 0:
        raise InputError(f"{key}: the weights' names show no layers here (none is called layer.0 or the like)")
    return max(numbers)


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Unlabelled queries, each with the base model's best documents.

    The first document stands in for a positive, since a batch is laid out around one; the loss knows only the base
    model's scores.
    """

    dataset: Dataset
    lists: dict[str, list[str]]
    relevance: Relevance
    objective: Objective
    batch_size: int
    seed: int

    def batch(self, step: int) -> Batch:
        """The batch of a step: a pure function of the seed and the step."""
        query_ids = list(self.lists)
        order = torch.randperm(len(query_ids), generator=generator_for(self.seed, "distill", step))
        drawn = [query_ids[index] for index in order[: self.batch_size].tolist()]
        pairs = [Pair(query_id=query_id, positives=(self.lists[query_id][0],)) for query_id in drawn]
        return lay_out(pairs, {query_id: self.lists[query_id][1:] for query_id in drawn}, self.relevance)


def stream_of(distill: Distill, base: Encoder, steps: int, seed: int) -> Stream:
    """base: the untouched model, with cached embeddings. Raises InputError for a folder with too little text."""
    corpus, queries = load_texts(distill.data)
    if len(corpus) <= distill.candidates:
        raise InputError(
            f"stay_close.distill: {distill.data} has {len(corpus)} documents; {distill.candidates} candidates need more"
        )
    order = torch.randperm(len(queries), generator=generator_for(seed, "distill queries"))
    ids = list(queries.ids)
    query_ids = [ids[index] for index in order[: steps * distill.batch_size].sort().values.tolist()]
    documents, ties = base.encode(corpus, "document"), tie_order(corpus.ids)
    searcher = Searcher(documents, similarity=base.similarity, tie_order=ties, device=base.device)
    embeddings = base.encode([queries[query_id] for query_id in query_ids], "query")
    scores, rows = searcher.search(embeddings, distill.candidates + 1)
    run = as_run(query_ids, corpus.ids, scores, rows)
    itself = queries is corpus  # a document that stands for a query finds itself first
    lists = {q: [d for d in ranked if not (itself and d == q)][: distill.candidates] for q, ranked in run.items()}
    dataset = Dataset(
        folder=Path(distill.data),
        name=Path(distill.data).name,
        split="unlabelled",
        corpus=corpus,
        queries=queries,
        qrels={query_id: {ranked[0]: 1} for query_id, ranked in lists.items()},
        fingerprint=corpus.fingerprint + queries.fingerprint,
    )
    temperatures = {"temperature": distill.temperature, "teacher_temperature": distill.temperature}
    losses = [("listwise_kl", distill.weight, methods.bind("loss", "listwise_kl", temperatures))]
    objective = Objective(filters=[], texts=[], vectors=[], weightings=[], losses=losses)
    return Stream(
        dataset=dataset,
        lists=lists,
        relevance=Relevance(dataset),
        objective=dataclasses.replace(objective, teacher=EncoderScores(base, dataset)),
        batch_size=distill.batch_size,
        seed=seed,
    )
