"""Puts together what a run works with: the accelerator, the model, the negatives, the objective, the optimizer."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from .. import distributed as processes
from ..data.relevance import Relevance
from ..errors import InputError
from ..models import adapters
from ..models.cached_towers import CachedTowers
from ..models.compose import projections
from ..models.encoder import Encoder
from ..models.loading import load_model
from ..models.modules import transformers_of, weights_fingerprint
from ..models.precision import resolve_device, resolve_precision
from ..negatives.candidates import MiningJob
from ..negatives.evidence import MiningFiles
from ..recipe import CROSS_ENCODER, Recipe
from ..types import Dataset
from . import checkpoint
from .distill import stream_of
from .facts import facts_for
from .layers import freeze, rate_scales
from .live import FrozenDocuments, LiveNegatives
from .log import Listener, Log
from .loop import State, Training
from .modes import switch_off_dropout
from .momentum import momenta_of
from .negatives import Drawn, Mine, Negatives, Teacher, mined_once, read_negatives, teacher_of
from .objective import Objective
from .plan import Plan
from .stages import stages_of
from .validation import Validator, held_out


def make_accelerator(recipe: Recipe, folder: Path) -> Accelerator:
    """Raises InputError for a tracker that is not installed, and where several processes would each train alone."""
    for tracker in recipe.train.track:
        if find_spec(tracker) is None:  # accelerate would train on without a word
            raise InputError(f"train.track: {tracker} is not installed; try: pip install {tracker}")
    device = resolve_device()
    precision = resolve_precision(recipe.train.precision, device)
    mixed = "no" if precision == "fp32" else precision
    os.environ.setdefault("ACCELERATE_LOG_LEVEL", "error")
    if processes.count() == 1:
        # accelerate keeps one precision per Python process; a second run in it may train in another.
        AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=mixed,
        log_with=list(recipe.train.track) or None,
        project_dir=str(folder),
    )
    started = processes.count()
    if started != accelerator.num_processes:
        raise InputError(
            f"WORLD_SIZE is {started} but accelerate sees {accelerator.num_processes} process(es): each would train "
            "alone; start with torchrun or accelerate launch, or unset WORLD_SIZE"
        )
    return accelerator


def set_up(
    recipe: Recipe,
    dataset: Dataset,
    accelerator: Accelerator,
    folder: Path,
    on_event: Listener | None,
    stop_requested: Callable[[], bool],
) -> tuple[Training, str]:
    """Everything that the loop works with, and the base weights' fingerprint."""
    query_ids, validation = held_out(dataset, recipe.data.validation, recipe.train.seed)
    encoder = load_trainable(recipe, accelerator)
    log = Log(folder / "log.jsonl", accelerator, on_event, _logged_until(folder))
    encoder.cached_towers = frozen_towers(recipe, dataset, encoder, log)  # every process shares the encoding
    plan = Plan(recipe, dataset, query_ids, facts_for(recipe, encoder.with_cache(), dataset, query_ids))
    accelerator.wait_for_everyone()  # whether few documents are encoded alone depends on what else is encoded by then
    base_fingerprint = weights_fingerprint(encoder.model)
    relevance = Relevance(dataset)
    job = MiningJob(
        dataset=dataset,
        encoder=encoder,
        negatives=recipe.negatives,
        query_ids=query_ids,
        relevance=relevance,
        seed=recipe.train.seed,
    )
    mined = miner(recipe, job, accelerator, folder, log)
    documents = None
    if recipe.negatives.live is not None:
        documents = encoder.with_cache().encode(dataset.corpus, "document")
    negatives: Drawn = mined(State().negatives)  # by the base weights

    def taught(name: str) -> Teacher | None:
        return teacher_of(recipe, dataset, encoder, MiningFiles(folder / "negatives" / f"{name}.run"))

    teacher = taught(State().negatives)
    by_pair = (recipe.negatives.teacher or "").startswith(CROSS_ENCODER)
    stream = None
    if recipe.stay_close.distill is not None:
        stream = stream_of(recipe.stay_close.distill, encoder.with_cache(), plan.steps, recipe.train.seed)
    make_trainable(recipe, encoder)
    if recipe.negatives.live is not None and documents is not None:
        encoder = FrozenDocuments(encoder, dataset.corpus, documents)
        negatives = LiveNegatives(encoder, dataset, relevance, recipe.negatives.live.depth, accelerator)
    objective = dataclasses.replace(Objective.of(recipe), teacher=teacher)
    objective.modules.to(encoder.device)
    optimizer = make_optimizer(recipe, encoder, objective)
    # Where the student mines again, a validation at the same step leaves it the corpus's embeddings.
    keep = recipe.negatives.refresh is not None
    measure = recipe.evaluate.measure
    validate = Validator(encoder, validation, measure, accelerator, folder, keep=keep) if validation else None
    training = Training(
        recipe=recipe,
        encoder=encoder,
        dataset=dataset,
        plan=plan,
        stages=stages_of(recipe, plan, encoder, trained(encoder)),
        relevance=relevance,
        negatives=negatives,
        objective=objective,
        optimizer=optimizer,
        accelerator=accelerator,
        folder=folder,
        log=log,
        validate=validate,
        validation=validation,
        mine=mined,
        teach=taught if by_pair else None,
        stop_requested=stop_requested,
        stream=stream,
        momenta=momenta_of(objective, encoder, trained(encoder)),
        origins=origins_of(encoder) if recipe.stay_close.pull else {},
    )
    return training, base_fingerprint


def make_trainable(recipe: Recipe, encoder: Encoder) -> None:
    """Sets what is trained (all, an adapter, the projections of a composed model) and how its modules behave."""
    compose = recipe.model.compose
    if recipe.model.lora is not None:
        torch.manual_seed(recipe.train.seed)  # the adapter's initial weights
        names = {"text": compose.text, "image": compose.image} if compose is not None else recipe.model.label
        adapters.attach(encoder.model, recipe.model.lora, names)
    elif compose is not None and compose.towers == "frozen":
        encoder.model.requires_grad_(False)
    if compose is not None:
        for projection in projections(encoder.model):
            projection.requires_grad_()
    if recipe.model.gradient_checkpointing:
        enable_gradient_checkpointing(encoder)
    if recipe.model.dropout == "off":
        switch_off_dropout(encoder.model)
    if recipe.stay_close.freeze_layers:
        freeze(encoder.model, recipe.stay_close.freeze_layers)


def trained(encoder: Encoder) -> list[torch.nn.Parameter]:
    return [parameter for parameter in encoder.model.parameters() if parameter.requires_grad]


def miner(recipe: Recipe, job: MiningJob, accelerator: Accelerator, folder: Path, log: Log) -> Mine:
    """Gives a function that mines with the encoder as it is into negatives/<name>.run, or reads the file.

    A file that exists was mined by this very run at this very step: with the same weights, so with the same result.
    """

    def mined(name: str, filters: Sequence[Any] | None = None, progress: float = 0.0) -> Drawn:
        if not recipe.negatives.mining:
            return Negatives(recipe, {})
        files = MiningFiles(folder / "negatives" / f"{name}.run")
        if not files.complete:
            log.tell("phase", name="mine negatives")
        # Mined candidates are filtered by copies, so that the filters in training keep their device and their mode.
        learned = [copy.deepcopy(f).cpu() if isinstance(f, torch.nn.Module) else f for f in filters or ()] or None
        report = mined_once(
            dataclasses.replace(job, encoder=job.encoder.with_cache(), learned=learned, progress=progress),
            files,
            accelerator,
            on_progress=lambda done, total: log.tell("progress", done=done, total=total),
        )
        for text in report.sentences() if report else []:
            log.tell("message", text=text)
        return read_negatives(recipe, files)

    return mined


def load_trainable(recipe: Recipe, accelerator: Accelerator) -> Encoder:
    """The model on this process's device. Its embeddings are not cached: its weights change."""
    precision = resolve_precision(recipe.train.precision, accelerator.device)
    model = load_model(recipe.model, accelerator.device, seed=recipe.train.seed)
    return Encoder(model, recipe.model.label, precision, cached=False)


def frozen_towers(recipe: Recipe, dataset: Dataset, encoder: Encoder, log: Log) -> CachedTowers | None:
    """What the towers give for the training data, where there is a stage in which they are frozen."""
    compose = recipe.model.compose
    if compose is None or (compose.towers == "trained" and recipe.train.projections_first is None):
        return None
    log.tell("phase", name="encode with the frozen towers")
    return CachedTowers(
        encoder,
        [(dataset.queries, "query"), (dataset.corpus, "document")],
        on_progress=lambda done, total: log.tell("progress", done=done, total=total),
    )


def enable_gradient_checkpointing(encoder: Encoder) -> None:
    able = [tower for tower in transformers_of(encoder.model).values() if tower.model.supports_gradient_checkpointing]
    if not able:
        raise InputError(f"model.gradient_checkpointing: {encoder.name} has nothing that can do it")
    with adapters.quiet():
        for tower in able:  # a convolutional tower beside a transformer cannot
            tower.model.gradient_checkpointing_enable({"use_reentrant": False})
            if hasattr(tower.model, "enable_input_require_grads"):
                tower.model.enable_input_require_grads()  # frozen embeddings would cut a checkpointed layer's graph


def origins_of(encoder: Encoder) -> dict[torch.nn.Parameter, torch.Tensor]:
    """The trained weights as they are before the first step."""
    return {p: p.detach().clone() for p in encoder.model.parameters() if p.requires_grad}


def make_optimizer(recipe: Recipe, encoder: Encoder, objective: Objective) -> torch.optim.AdamW:
    """AdamW; biases, norms and scalars (and what the objective trains) are not decayed.

    A group's `scale` is the share of the learning rate that it gets.
    """
    named = [(n, p) for n, p in encoder.model.named_parameters() if p.requires_grad]
    if not named:
        raise InputError("stay_close.freeze_layers: nothing is left to train; freeze fewer layers")
    decay = recipe.stay_close.layer_decay
    scales = rate_scales([n for n, _ in named], decay) if decay < 1 else dict.fromkeys((n for n, _ in named), 1.0)
    weights = {True: recipe.train.weight_decay, False: 0.0}
    groups: dict[tuple[bool, float], list[torch.nn.Parameter]] = {}
    for name, parameter in named:
        groups.setdefault((parameter.ndim >= 2, scales[name]), []).append(parameter)
    if any(True for _ in objective.modules.parameters()):
        groups.setdefault((False, 1.0), []).extend(objective.modules.parameters())
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": weights[decayed], "scale": scale}
            for (decayed, scale), parameters in sorted(groups.items(), reverse=True, key=lambda group: group[0])
        ],
        lr=recipe.train.learning_rate,
        fused=True,  # several times faster than one tensor at a time, on a CPU too
    )


def _logged_until(folder: Path) -> int:
    return next(iter(checkpoint.steps_saved(folder / "checkpoints")), 0)
