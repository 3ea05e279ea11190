"""The gradient of one batch of a training step."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator

from embedtune.data.dataset import load_dataset
from embedtune.data.relevance import Relevance
from embedtune.models.encoder import Encoder
from embedtune.recipe import Recipe, check_recipe
from embedtune.train.objective import Objective
from embedtune.train.plan import Plan
from embedtune.train.step import Batch, Tokens, TrainingStep, accumulate_gradients, lay_out, training_mode


def recipe_for(data: Path, **train: object) -> Recipe:
    loss = {"name": "infonce", "temperature": 0.1, "directions": ["query_document", "document_query"]}
    return check_recipe(
        {"version": 1, "model": {"name": "x"}, "data": {"train": str(data)}, "loss": loss, "train": train}
    )


def gradients(
    encoder: Encoder,
    data: Path,
    chunk_size: int | None,
    *,
    batch_size: int = 16,
    tokens_per_chunk: int = 64,
    keep: float | None = None,
) -> tuple[float, torch.Tensor]:
    """The loss and the flat gradient of one batch, from the same generator state every time."""
    dataset = load_dataset(data, "train")
    recipe = recipe_for(data, batch_size=batch_size)
    pairs = Plan(recipe, dataset, list(dataset.qrels)).epoch(0)[0]
    batch: Batch = lay_out(pairs, {}, Relevance(dataset))
    encoder.tokens_per_chunk = tokens_per_chunk
    training_mode(encoder.model)
    encoder.model.zero_grad()
    torch.manual_seed(3)
    step = TrainingStep(
        encoder=encoder,
        objective=Objective.of(recipe),
        tokens=(Tokens(encoder, dataset.queries, "query"), Tokens(encoder, dataset.corpus, "document")),
        accelerator=Accelerator(cpu=True),
        chunk_size=chunk_size,
        keep=keep,
    )
    loss, _ = accumulate_gradients(step, batch, torch.Generator(), progress=0.0)
    flat = [p.grad.flatten() for p in encoder.model.parameters() if p.grad is not None]
    return loss.item(), torch.cat(flat).clone()


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())
