"""`train`: a recipe in, a run folder out."""

from __future__ import annotations

import dataclasses
import platform
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator

from .. import distributed as processes
from ..data.dataset import load_dataset, load_training
from ..data.selection import Selection
from ..errors import InputError
from ..evaluate.guarded import Point
from ..evaluate.results import Evaluation, distinct
from ..evaluate.retrieval import encode_for_evaluation, evaluate
from ..files import fingerprints_of_weights, inner_folder, is_locked, locked, write_json, write_lines, write_text
from ..models import adapters, store
from ..models.cached_towers import CachedTowers
from ..models.encoder import Encoder, load_encoder
from ..models.loading import load_model
from ..recipe import Recipe, resolve
from ..report.card import write_card
from ..report.record import SUMMARY
from ..types import Dataset, Items, Role
from . import checkpoint
from . import folder as run_folder
from .guard import Watched, conclude, refuse_distilled, refuse_overlap, verdicts, watch
from .live import two_towers
from .log import Listener, Log
from .loop import State, Training, fit, load_checkpoint
from .mix import UNMIXED, mix_run
from .preflight import refuse_without_texts
from .prepare import make_accelerator, set_up
from .signals import signals_set

Which = Literal["base", "tuned", "unmixed"]
FINISHING = ".finishing"  # there while base and tuned model are evaluated
SUMMARISED = ("steps", "best_step", "base", "tuned", "missed", "weights")

Evaluations = dict[str, Evaluation]
"""dataset label -> what was found."""


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A finished run. `base` and `tuned` are label -> measure -> value, for the recipe's in- and out-of-domain sets.

    missed: what the guard found over its budget, a sentence for each set. weights: file in model/ -> sha256.
    """

    folder: Path
    steps: int
    best_step: int | None
    base: dict[str, dict[str, float]]
    tuned: dict[str, dict[str, float]]
    missed: list[str] = field(default_factory=list)
    weights: dict[str, str] = field(default_factory=dict)
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
    if processes.leads():
        run_folder.check_output(target, overwrite=overwrite)
    accelerator = make_accelerator(recipe, target)
    if not accelerator.is_main_process:
        accelerator.wait_for_everyone()
        done = run_folder.finished(target)
        if done is not None:
            return TrainedRun(folder=target, already_finished=True, **done | {"missed": []})
        return _train(recipe, target, accelerator, resumed=(target / "checkpoints").is_dir(), on_event=None)
    with locked(target):
        resumed = run_folder.claim(target, recipe, resume=resume, overwrite=overwrite)
        done = run_folder.finished(target)
        accelerator.wait_for_everyone()
        if done is not None:
            return TrainedRun(folder=target, already_finished=True, **done)
        try:
            return _train(recipe, target, accelerator, resumed=resumed, on_event=on_event)
        except InputError:
            if not resumed:
                run_folder.withdraw(target)
            raise


def _train(
    recipe: Recipe, folder: Path, accelerator: Accelerator, *, resumed: bool, on_event: Listener | None
) -> TrainedRun:
    dataset = load_training(recipe.data)
    refuse_without_texts(recipe, dataset)
    suites = load_suites(recipe)
    if recipe.evaluate.guard is not None:
        guarded = suites[len(recipe.evaluate.in_domain) :]
        refuse_overlap(dataset, guarded)
        if recipe.evaluate.guard.weights == "fisher" and accelerator.num_processes > 1:
            raise InputError("evaluate.guard.weights: fisher is computed by one process; train on one, or take linear")
        if recipe.stay_close.distill is not None:
            refuse_distilled(recipe.stay_close.distill.data, guarded)
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
    if accelerator.is_main_process:
        (folder / FINISHING).unlink(missing_ok=True)  # of a run that was killed there
    accelerator.wait_for_everyone()
    if not accelerator.is_main_process:
        accelerator.end_training()  # the rest is the first process's
        if accelerator.process_index == accelerator.local_process_index:  # on its machine, where its files are
            encode_for_finish(training, suites)
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


def load_suites(recipe: Recipe) -> list[Dataset]:
    """The sets to evaluate on: those in domain, then those out of it."""
    return distinct([load_dataset(n) for n in (*recipe.evaluate.in_domain, *recipe.evaluate.out_of_domain)])


def finish(training: Training, state: State, suites: list[Dataset]) -> TrainedRun:
    """Saves the chosen weights as model/ (and adapter/), evaluates base and tuned, writes model card and summary."""
    folder, recipe, guard = training.folder, training.recipe, training.recipe.evaluate.guard
    if state.best_step is not None and state.best_step != state.step:
        load_checkpoint(training, folder / "checkpoints" / f"step-{state.best_step:06d}", weights_only=True)
    save_model(training.encoder, recipe, folder)
    watched: list[Watched] = []
    points: list[Point] = []
    if guard is not None:
        inside = len(recipe.evaluate.in_domain)
        watched = [watch(dataset, guard) for dataset in suites[inside:]]
        suites = [*suites[:inside], *(w.reporting for w in watched)]
        if guard.interpolate:
            training.log.tell("phase", name="mix base and tuned weights")
            points = mix_run(training, guard, watched, training.validation)
    write_text(folder / FINISHING, "model/ is what it will be\n")
    base = evaluate_suites(recipe, "base", suites, folder, training.log)
    tuned = evaluate_suites(recipe, "tuned", suites, folder, training.log)
    missed: list[str] = []
    if guard is not None:
        unmixed = evaluate_suites(recipe, "unmixed", suites, folder, training.log) if points else {}
        found = verdicts(recipe, watched, base, tuned, unmixed)
        missed = conclude(recipe, points, found, folder)
    run = TrainedRun(
        folder=folder,
        steps=state.step,
        best_step=state.best_step,
        base={label: evaluation.measures for label, evaluation in base.items()},
        tuned={label: evaluation.measures for label, evaluation in tuned.items()},
        missed=missed,
        weights=fingerprints_of_weights(folder / "model"),
    )
    summary = {name: getattr(run, name) for name in SUMMARISED}
    write_card(folder, summary)
    write_json(folder / SUMMARY, summary)
    (folder / FINISHING).unlink(missing_ok=True)
    return run


def encode_for_finish(training: Training, suites: list[Dataset]) -> None:
    """Encodes the suites' documents with the process that is at `finish`: by the base model, then by the tuned one."""
    recipe, folder = training.recipe, training.folder
    both: tuple[Which, Which] = ("base", "tuned")
    for which in both if suites else ():
        while which == "tuned" and not (folder / FINISHING).exists():  # not a barrier, as in mining
            if (folder / SUMMARY).exists() or not is_locked(folder):  # done, or the first process is no more
                return
            time.sleep(0.5)
        encode_for_evaluation(suite_encoder(recipe, which, suites, folder, training.log), suites)


def save_model(encoder: Encoder, recipe: Recipe, folder: Path) -> None:
    """adapter/ (opens with peft) for LoRA, and model/: merged, self-contained, opens with SentenceTransformer."""
    if recipe.model.lora is not None:
        with inner_folder(folder / "adapter") as temporary:
            adapters.save_adapter(encoder.model, temporary)
        adapters.merge(encoder.model)
    model = encoder.model
    if recipe.negatives.live is not None:
        model = two_towers(model, load_model(recipe.model, encoder.device))
    with inner_folder(folder / "model") as temporary:
        model.save_pretrained(str(temporary), create_model_card=False)


def evaluate_suites(recipe: Recipe, which: Which, suites: list[Dataset], folder: Path, log: Log) -> Evaluations:
    """One of the run's models on every set, by label. Results go to evaluation/ (tuned) or evaluation-base/ and
    evaluation-unmixed/; a set that is already there is evaluated again."""
    output = folder / ("evaluation" if which == "tuned" else f"evaluation-{which}")
    shutil.rmtree(output, ignore_errors=True)
    if not suites:
        return {}
    encoder = suite_encoder(recipe, which, suites, folder, log)
    guarded = recipe.evaluate.guard.measure if recipe.evaluate.guard is not None else None
    measures = [recipe.evaluate.measure, *([guarded] if guarded is not None else []), *recipe.evaluate.measures]
    found = {}
    for dataset in suites:
        log.tell("phase", name=f"evaluate the {which} model on {dataset.label}")
        found[dataset.label] = evaluate(
            encoder,
            dataset,
            measures=list(dict.fromkeys(measures)),
            output=output,
            on_progress=lambda done, total: log.tell("progress", done=done, total=total),
        )
    return found


def suite_encoder(recipe: Recipe, which: Which, suites: Sequence[Dataset], folder: Path, log: Log) -> Encoder:
    """One of the run's models, to evaluate the suites with."""
    own = {"tuned": "model", "unmixed": UNMIXED}
    block = recipe.model
    if which != "base":
        block = dataclasses.replace(recipe.model, name=str(folder / own[which]), compose=None, pooling=None)
    encoder = load_encoder(block, precision=recipe.evaluate.precision, seed=recipe.train.seed)
    if recipe.model.compose is not None and recipe.model.compose.towers == "frozen":
        log.tell("phase", name=f"encode with the {which} model's towers")
        encoder.cached_towers = _frozen(encoder, suites, log)
    return encoder


def _frozen(encoder: Encoder, suites: Sequence[Dataset], log: Log) -> CachedTowers:
    """What the towers give for the suites: computed once for the base model and every model that is tuned from it."""
    sets: list[tuple[Items, Role]] = []
    for dataset in suites:
        sets += [(Selection(dataset.queries, list(dataset.qrels)), "query"), (dataset.corpus, "document")]
    return CachedTowers(encoder, sets, on_progress=lambda done, total: log.tell("progress", done=done, total=total))


def environment(training: Training, suites: list[Dataset], base_fingerprint: str) -> dict[str, Any]:
    """What the result depends on besides the recipe."""
    data = {f"data {dataset.label}": dataset.fingerprint for dataset in suites}
    return {
        "versions": {"python": platform.python_version(), **store.versions()},
        "threads": torch.get_num_threads(),
        "processes": training.accelerator.num_processes,
        "device": str(training.encoder.device),
        "precision": training.encoder.precision,
        "tokens_at_once": training.encoder.tokens_at_once,
        "fingerprints": {
            "training data": training.dataset.fingerprint,
            "base weights": base_fingerprint,
            **data,
        },
    }
