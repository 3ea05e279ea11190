"""The loop, on one page: batch, encode, score, filter, weight, loss, step. What happens now and then is below it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from ..data.relevance import Relevance
from ..errors import InputError, Interrupted
from ..models.encoder import Encoder
from ..recipe import Recipe
from ..seeds import generator_for, seed_for
from ..types import Dataset
from . import checkpoint
from .batch import Batch, lay_out
from .distill import Stream
from .exchange import sum_gradients
from .log import Log
from .made import made_documents
from .modes import training_mode
from .momentum import Momentum, load_state, state_of
from .negatives import Drawn, Mine, Teacher
from .objective import Objective, Observe
from .plan import Place, Plan
from .stages import Stages
from .step import Tokens, accumulate_gradients, fetched

Validate = Callable[[], float]


@dataclass
class State:
    """Where training stands: all that a checkpoint's state.json holds."""

    step: int = 0
    place: Place = field(default_factory=lambda: Place(0, 0))
    best_step: int | None = None
    best_value: float | None = None
    stale: int = 0  # validations since the best one
    negatives: str = "mined"  # the file of the negatives in force


@dataclass(kw_only=True)
class Training:
    """Everything that the loop works with. Only `negatives` changes on the way."""

    recipe: Recipe
    encoder: Encoder
    dataset: Dataset
    plan: Plan
    stages: Stages
    relevance: Relevance
    negatives: Drawn
    objective: Objective
    optimizer: torch.optim.Optimizer
    accelerator: Accelerator
    folder: Path
    log: Log
    validate: Validate | None
    validation: Dataset | None
    mine: Mine
    teach: Callable[[str], Teacher | None] | None  # where the teacher knows mined pairs alone: of the file in force
    stop_requested: Callable[[], bool]
    stream: Stream | None = None  # unlabelled text that holds the student near the base model
    momenta: list[Momentum] = field(default_factory=list)  # slow copies of the weights, for memory queues
    origins: dict[nn.Parameter, torch.Tensor] = field(default_factory=dict)  # the base weights that it is pulled to


def fit(t: Training, state: State) -> State:
    """Trains from `state` to the end. Raises Interrupted, with the state saved, when asked to stop."""
    train, parameters = t.recipe.train, trainable(t)
    of_objective = set(t.objective.modules.parameters())  # every process has the whole gradient of these already
    of_encoder = [parameter for parameter in parameters if parameter not in of_objective]
    tokens = Tokens(t.encoder, t.dataset.queries, "query"), Tokens(t.encoder, t.dataset.corpus, "document")
    foreign = stream_tokens(t)
    if state.step == 0 and t.validate is not None:  # where the learning curve starts: the untouched model
        t.log.validation(0, t.recipe.evaluate.measure, t.validate(), best=False)
    training_mode(t.encoder.model, t.objective.modules)
    while state.step < t.plan.steps and not out_of_patience(t, state):
        started = time.perf_counter()
        torch.manual_seed(seed_for(train.seed, "step", state.step, t.accelerator.process_index))
        rate = t.stages.begin(state.step, t.encoder)
        for group in t.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        losses, pairs, epoch = [], 0, state.place.epoch
        for _ in range(train.accumulate):
            batch, generator = batch_at(t, state.place)
            for momentum in t.momenta:
                momentum.offer(batch, tokens[1], t.accelerator, train.chunk_size)
            loss, parts = accumulate_gradients(
                t.encoder,
                t.objective,
                batch,
                tokens,
                t.accelerator,
                chunk_size=train.chunk_size,
                divide_by=train.accumulate,
                progress=state.step / t.plan.steps,
                generator=generator,
                observe=observer(t, state.step),
                keep=train.backward.keep if train.backward is not None else None,
            )
            losses.append(loss)
            pairs += len(batch.query_ids)
            state.place = t.plan.after(state.place)
        if t.stream is not None:
            parts["distill"] = distill_step(t, t.stream, foreign, state.step)
        sum_gradients(of_encoder, t.accelerator)
        mean, norm, *rest = fetched([torch.stack(losses).mean(), clip(t, parameters), *parts.values()])
        step_optimizer(t, state.step, mean, norm)
        state.step += 1
        logged, seconds = dict(zip(parts, rest, strict=True)), time.perf_counter() - started
        t.log.step(state.step, epoch, mean, logged, rate, norm, pairs, len(batch.doc_ids), seconds)
        now_and_then(t, state)
    return state


def stream_tokens(t: Training) -> tuple[Tokens, Tokens]:
    dataset = t.stream.dataset if t.stream is not None else t.dataset
    return Tokens(t.encoder, dataset.queries, "query"), Tokens(t.encoder, dataset.corpus, "document")


def distill_step(t: Training, stream: Stream, tokens: tuple[Tokens, Tokens], step: int) -> torch.Tensor:
    """Adds the gradient of the second stream's batch; returns its loss."""
    loss, _ = accumulate_gradients(
        t.encoder,
        stream.objective,
        stream.batch(step),
        tokens,
        t.accelerator,
        chunk_size=t.recipe.train.chunk_size,
        divide_by=1,
        progress=step / t.plan.steps,
        generator=generator_for(stream.seed, "distill step", step),
    )
    return loss


def batch_at(t: Training, place: Place) -> tuple[Batch, torch.Generator]:
    """The batch of a place with its negatives, and the generator for what is drawn from it."""
    pairs = t.plan.batch(place)
    drawn = t.negatives.draw([pair.query_id for pair in pairs], place.epoch)
    generator = generator_for(t.recipe.train.seed, "synthesis", place.epoch, place.number)
    made = made_documents(t.objective.texts, pairs, t.dataset, generator)
    return lay_out(pairs, drawn, t.relevance, made), generator


def observer(t: Training, step: int) -> Observe | None:
    """Shows a batch's scores to negatives that change with them."""
    if t.recipe.negatives.replace is None:
        return None
    return lambda scores: t.negatives.observe(scores, step)


def clip(t: Training, parameters: list[nn.Parameter]) -> torch.Tensor:
    """Unscales and clips the gradient; returns its norm before that, on the device."""
    if t.accelerator.scaler is not None:
        t.accelerator.scaler.unscale_(t.optimizer)
    largest = t.recipe.train.clip if t.recipe.train.clip is not None else math.inf
    return nn.utils.clip_grad_norm_(parameters, largest)


def step_optimizer(t: Training, step: int, loss: float, norm: float) -> None:
    """Steps and clears. Raises InputError, before the weights are touched, where loss or gradient is no number."""
    scaler = t.accelerator.scaler
    wrong = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient is {norm}"
    # fp16's scaler skips the step itself where the gradient overflowed, and lowers its scale
    if not math.isfinite(loss) or (scaler is None and not math.isfinite(norm)):
        raise InputError(f"step {step + 1}: {wrong}; lower train.learning_rate, or train in fp32")
    if scaler is not None:
        scaler.step(t.optimizer)
        scaler.update()
    else:
        t.optimizer.step()
    # torch 2.13's fused kernel does not count as a change, and embeddings in the cache are named by what was counted.
    torch.autograd.graph.increment_version(trainable(t))
    pull_to_origins(t)
    for momentum in t.momenta:
        momentum.follow()
    t.optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def pull_to_origins(t: Training) -> None:
    """Decays the weights towards the base model's, decoupled from the gradient as AdamW's decay towards 0 is."""
    for group in t.optimizer.param_groups if t.origins else ():
        for parameter in group["params"]:
            if parameter in t.origins:
                parameter.lerp_(t.origins[parameter], min(1.0, group["lr"] * t.recipe.stay_close.pull))


def now_and_then(t: Training, state: State) -> None:
    """Validates, mines again, checkpoints and stops, each where it is time to."""
    train, last = t.recipe.train, state.step == t.plan.steps
    epoch_ended = state.place.number == 0
    due = {
        every: last or (state.step % steps == 0 if steps is not None else epoch_ended)
        for every, steps in (("validate", train.validate_every), ("checkpoint", train.checkpoint_every))
    }
    improved = due["validate"] and t.validate is not None and note_validation(t, state, t.validate())
    if not last and refresh_due(t, state):
        state.negatives = f"step-{state.step:06d}"
        put_in_force(t, state.negatives, state.step)
    training_mode(t.encoder.model, t.objective.modules)
    stop = agreed(t.stop_requested(), t.accelerator)
    if due["checkpoint"] or improved or stop or out_of_patience(t, state):
        save_checkpoint(t, state)
    if stop and not last:
        raise Interrupted(f"stopped at step {state.step} of {t.plan.steps}; the state is saved, go on with --resume")


def out_of_patience(t: Training, state: State) -> bool:
    """Early stopping. Asked of the state alone, so that a run killed after its last step knows it when resumed."""
    early = t.recipe.train.early_stopping
    return early is not None and state.stale >= early.patience


def put_in_force(t: Training, name: str, step: int) -> None:
    """Mines again with the student and the filters as they are, or takes what was; the teacher scores those pairs."""
    t.negatives = t.mine(name, t.objective.filters, step / t.plan.steps)
    if t.teach is not None:
        t.objective.teacher = t.teach(name)


def refresh_due(t: Training, state: State) -> bool:
    refresh = t.recipe.negatives.refresh
    if refresh is None:
        return False
    return state.place.number == 0 if refresh.every == "epoch" else state.step % refresh.every == 0


def note_validation(t: Training, state: State, value: float) -> bool:
    """Logs a validation; True where it is the best so far."""
    best = state.best_value is None or value > state.best_value
    if best:
        state.best_step, state.best_value, state.stale = state.step, value, 0
    else:
        state.stale += 1
    t.log.validation(state.step, t.recipe.evaluate.measure, value, best)
    return best


def agreed(wish: bool, accelerator: Accelerator) -> bool:
    """Whether any process wishes it, so that all stop at the same step."""
    if accelerator.num_processes == 1:
        return wish
    return bool(accelerator.reduce(torch.tensor(float(wish), device=accelerator.device), "sum") > 0)


def trainable(t: Training) -> list[nn.Parameter]:
    return [p for group in t.optimizer.param_groups for p in group["params"]]


def trainable_names(t: Training) -> list[str]:
    """The trained parameters' names, in the optimizer's order."""
    names = {p: name for name, p in t.encoder.model.named_parameters()}
    names |= {p: f"objective.{name}" for name, p in t.objective.modules.named_parameters()}
    return [names[p] for p in trainable(t)]


def save_checkpoint(t: Training, state: State) -> None:
    if not t.accelerator.is_main_process:
        return
    names = trainable_names(t)
    tensors: dict[str, dict[str, torch.Tensor]] = {
        "weights": dict(zip(names, trainable(t), strict=True)),
        "optimizer": checkpoint.optimizer_tensors(t.optimizer, names),
        "objective": dict(t.objective.modules.state_dict()),
        **({"negatives": t.negatives.state()} if t.negatives.state() else {}),
        **({"momentum": state_of(t.momenta)} if t.momenta else {}),
    }
    scaler = t.accelerator.scaler.state_dict() if t.accelerator.scaler is not None else None
    folder = t.folder / "checkpoints"
    checkpoint.save(folder, state.step, tensors, asdict(state) | {"scaler": scaler})
    checkpoint.prune(folder, state.best_step)
    t.log.checkpoint(state.step)


def load_checkpoint(t: Training, path: Path, *, weights_only: bool = False) -> State:
    """Puts weights, optimizer and objective as they were. Raises checkpoint.Damaged before anything is changed."""
    tensors, found = checkpoint.load(path)
    names = trainable_names(t)
    missing = set(names) ^ set(tensors["weights"])
    if missing:
        raise InputError(f"{path}: trained other weights than this recipe does, first {sorted(missing)[0]!r}")
    with torch.no_grad():
        for name, parameter in zip(names, trainable(t), strict=True):
            parameter.copy_(tensors["weights"][name])
    if not weights_only:
        checkpoint.load_optimizer(t.optimizer, names, tensors["optimizer"])
        t.objective.modules.load_state_dict(tensors["objective"])
        load_state(t.momenta, tensors.get("momentum", {}))
        if t.accelerator.scaler is not None:
            t.accelerator.scaler.load_state_dict(found["scaler"])
        if found["negatives"] != State().negatives:
            put_in_force(t, found["negatives"], found["step"])
        t.negatives.load(tensors.get("negatives", {}))
    fields = {name: found[name] for name in ("step", "best_step", "best_value", "stale", "negatives")}
    return State(place=Place(**found["place"]), **fields)
