"""`train`: a recipe in, a run folder out."""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ..data.dataset import load_dataset
from ..encode import lora, store
from ..encode.encoder import Encoder, load_encoder, weights_fingerprint
from ..encode.loading import load_model
from ..encode.precision import resolve_device, resolve_precision
from ..errors import InputError
from ..evaluate.results import distinct
from ..evaluate.retrieval import evaluate
from ..evidence import Files
from ..files import locked, whole_folder, write_json
from ..recipe import Recipe, resolve, split_of
from ..relevance import Relevance
from ..types import Dataset
from . import checkpoint
from . import folder as run_folder
from .facts import facts_for
from .log import Listener, Log
from .loop import State, Training, fit, load_checkpoint
from .modes import switch_off_dropout
from .negatives import Negatives, mined_once, read_negatives, teacher_of, with_cache
from .plan import Plan
from .step import Objective
from .validation import Validator, held_out

SUMMARISED = ("steps", "best_step", "base", "tuned")


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A finished run. `base` and `tuned` are label -> measure -> value, for the recipe's in- and out-of-domain sets."""

    folder: Path
    steps: int
    best_step: int | None
    base: dict[str, dict[str, float]]
    tuned: dict[str, dict[str, float]]
    already_finished: bool = False

    @property
    def model(self) -> Path:
        """The tuned model, which `SentenceTransformer(path)` opens."""
        return self.folder / "model"


def train(
    recipe: Recipe,
    output: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_event: Listener | None = None,
) -> TrainedRun:
    """Trains by the recipe into the run folder `output`, evaluates base and tuned model, and returns both.

    resume: goes on from the last whole checkpoint; a finished run is only read, a folder without one starts afresh.
    Raises InputError for anything wrong with recipe, data, model or folder (before training where it can be known),
    and Interrupted, with the state saved, on SIGINT and SIGTERM.
    """
    recipe, target = resolve(recipe), Path(output)
    accelerator = make_accelerator(recipe, target)
    if not accelerator.is_main_process:
        accelerator.wait_for_everyone()
        return _train(recipe, target, accelerator, resumed=(target / "checkpoints").is_dir(), on_event=None)
    with locked(target):
        resumed = run_folder.claim(target, recipe, resume=resume, overwrite=overwrite)
        done = run_folder.finished(target)
        accelerator.wait_for_everyone()
        if done is not None:
            return TrainedRun(folder=target, already_finished=True, **done)
        return _train(recipe, target, accelerator, resumed=resumed, on_event=on_event)


def make_accelerator(recipe: Recipe, folder: Path) -> Accelerator:
    """Raises InputError for a tracker that is not installed, and where several processes would each train alone."""
    for tracker in recipe.train.track:
        if find_spec(tracker) is None:  # accelerate would train on without a word
            raise InputError(f"train.track: {tracker} is not installed; try: pip install {tracker}")
    device = resolve_device()
    precision = resolve_precision(recipe.train.precision, device)
    mixed = "no" if precision == "fp32" else precision
    os.environ.setdefault("ACCELERATE_LOG_LEVEL", "error")
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=mixed,
        log_with=list(recipe.train.track) or None,
        project_dir=str(folder),
    )
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != accelerator.num_processes:
        raise InputError(
            f"WORLD_SIZE is {started} but accelerate sees {accelerator.num_processes} process(es): each would train "
            "alone; start with torchrun or accelerate launch, or unset WORLD_SIZE"
        )
    return accelerator


def _train(
    recipe: Recipe, folder: Path, accelerator: Accelerator, *, resumed: bool, on_event: Listener | None
) -> TrainedRun:
    dataset = load_dataset(recipe.data.train, None if split_of(recipe.data.train)[1] else recipe.data.split)
    suites = distinct([load_dataset(n) for n in (*recipe.evaluate.in_domain, *recipe.evaluate.out_of_domain)])
    stop = threading.Event()
    training, base_fingerprint = set_up(recipe, dataset, accelerator, folder, on_event, stop.is_set)
    facts = environment(training, suites, base_fingerprint)
    if accelerator.is_main_process:
        for difference in run_folder.keep_environment(folder, recipe, facts, resumed=resumed):
            training.log.tell("message", text=difference)
    state = resume_state(training) if resumed else State()
    accelerator.init_trackers("embedtune", config={"recipe": str(folder / "recipe.yaml")})
    training.log.tell("phase", name="train", steps=training.plan.steps, at=state.step)
    with signals_set(stop):
        state = fit(training, state)
    if not accelerator.is_main_process:
        return TrainedRun(folder=folder, steps=state.step, best_step=state.best_step, base={}, tuned={})
    run = finish(training, state, suites)
    accelerator.end_training()
    return run


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
    with accelerator.main_process_first():
        plan = Plan(recipe, dataset, query_ids, facts_for(recipe, with_cache(encoder), dataset, query_ids))
    base_fingerprint = weights_fingerprint(encoder.model)
    log = Log(folder / "log.jsonl", accelerator, on_event, _logged_until(folder))
    relevance = Relevance(dataset)
    mined = miner(recipe, dataset, encoder, query_ids, relevance, accelerator, folder, log)
    negatives = mined(State().negatives)  # by the base weights
    with accelerator.main_process_first():  # which encodes for the teacher; the others find that in the cache
        teacher = teacher_of(recipe, dataset, encoder, Files(folder / "negatives" / f"{State().negatives}.run"))
    if recipe.model.lora is not None:
        torch.manual_seed(recipe.train.seed)  # the adapter's initial weights
        lora.attach(encoder.model, recipe.model.lora, recipe.model.name)
    if recipe.model.gradient_checkpointing:
        enable_gradient_checkpointing(encoder)
    if recipe.model.dropout == "off":
        switch_off_dropout(encoder.model)
    objective = dataclasses.replace(Objective.of(recipe), teacher=teacher)
    objective.modules.to(encoder.device)
    validate = Validator(encoder, validation, recipe.evaluate.measure, accelerator) if validation else None
    training = Training(
        recipe=recipe,
        encoder=encoder,
        dataset=dataset,
        plan=plan,
        relevance=relevance,
        negatives=negatives,
        objective=objective,
        optimizer=make_optimizer(recipe, encoder, objective),
        accelerator=accelerator,
        folder=folder,
        log=log,
        validate=validate,
        mine=mined,
        stop_requested=stop_requested,
    )
    return training, base_fingerprint


def miner(
    recipe: Recipe,
    dataset: Dataset,
    encoder: Encoder,
    query_ids: list[str],
    relevance: Relevance,
    accelerator: Accelerator,
    folder: Path,
    log: Log,
) -> Callable[[str], Negatives]:
    """Gives a function that mines with the encoder as it is into negatives/<name>.run, or reads what is there.

    What is there was mined by this very run at this very step: with the same weights, so with the same result.
    """

    def mined(name: str) -> Negatives:
        if not recipe.negatives.mining:
            return Negatives(recipe, {})
        files = Files(folder / "negatives" / f"{name}.run")
        if not files.complete:
            log.tell("phase", name="mine negatives")
        report = mined_once(
            recipe,
            dataset,
            encoder,
            query_ids,
            relevance,
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
    return Encoder(load_model(recipe.model, accelerator.device), recipe.model.name, precision, cached=False)


def enable_gradient_checkpointing(encoder: Encoder) -> None:
    backbone = encoder.model[0].model
    with lora.quiet():
        encoder.model.gradient_checkpointing_enable({"use_reentrant": False})
        if hasattr(backbone, "enable_input_require_grads"):
            backbone.enable_input_require_grads()  # frozen embeddings would cut the graph of a checkpointed layer


def make_optimizer(recipe: Recipe, encoder: Encoder, objective: Objective) -> torch.optim.AdamW:
    """AdamW; biases, norms and scalars (and what the objective trains) are not decayed."""
    named = [(n, p) for n, p in encoder.model.named_parameters() if p.requires_grad]
    decayed = [p for _, p in named if p.ndim >= 2]
    plain = [p for _, p in named if p.ndim < 2] + list(objective.modules.parameters())
    groups = [{"params": decayed, "weight_decay": recipe.train.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=recipe.train.learning_rate)


def resume_state(training: Training) -> State:
    """From the newest checkpoint that is whole; a damaged one is named and the one before it is used."""
    for path in checkpoint.latest(training.folder / "checkpoints"):
        try:
            return load_checkpoint(training, path)
        except checkpoint.Damaged as damage:
            training.log.tell("message", text=f"checkpoint {path.name} is damaged ({damage}); using the one before it")
    return State()


def _logged_until(folder: Path) -> int:
    return next(iter(checkpoint.steps_saved(folder / "checkpoints")), 0)


def finish(training: Training, state: State, suites: list[Dataset]) -> TrainedRun:
    """Saves the chosen weights as model/ (and adapter/), evaluates base and tuned, and writes the summary."""
    folder, recipe = training.folder, training.recipe
    if state.best_step is not None and state.best_step != state.step:
        load_checkpoint(training, folder / "checkpoints" / f"step-{state.best_step:06d}", weights_only=True)
    save_model(training.encoder, recipe, folder)
    base, tuned = {}, {}
    if suites:
        base = evaluate_suites(recipe, recipe.model.name, suites, folder / "evaluation-base", training.log)
        tuned = evaluate_suites(recipe, str(folder / "model"), suites, folder / "evaluation", training.log)
    run = TrainedRun(folder=folder, steps=state.step, best_step=state.best_step, base=base, tuned=tuned)
    write_json(folder / run_folder.SUMMARY, {name: getattr(run, name) for name in SUMMARISED})
    return run


def save_model(encoder: Encoder, recipe: Recipe, folder: Path) -> None:
    """adapter/ (opens with peft) for LoRA, and model/: merged, self-contained, opens with SentenceTransformer."""
    if recipe.model.lora is not None:
        with whole_folder(folder / "adapter") as temporary:
            lora.save_adapter(encoder.model, temporary)
        lora.merge(encoder.model)
    with whole_folder(folder / "model") as temporary:
        encoder.model.save_pretrained(str(temporary), create_model_card=False)


def evaluate_suites(
    recipe: Recipe, model: str, suites: list[Dataset], output: Path, log: Log
) -> dict[str, dict[str, float]]:
    """Dataset label -> measure -> value. Results go to `output`; a set that is already there is evaluated again."""
    shutil.rmtree(output, ignore_errors=True)
    tuned = output.name == "evaluation"
    block = dataclasses.replace(recipe.model, name=model, pooling=None if tuned else recipe.model.pooling)
    encoder = load_encoder(block, precision=recipe.evaluate.precision)
    found = {}
    for dataset in suites:
        log.tell("phase", name=f"evaluate the {'tuned' if tuned else 'base'} model on {dataset.label}")
        evaluation = evaluate(
            encoder,
            dataset,
            measures=list(dict.fromkeys([recipe.evaluate.measure, *recipe.evaluate.measures])),
            output=output,
            on_progress=lambda done, total: log.tell("progress", done=done, total=total),
        )
        found[evaluation.label] = evaluation.measures
    return found


def environment(training: Training, suites: list[Dataset], base_fingerprint: str) -> dict[str, Any]:
    """What the result depends on besides the recipe."""
    data = {f"data {dataset.label}": dataset.fingerprint for dataset in suites}
    return {
        "versions": {"python": platform.python_version(), **store.versions()},
        "threads": torch.get_num_threads(),
        "processes": training.accelerator.num_processes,
        "device": str(training.encoder.device),
        "precision": training.encoder.precision,
        "tokens_per_chunk": training.encoder.tokens_per_chunk,
        "fingerprints": {
            "training data": training.dataset.fingerprint,
            "base weights": base_fingerprint,
            **data,
        },
    }


@contextmanager
def signals_set(stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set `stop`, so that the step at hand is finished and saved. A second one acts as ever.

    Only around the loop: elsewhere there is nothing to save, and a signal ends the process at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: object) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
