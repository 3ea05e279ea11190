"""Makes what a run works with: accelerator, model, negatives, objective, optimizer."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from .. import distributed
from ..data.relevance import Relevance
from ..errors import InputError
from ..methods.synthesis.memory_queue import MemoryQueue
from ..models import adapters
from ..models.cached_towers import CachedTowers
from ..models.compose import projections
from ..models.encoder import Encoder
from ..models.loading import load_model
from ..models.modules import transformers_of, weights_fingerprint
from ..models.precision import Resolved, resolve_device, resolve_precision
from ..models.sharded import ShardedEncoder, asked_by_accelerate
from ..negatives.candidates import MiningJob
from ..negatives.passages import in_passages
from ..recipe import Recipe
from ..types import Dataset
from .checkpoint import State, Training
from .lineage import lineage_of
from .live import FrozenDocuments, LiveNegatives
from .log import Listener, Log
from .negatives import RunNegatives
from .objective import Objective
from .plan import Plan, facts_for, stages_of
from .stay_close import Stream, freeze, layers_of_model, rate_scales, stream_of
from .step import Tokens, TrainingStep
from .validation import Validator, held_out

LAUNCHES = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.FSDP)
LAUNCHES_REFUSED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "parallelism of accelerate's own",
}


def make_accelerator(recipe: Recipe, folder: Path) -> Accelerator:
    """Raises InputError for a tracker that is not installed, a kind of launch that is not supported, and where several
    processes would each train alone."""
    for tracker in recipe.train.track:
        if find_spec(tracker) is None:  # accelerate would train on without a word
            raise InputError(f"train.track: {tracker} is not installed; try: pip install {tracker}")
    for variable, kind in LAUNCHES_REFUSED.items():  # before accelerate reads them, and asks for their libraries
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            raise refused_launch(kind)
    device = resolve_device()
    precision = resolve_precision(recipe.train.precision, device)
    if shares_weights(recipe):
        refuse_to_share(recipe, precision)
    mixed = "no" if precision == "fp32" else precision
    os.environ.setdefault("ACCELERATE_LOG_LEVEL", "error")
    if distributed.count() == 1:
        # accelerate keeps one precision per Python process; a second run in it may train in another.
        AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=mixed,
        log_with=list(recipe.train.track) or None,
        project_dir=str(folder),
    )
    if accelerator.distributed_type not in LAUNCHES:
        raise refused_launch(accelerator.distributed_type.value)
    started = distributed.count()
    if started != accelerator.num_processes:
        raise InputError(
            f"WORLD_SIZE is {started} but accelerate sees {accelerator.num_processes} process(es): each would train "
            "alone; start with torchrun or accelerate launch, or unset WORLD_SIZE"
        )
    return accelerator


def refused_launch(kind: str) -> InputError:
    return InputError(
        f"launched as {kind}: training runs in one process, or in several that each hold the model (DDP) or share it "
        "out (FSDP, version 2); start with torchrun, or with accelerate launch --multi_gpu"
    )


def shares_weights(recipe: Recipe) -> bool:
    """Whether the weights are shared out over processes. Raises InputError for an FSDP that is not supported."""
    return (asked_by_accelerate() or recipe.train.shard) and distributed.count() > 1


def refuse_to_share(recipe: Recipe, precision: Resolved) -> None:
    """Raises InputError for a recipe whose weights cannot be shared out over processes."""
    slow = any(chosen.name == "memory_queue" and chosen.options.get("momentum") for chosen in recipe.synthesis)
    others = {
        "model.lora": recipe.model.lora is not None,
        "model.compose": recipe.model.compose is not None,
        "negatives.live": recipe.negatives.live is not None,
        "synthesis.memory_queue.momentum": slow,
        "precision fp16 (take train.precision: bf16)": precision == "fp16",
    }
    for key, is_set in others.items():
        if is_set:
            raise InputError(
                f"train.shard: weights cannot be shared out over processes with {key}; start with torchrun or "
                "accelerate launch --multi_gpu, and train.shard: false"
            )


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
    log = Log(folder / "log.jsonl", accelerator, on_event)
    encoder.cached_towers = frozen_towers(recipe, dataset, encoder, log)  # every process shares the encoding
    documents, dataset = dataset, in_passages(dataset, encoder.with_cache())
    plan = Plan(recipe, dataset, query_ids, facts_for(recipe, encoder.with_cache(), dataset, query_ids))
    distributed.meet()  # whether few documents are encoded alone depends on what else is encoded by then
    base_fingerprint = weights_fingerprint(encoder.model)
    relevance = Relevance(dataset)
    job = MiningJob(
        dataset=documents,
        encoder=encoder,
        negatives=recipe.negatives,
        passages=None if dataset is documents else dataset,
        query_ids=query_ids,
        relevance=relevance if dataset is documents else Relevance(documents),
        seed=recipe.train.seed,
    )
    mining = RunNegatives(recipe=recipe, job=job, accelerator=accelerator, folder=folder, log=log)
    live, distill = recipe.negatives.live, recipe.stay_close.distill
    embedded = encoder.with_cache().encode(dataset.corpus, "document") if live is not None else None
    negatives = mining.mine(State().negatives)  # by the base weights
    teacher = mining.teacher(State().negatives)
    stream = stream_of(distill, encoder.with_cache(), plan.steps, recipe.train.seed) if distill is not None else None
    make_trainable(recipe, encoder)
    if shares_weights(recipe):
        encoder = ShardedEncoder(encoder)
        mining = dataclasses.replace(mining, job=dataclasses.replace(job, encoder=encoder))
    if live is not None and embedded is not None:
        encoder = FrozenDocuments(encoder, dataset.corpus, embedded)
        negatives = LiveNegatives(encoder, dataset, relevance, live.depth, accelerator)
    weights = [parameter for parameter in encoder.model.parameters() if parameter.requires_grad]
    objective = dataclasses.replace(Objective.of(recipe), teacher=teacher)
    queues = [make for make in objective.vectors if isinstance(make, MemoryQueue) and make.momentum is not None]
    for queue in queues:
        queue.start(weights)
    objective.modules.to(encoder.device)
    step = TrainingStep(
        encoder=encoder,
        objective=objective,
        tokens=tokens_of(encoder, dataset),
        accelerator=accelerator,
        chunk_size=recipe.train.chunk_size,
        keep=recipe.train.selective_backward.keep if recipe.train.selective_backward else None,
        accumulate=recipe.train.accumulate,
    )
    validate = None
    if validation is not None:
        # Where the student mines again, a validation at the same step leaves it the corpus's embeddings.
        keep = recipe.negatives.refresh is not None
        measure = recipe.evaluate.measure
        validate = Validator(
            encoder=encoder,
            dataset=validation,
            measure=measure,
            accelerator=accelerator,
            folder=folder,
            log=log,
            keep=keep,
        )
    training = Training(
        recipe=recipe,
        encoder=encoder,
        encoder_weights=weights,
        dataset=dataset,
        plan=plan,
        stages=stages_of(recipe, plan, encoder, weights),
        relevance=relevance,
        negatives=negatives,
        mining=mining,
        objective=objective,
        step=step,
        optimizer=make_optimizer(recipe, encoder, objective),
        accelerator=accelerator,
        folder=folder,
        log=log,
        validate=validate,
        validation=validation,
        stop_requested=stop_requested,
        stream=stream,
        stream_step=stream_step(step, stream) if stream is not None else None,
        queues=queues,
        origins={p: p.detach().clone() for p in weights} if recipe.stay_close.pull else {},
    )
    return training, base_fingerprint


def tokens_of(encoder: Encoder, dataset: Dataset) -> tuple[Tokens, Tokens]:
    return Tokens(encoder, dataset.queries, "query"), Tokens(encoder, dataset.corpus, "document")


def stream_step(step: TrainingStep, stream: Stream) -> TrainingStep:
    """The step of the unlabelled text: one batch for each optimizer step, carried back whole."""
    tokens = tokens_of(step.encoder, stream.dataset)
    return dataclasses.replace(step, objective=stream.objective, tokens=tokens, keep=None, accumulate=1)


def make_trainable(recipe: Recipe, encoder: Encoder) -> None:
    """Sets what is trained (all, an adapter, the projections of a composed model) and how its modules behave."""
    compose = recipe.model.compose
    if recipe.model.lora is not None:
        torch.manual_seed(recipe.train.seed)  # the adapter's initial weights
        lineage = lineage_of(recipe.model)
        name = recipe.model.label if lineage is None else str(lineage.run / "model")  # what peft opens
        names = {"text": compose.text, "image": compose.image} if compose is not None else name
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


def load_trainable(recipe: Recipe, accelerator: Accelerator) -> Encoder:
    """The model on this process's device. Its embeddings are not cached: its weights change."""
    precision = resolve_precision(recipe.train.precision, accelerator.device)
    block = recipe.model.in_training
    model = load_model(block, accelerator.device, seed=recipe.train.seed, frozen_in=precision)
    return Encoder(
        model, block.label, precision, cached=False, passages=block.passages, chunk_tokens=block.chunk_tokens
    )


def frozen_towers(recipe: Recipe, dataset: Dataset, encoder: Encoder, log: Log) -> CachedTowers | None:
    """The towers' outputs for the training data; None where no stage freezes the towers."""
    compose = recipe.model.compose
    if compose is None or (compose.towers == "trained" and recipe.train.projections_first is None):
        return None
    log.tell("phase", name="encode with the frozen towers")
    return CachedTowers(
        encoder,
        [(dataset.queries, "query"), (dataset.corpus, "document")],
        on_progress=log.progress,
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


def make_optimizer(recipe: Recipe, encoder: Encoder, objective: Objective) -> torch.optim.AdamW:
    """AdamW; biases, norms and scalars (and what the objective trains) are not decayed.

    A group's `scale` is the share of the learning rate that it gets.
    """
    named = {name: p for name, p in encoder.model.named_parameters() if p.requires_grad}
    if not named:
        raise InputError(nothing_trained(recipe, encoder.name))
    decay = recipe.stay_close.layer_decay
    layers = {name: layer for name, layer in layers_of_model(encoder.model).items() if name in named}
    scales = rate_scales(layers, decay) if decay < 1 else {}
    weights = {True: recipe.train.weight_decay, False: 0.0}
    groups: dict[tuple[bool, float, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in named.items():
        groups.setdefault((parameter.ndim >= 2, scales.get(name, 1.0), encoder.sharded), []).append(parameter)
    if any(True for _ in objective.modules.parameters()):
        groups.setdefault((False, 1.0, False), []).extend(objective.modules.parameters())
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": weights[decayed], "scale": scale}
            for (decayed, scale, _), parameters in sorted(groups.items(), reverse=True, key=lambda group: group[0])
        ],
        lr=recipe.train.learning_rate,
        fused=True,  # several times faster than one tensor at a time, on a CPU too
    )


def gather(t: Training) -> None:
    """Gives every process the whole trained weights, to be saved, where they were shared out."""
    if isinstance(t.encoder, ShardedEncoder):
        t.encoder = t.encoder.gathered()
        t.optimizer = make_optimizer(t.recipe, t.encoder, t.objective)


def nothing_trained(recipe: Recipe, name: str) -> str:
    """Which key leaves a model without a weight that is trained."""
    if recipe.stay_close.freeze_layers and recipe.model.lora is not None:
        also = "; freeze fewer layers, or name modules of other layers in model.lora.target_modules"
    elif recipe.stay_close.freeze_layers:
        also = "; freeze fewer layers"
    else:
        return f"model.name: {name} has no weights that can be trained"
    return f"stay_close.freeze_layers: nothing is left to train{also}"


def switch_off_dropout(model: torch.nn.Module) -> None:
    """Sets every dropout rate of the model to 0, except an adapter's own (`model.lora.dropout`).

    Fused attention kernels run only without attention dropout; on a CPU that alone is about twice as fast. Rates are
    set, and the model stays in training mode, because gradient checkpointing works in training mode only. The saved
    configuration keeps the model's own rates.
    """
    for name, module in model.named_modules():
        if "lora_dropout" in name:
            continue
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for attribute, value in list(vars(module).items()):
            if attribute.endswith("dropout") and isinstance(value, float):
                setattr(module, attribute, 0.0)
