"""The loop, on one page: batch, encode, score, filter, weight, loss, step. Below it: what happens now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from functools import partial

import torch
from accelerate import Accelerator

from .. import distributed
from ..errors import InputError, Interrupted
from ..methods.loss._pairs import REFUSED, WithoutNegatives
from ..models.beside import ahead
from ..models.prepared import Prepared
from ..models.sharded import clip_gradients
from ..seeds import generator_for, seed_for
from . import checkpoint, earlier
from .checkpoint import State, Training
from .objective import Observe, Parts
from .plan import Position
from .step import (
    Batch,
    accumulate_gradients,
    agree_on_state,
    average_gradients,
    lay_out,
    made_documents,
    numbers_of,
    prepared,
    slow_documents,
    sum_gradients,
    training_mode,
)

ALIKE_EVERY = 100  # steps between comparisons of what all processes hold alike


def fit(t: Training, state: State) -> State:
    """Trains from `state` to the end. Raises Interrupted, with the state saved, when asked to stop."""
    train = t.recipe.train
    validate_untouched(t, state)
    training_mode(t.encoder.model, t.objective.modules)
    with closing(ahead(batches_from(t, state.position), partial(next_is_known, t, state))) as coming:
        while state.step < t.plan.steps and not out_of_patience(t, state):
            started, epoch, progress = time.perf_counter(), state.position.epoch, state.step / t.plan.steps
            torch.manual_seed(seed_for(train.seed, "step", state.step, t.accelerator.process_index))
            rate = t.stages.begin(state.step, t.encoder)
            for group in t.optimizer.param_groups:
                group["lr"] = rate * group["scale"]
            batches: list[Batch] = []
            parts: list[Parts] = []
            for _ in range(train.accumulate):
                batch, items, generator = next(coming)
                for queue in t.queues:
                    queue.keys = slow_documents(t.step, batch, items[1], queue, t.encoder_weights)
                loss, logged = accumulate_gradients(
                    t.step, batch, generator, progress=progress, observe=observer(t, state.step), items=items
                )
                batches.append(batch)
                parts.append(t.step.adds({"loss": loss, **logged}))
                state.position = t.plan.after(state.position)
            others = distill_step(t, state.step, progress) if t.stream is not None else {}
            share_gradients(t)
            others |= t.step.adds({"gradient_norm": clip(t)})
            numbers = numbers_of(t.step, parts, others)
            refuse_without_negatives(numbers, batches)
            step_optimizer(t, state.step, numbers["loss"], numbers["gradient_norm"])
            state.step += 1
            numbers["learning_rate"] = rate
            t.log.step(state.step, epoch, numbers, batches, time.perf_counter() - started)
            note_memory(t, state)
            now_and_then(t, state)
    return state


def validate_untouched(t: Training, state: State) -> None:
    """Starts the learning curve with the untouched model, which is the best one until a step validates better."""
    if t.validate is not None and state.step == 0 and state.best_step is None:
        note_validation(t, state, t.validate())
        save_checkpoint(t, state)


Coming = tuple[Batch, list[list[Prepared]], torch.Generator]
"""A batch, what `prepared` gives of it, and the generator for what is drawn from it."""


def batches_from(t: Training, position: Position) -> Generator[Coming, None, None]:
    """The batches from a position on, ready for the model. They are functions of their positions, so that what a
    checkpoint holds is the same whether or not one is made early."""
    while True:
        batch, generator = batch_at(t, position)
        yield batch, prepared(t.step, batch), generator
        position = t.plan.after(position)


def batch_at(t: Training, position: Position) -> tuple[Batch, torch.Generator]:
    """The batch of a position with its negatives, and the generator for what is drawn from it."""
    pairs = t.plan.batch(position)
    drawn = t.negatives.draw([pair.query_id for pair in pairs], position.epoch)
    generator = generator_for(t.recipe.train.seed, "synthesis", position.epoch, position.number)
    made = made_documents(t.objective.texts, pairs, t.dataset, generator)
    return lay_out(pairs, drawn, t.relevance, made), generator


def next_is_known(t: Training, state: State, _: Coming) -> bool:
    """Whether the next batch is the same before this step as after it, so that it can be made beside it.

    Not where the step's end brings other negatives, another stage or the run's end, nor where what a frozen tower has
    not seen would be computed beside the step.
    """
    refresh, step = t.recipe.negatives.refresh, state.step + 1
    if step in (t.plan.first, t.plan.steps) or t.encoder.cached_towers is not None or not t.negatives.known_ahead:
        return False
    if refresh is None:
        return True
    if refresh.every != "epoch":
        return step % refresh.every != 0
    return state.position.number + t.recipe.train.accumulate < len(t.plan.epoch(state.position.epoch))


def observer(t: Training, step: int) -> Observe | None:
    """Shows a batch's scores to negatives that change with them."""
    if t.recipe.negatives.replace is None:
        return None
    return lambda scores: t.negatives.observe(scores, step)


def distill_step(t: Training, step: int, progress: float) -> Parts:
    """Adds the gradient of the unlabelled text's batch; returns what this process adds to its loss, for the log."""
    assert t.stream is not None
    assert t.stream_step is not None
    generator = generator_for(t.stream.seed, "distill step", step)
    loss, _ = accumulate_gradients(t.stream_step, t.stream.batch(step), generator, progress=progress)
    return t.stream_step.adds({"distill": loss})


def share_gradients(t: Training) -> None:
    """Gives every process the gradient of the whole batch."""
    of_objective = set(t.objective.modules.parameters())
    if not t.encoder.sharded:  # whose backward pass has summed them
        sum_gradients([parameter for parameter in t.trained if parameter not in of_objective], t.accelerator)
    if t.step.local:
        sum_gradients(list(t.objective.modules.parameters()), t.accelerator)
    else:  # each process has computed their whole gradient
        average_gradients(t.objective.modules, t.accelerator)


def clip(t: Training) -> torch.Tensor:
    """Unscales and clips the gradient; returns its norm before that, on the device."""
    if t.accelerator.scaler is not None:
        t.accelerator.scaler.unscale_(t.optimizer)
    largest = t.recipe.train.clip if t.recipe.train.clip is not None else math.inf
    return clip_gradients(t.trained, largest)


def refuse_without_negatives(numbers: dict[str, float], batches: Sequence[Batch]) -> None:
    """Raises WithoutNegatives, before the weights change, where only the device knew that a batch has none."""
    if numbers.pop(REFUSED, 0) > 0:
        raise WithoutNegatives(max(len(batch.query_ids) for batch in batches))


def step_optimizer(t: Training, step: int, loss: float, norm: float) -> None:
    """Steps and clears. Raises InputError, before the weights change, where loss or gradient is not finite."""
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
    # torch 2.13's fused kernel does not count as a change, and cached embeddings are named by the counted version.
    torch.autograd.graph.increment_version(t.trained)
    pull_to_origins(t)
    for queue in t.queues:
        queue.follow(t.encoder_weights)
    t.optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def pull_to_origins(t: Training) -> None:
    """Decays the weights towards the base model's, decoupled from the gradient as AdamW's decay towards 0 is."""
    for group in t.optimizer.param_groups if t.origins else ():
        for parameter in group["params"]:
            if parameter in t.origins:
                parameter.lerp_(t.origins[parameter], min(1.0, group["lr"] * t.recipe.stay_close.pull))


def now_and_then(t: Training, state: State) -> None:
    """Validates, mines again, checkpoints and stops, each when it is due."""
    if state.step == 1 and t.accelerator.is_main_process:
        earlier.discard(t.folder)  # all that can refuse a run has been asked
    train, last = t.recipe.train, state.step == t.plan.steps
    epoch_ended = state.position.number == 0

    def due(every: int | None) -> bool:
        return last or (state.step % every == 0 if every is not None else epoch_ended)

    improved = t.validate is not None and due(train.validate_every) and note_validation(t, state, t.validate())
    if not last and refresh_due(t, state):
        state.negatives = f"step-{state.step:06d}"
        t.use_negatives(state.negatives, state.step)
    training_mode(t.encoder.model, t.objective.modules)
    if state.step % ALIKE_EVERY == 0:
        hold_alike(t, state)
    stop = agreed(t.stop_requested(), t.accelerator)
    if due(train.checkpoint_every) or improved or stop or out_of_patience(t, state):
        save_checkpoint(t, state)
    if stop and not last:
        again = f"embedtune train {t.folder / 'recipe.yaml'} --output {t.folder} --resume"
        raise Interrupted(f"stopped at step {state.step} of {t.plan.steps}; the state is saved, go on with: {again}")


def out_of_patience(t: Training, state: State) -> bool:
    """Early stopping. Known from the state alone, so that a run killed after its last step knows it when resumed."""
    early = t.recipe.train.early_stopping
    return early is not None and state.stale >= early.patience


def refresh_due(t: Training, state: State) -> bool:
    refresh = t.recipe.negatives.refresh
    if refresh is None:
        return False
    return state.position.number == 0 if refresh.every == "epoch" else state.step % refresh.every == 0


def note_validation(t: Training, state: State, value: float) -> bool:
    """Logs a validation; True where it is the best so far. A trained model that equals the untouched one is better."""
    ties_untouched = state.best_step == 0 and value == state.best_value
    best = state.best_value is None or value > state.best_value or ties_untouched
    if best:
        state.best_step, state.best_value, state.stale = state.step, value, 0
    else:
        state.stale += 1
    t.log.validation(state.step, t.recipe.evaluate.measure, value, best)
    return best


def note_memory(t: Training, state: State) -> None:
    """Keeps and logs what the memory was found to hold, where that has changed."""
    limits = t.encoder.chunk_tokens
    if (state.chunk_tokens, state.whole_graphs) != (limits.bound, limits.whole_graphs):
        state.chunk_tokens, state.whole_graphs = limits.bound, limits.whole_graphs
        t.log.write("memory", step=state.step, chunk_tokens=limits.bound, whole_graphs=limits.whole_graphs)


def hold_alike(t: Training, state: State) -> None:
    """Gives every process the main one's weights and state of the objective, and says where they differed."""
    of_objective = {f"objective.{name}": values for name, values in t.objective.modules.state_dict().items()}
    different = agree_on_state(dict(zip(t.trained_names, t.trained, strict=True)) | of_objective, t.accelerator)
    if different:
        text = f"step {state.step}: processes differed in {', '.join(different)}; all take the first process's"
        t.log.tell("message", text=text)


def save_checkpoint(t: Training, state: State) -> None:
    """Saves the state as the main process has it."""
    hold_alike(t, state)
    done = state.step == t.plan.steps or out_of_patience(t, state)
    checkpoint.save_training(t, state, done=done)
    distributed.meet()  # the main process writes, perhaps for minutes; the next step is collective


def agreed(wish: bool, accelerator: Accelerator) -> bool:
    """Whether any process wishes it, so that all stop at the same step."""
    if accelerator.num_processes == 1:
        return wish
    return bool(accelerator.reduce(torch.tensor(float(wish), device=accelerator.device), "sum") > 0)
