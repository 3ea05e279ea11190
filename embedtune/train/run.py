"""`train`: a recipe in, a run folder out."""

from __future__ import annotations

import dataclasses
import platform
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ..data.dataset import load_dataset, load_training
from ..encode import lora, store
from ..encode.encoder import Encoder, load_encoder
from ..evaluate.results import distinct
from ..evaluate.retrieval import evaluate
from ..files import locked, whole_folder, write_json, write_lines
from ..recipe import Model, Recipe, resolve
from ..types import Dataset
from . import checkpoint
from . import folder as run_folder
from .log import Listener, Log
from .loop import State, Training, fit, load_checkpoint
from .prepare import make_accelerator, set_up
from .signals import signals_set

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


def _train(
    recipe: Recipe, folder: Path, accelerator: Accelerator, *, resumed: bool, on_event: Listener | None
) -> TrainedRun:
    dataset = load_training(recipe.data)
    suites = distinct([load_dataset(n) for n in (*recipe.evaluate.in_domain, *recipe.evaluate.out_of_domain)])
    stop = threading.Event()
    training, base_fingerprint = set_up(recipe, dataset, accelerator, folder, on_event, stop.is_set)
    facts = environment(training, suites, base_fingerprint)
    if accelerator.is_main_process:
        for difference in run_folder.keep_environment(folder, recipe, facts, resumed=resumed):
            training.log.tell("message", text=difference)
        if dataset.left_out:
            write_lines(folder / run_folder.LEFT_OUT, dataset.left_out)
            said = f"{len(dataset.left_out):,} items with a broken image are left out: {folder / run_folder.LEFT_OUT}"
            training.log.tell("message", text=said)
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


def resume_state(training: Training) -> State:
    """From the newest checkpoint that is whole; a damaged one is named and the one before it is used."""
    for path in checkpoint.latest(training.folder / "checkpoints"):
        try:
            return load_checkpoint(training, path)
        except checkpoint.Damaged as damage:
            training.log.tell("message", text=f"checkpoint {path.name} is damaged ({damage}); using the one before it")
    return State()


def finish(training: Training, state: State, suites: list[Dataset]) -> TrainedRun:
    """Saves the chosen weights as model/ (and adapter/), evaluates base and tuned, and writes the summary."""
    folder, recipe = training.folder, training.recipe
    if state.best_step is not None and state.best_step != state.step:
        load_checkpoint(training, folder / "checkpoints" / f"step-{state.best_step:06d}", weights_only=True)
    save_model(training.encoder, recipe, folder)
    base, tuned = {}, {}
    if suites:
        own = dataclasses.replace(recipe.model, name=str(folder / "model"), compose=None, pooling=None)
        base = evaluate_suites(recipe, recipe.model, suites, folder / "evaluation-base", training.log)
        tuned = evaluate_suites(recipe, own, suites, folder / "evaluation", training.log)
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
    recipe: Recipe, model: Model, suites: list[Dataset], output: Path, log: Log
) -> dict[str, dict[str, float]]:
    """Dataset label -> measure -> value. Results go to `output`; a set that is already there is evaluated again."""
    shutil.rmtree(output, ignore_errors=True)
    tuned = output.name == "evaluation"
    encoder = load_encoder(model, precision=recipe.evaluate.precision, seed=recipe.train.seed)
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
