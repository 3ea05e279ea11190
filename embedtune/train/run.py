"""`train`: a recipe in, a run folder out."""

from __future__ import annotations

import dataclasses
import platform
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator

from .. import distributed
from ..data.broken import is_textual, pictured
from ..data.dataset import load_training
from ..data.selection import Selection
from ..errors import InputError
from ..evaluate.guarded import Point
from ..evaluate.lexical import INSTALL, evaluate_bm25, is_installed
from ..evaluate.results import Evaluation
from ..evaluate.results import write as write_evaluation
from ..evaluate.retrieval import Retrieval, encode_for_evaluation, evaluate
from ..evaluate.sizes import StoredAs, evaluate_sizes
from ..files import fingerprint_of, fingerprints_of_weights, inner_folder, locked, write_json, write_lines, write_text
from ..methods import use_folders
from ..models import adapters, saving, store
from ..models.cached_towers import CachedTowers
from ..models.device_memory import give_back
from ..models.encoder import Encoder, load_encoder
from ..models.folders import SUMMARY
from ..models.loading import load_model
from ..models.merging import merge_proven, probe_of, refuse_lost
from ..models.precision import resolve_device
from ..recipe import Recipe, method_fingerprints, refuse_within, resolve
from ..report.card import write_card
from ..report.record import BY_WORDS, UNMIXED
from ..types import Dataset, Item, Items, Role
from . import checkpoint
from . import folder as run_folder
from .checkpoint import State, Training
from .forecast import work_of
from .guard import Watched, choose, conclude, refuse_distilled, refuse_overlap, watch
from .lineage import lineage_of, succession
from .live import two_towers
from .log import Listener, Log
from .loop import fit
from .mix import mix_run
from .preflight import load_suites, measures_of, refuse_without_texts
from .prepare import gather, make_accelerator, set_up

Which = Literal["origin", "base", "tuned", "unmixed"]
FINISHING = ".finishing"  # a file in the run folder while base and tuned model are evaluated
SUMMARISED = ("steps", "best_step", "base", "tuned", "missed", "weights", "untouched", "seconds", "succession")

Evaluations = dict[str, Evaluation]
"""dataset label -> its evaluation."""
KnownEvaluations = dict[str, Evaluation]
"""Evaluations of untouched models by all that they depend on, for several runs of one process."""


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A finished run. `base` and `tuned` are label -> measure -> value, for the recipe's in- and out-of-domain sets.

    missed: a sentence for each guarded set that lost more than its budget. weights: file in model/ -> sha256.
    untouched: why model/ holds the untouched model's weights; None where it holds tuned ones. seconds: from the start
    to the last evaluation; None of a run that was resumed.
    succession: where another run's model was trained, whether indexes of that model still fit (`lineage.succession`).
    """

    folder: Path
    steps: int
    best_step: int | None
    base: dict[str, dict[str, float]]
    tuned: dict[str, dict[str, float]]
    missed: list[str] = field(default_factory=list)
    weights: dict[str, str] = field(default_factory=dict)
    untouched: str | None = None
    seconds: float | None = None
    succession: dict[str, Any] | None = None
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
    known: KnownEvaluations | None = None,
    on_event: Listener | None = None,
) -> TrainedRun:
    """Trains by the recipe into the run folder `output`, evaluates base and tuned model, and returns both.

    resume: continues from the newest whole checkpoint, or starts where there is none; a finished run is only read.
    overwrite: replaces an earlier run, which is removed once the first step is done. known: the untouched model's
    evaluations of earlier runs, which are not measured again; this run adds its own.

    Raises InputError for anything wrong with recipe, data, model or folder (before training where it can be known), and
    Interrupted, with the state saved, on SIGINT and SIGTERM.
    """
    recipe, target = resolve(recipe), Path(output)
    use_folders(recipe.methods)
    accelerator = make_accelerator(recipe, target)
    with ExitStack() as held:

        def begin() -> dict[str, Any]:
            run_folder.check_output(target, overwrite=overwrite)
            if overwrite:
                refuse_within(recipe, target)
            held.enter_context(locked(target))
            return dataclasses.asdict(run_folder.claim(target, recipe, resume=resume, overwrite=overwrite))

        claim = run_folder.Claim(**distributed.from_first(begin))
        try:
            run_folder.refuse_unseen(target)
            if claim.summary is not None:
                missed = claim.summary["missed"] if accelerator.is_main_process else []
                return TrainedRun(folder=target, already_finished=True, **claim.summary | {"missed": missed})
            return _train(recipe, target, accelerator, resumed=claim.resumed, known=known, on_event=on_event)
        except InputError:
            if accelerator.is_main_process and not claim.resumed:
                run_folder.withdraw(target)
            raise


def _train(
    recipe: Recipe,
    folder: Path,
    accelerator: Accelerator,
    *,
    resumed: bool,
    known: KnownEvaluations | None,
    on_event: Listener | None,
) -> TrainedRun:
    began = time.monotonic()
    dataset = load_training(recipe.data)
    refuse_without_texts(recipe, dataset)
    suites = load_suites(recipe)
    refuse_guarded(recipe, dataset, suites, accelerator)
    if on_event is not None and accelerator.is_main_process:
        on_event({"event": "plan", "phases": work_of(recipe, dataset, suites)})
    stop = threading.Event()
    training, base_fingerprint = set_up(recipe, dataset, accelerator, folder, on_event, stop.is_set)
    refuse_unread(training.encoder, suites)
    facts = environment(training, suites, base_fingerprint)

    def keep() -> list[str]:
        return run_folder.keep_environment(folder, recipe, facts, resumed=resumed)

    run_folder.refuse_different(recipe, facts["fingerprints"])
    for difference in distributed.from_first(keep):
        training.log.tell("message", text=difference)
    if dataset.left_out and accelerator.is_main_process:
        listed = folder / run_folder.LEFT_OUT
        write_lines(listed, dataset.left_out)
        text = f"{len(dataset.left_out):,} items with a broken image are left out: {listed}"
        training.log.tell("message", text=text)
    restored = resume_state(training) if resumed else None
    training.log.start(restored.step if restored is not None else None)
    state = restored or State()
    accelerator.init_trackers("embedtune", config={"recipe": str(folder / "recipe.yaml")})
    distributed.meet()  # from here on, collectives: none waits in one for what another still loads
    training.log.tell("phase", name="train", kind="training", steps=training.plan.steps, at=state.step)
    with signals_set(stop):
        state = fit(training, state)
    gather(training)
    if accelerator.is_main_process:
        (folder / FINISHING).unlink(missing_ok=True)  # of a run that was killed there
    distributed.meet()
    if not accelerator.is_main_process:
        accelerator.end_training()  # the main process does the rest
        if accelerator.process_index == accelerator.local_process_index:  # on the main process's machine
            encode_for_finish(training, suites)
        return TrainedRun(folder=folder, steps=state.step, best_step=state.best_step, base={}, tuned={})
    run = finish(training, state, suites, {} if known is None else known, None if resumed else began)
    accelerator.end_training()
    return run


def refuse_unread(encoder: Encoder, suites: Sequence[Dataset]) -> None:
    """Raises InputError where a set to evaluate on has images that the model does not read."""
    for items in (items for suite in suites for items in (suite.queries, suite.corpus) if pictured(items)):
        encoder.refuse_unread(items)


def refuse_guarded(recipe: Recipe, dataset: Dataset, suites: list[Dataset], accelerator: Accelerator) -> None:
    """Raises InputError for a guard that cannot judge this training."""
    if recipe.evaluate.guard is None:
        return
    guarded = suites[len(recipe.evaluate.in_domain) :]
    refuse_overlap(dataset, guarded)
    if recipe.evaluate.guard.weights == "fisher" and accelerator.num_processes > 1:
        raise InputError("evaluate.guard.weights: fisher is computed by one process; train on one, or take linear")
    if recipe.stay_close.distill is not None:
        refuse_distilled(recipe.stay_close.distill.data, guarded)


def resume_state(training: Training) -> State | None:
    """Loads the newest whole checkpoint, the same one on every process; None where there is none.

    A damaged checkpoint is named, and the one before it is taken.
    """

    def newest() -> str | None:
        for path in checkpoint.latest(training.folder / "checkpoints"):
            try:
                checkpoint.verify(path)
            except checkpoint.Damaged as damage:
                text = f"checkpoint {path.name} is damaged ({damage}); using the one before it"
                training.log.tell("message", text=text)
            else:
                return path.name
        return None

    name = distributed.from_first(newest)
    if name is None:
        return None
    try:
        return checkpoint.load_training(training, training.folder / "checkpoints" / name)
    except checkpoint.Damaged as damage:
        raise InputError(f"{training.folder}: {damage}; every machine of a run must see its folder") from None


@contextmanager
def signals_set(stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set `stop`, so that the current step is finished and saved. A second signal acts as usual.

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


def finish(
    training: Training, state: State, suites: list[Dataset], known: KnownEvaluations, began: float | None
) -> TrainedRun:
    """Saves the chosen weights as model/ (and adapter/), evaluates base and tuned, writes model card and summary.

    began: the run's start by the monotonic clock, None where an earlier process began it.
    """
    folder, recipe, guard = training.folder, training.recipe, training.recipe.evaluate.guard
    if state.best_step is not None and state.best_step != state.step:
        best = checkpoint.path_of(folder, state.best_step)
        try:
            checkpoint.verify(best)
            checkpoint.load_training(training, best, weights_only=True)
        except checkpoint.Damaged as damage:
            raise InputError(f"{folder}: the best checkpoint is damaged ({damage}); start a new run") from None
    training.optimizer.state.clear()
    save_model(training)
    if guard is None or not guard.interpolate:
        training.release()  # what is evaluated is loaded from its folder
    watched: list[Watched] = []
    points: list[Point] = []
    if guard is not None:
        inside = len(recipe.evaluate.in_domain)
        watched = [watch(dataset, guard) for dataset in suites[inside:]]
        suites = [*suites[:inside], *(w.reporting for w in watched)]
        if guard.interpolate:
            training.log.tell("phase", name="mix base and tuned weights", kind="mixing")
            points = mix_run(training, guard, watched, training.validation)
    write_text(folder / FINISHING, "model/ is final\n")
    models: tuple[Which, ...] = ("base", "tuned", "unmixed") if points else ("base", "tuned")
    evaluations: dict[str, Evaluations] = {}
    for which in models:
        of_base = known if which == "base" else {}
        evaluations[which] = evaluate_suites(recipe, which, suites, folder, training.log, of_base)
    lineage = lineage_of(recipe.model)
    if lineage is not None:
        try:
            evaluate_suites(recipe, "origin", suites, folder, training.log, known)
        except InputError as error:  # it may have been removed since
            training.log.tell("message", text=f"{lineage.base.label} is not measured beside the new model: {error}")
    evaluate_by_words(recipe, suites, folder, training.log)
    missed = conclude(recipe, watched, points, evaluations, folder) if guard is not None else []
    run = TrainedRun(
        folder=folder,
        steps=state.step,
        best_step=state.best_step,
        base={label: evaluation.measures for label, evaluation in evaluations["base"].items()},
        tuned={label: evaluation.measures for label, evaluation in evaluations["tuned"].items()},
        missed=missed,
        weights=fingerprints_of_weights(folder / "model"),
        untouched=why_untouched(recipe.evaluate.measure, state, points),
        seconds=time.monotonic() - began if began is not None else None,
        succession=succession(folder, lineage.run, training.dataset.corpus) if lineage is not None else None,
    )
    summary = {name: getattr(run, name) for name in SUMMARISED}
    write_card(folder, summary)
    write_json(folder / SUMMARY, summary)
    (folder / FINISHING).unlink(missing_ok=True)
    return run


def why_untouched(measure: str, state: State, points: list[Point]) -> str | None:
    """Why a run ends with the untouched model's weights, in a clause; None where it ends with others."""
    if state.best_step == 0:
        return f"no step validated above the untouched model ({measure} {state.best_value:.4f} on held-out queries)"
    if points and choose(points).alpha == 0:
        return "the guard chose alpha 0: no mixture with the tuned weights kept the budget and validated above it"
    return None


def encode_for_finish(training: Training, suites: list[Dataset]) -> None:
    """Encodes the suites' documents beside `finish` in the main process: by the base model, then by the tuned one."""
    recipe, folder = training.recipe, training.folder
    training.release()
    both: tuple[Which, Which] = ("base", "tuned")

    def saved() -> bool:
        return (folder / FINISHING).exists() or (folder / SUMMARY).exists()

    for which in both if suites else ():
        if which == "tuned":
            distributed.wait_for_first(folder, saved, "save the model")
        encoder = suite_encoder(recipe, which, suites, folder, training.log)
        encode_for_evaluation(encoder, suites, measures_of(recipe), Retrieval())


def save_model(training: Training) -> None:
    """adapter/ (opens with peft) for LoRA, and model/: merged, self-contained, opens with SentenceTransformer.

    Raises InputError, without model/, where that is not the base with the adapter (see `models.merging`).
    """
    encoder, recipe, folder = training.encoder, training.recipe, training.folder
    lora, block, seed = recipe.model.lora, recipe.model, recipe.train.seed
    if lora is not None:
        with inner_folder(folder / "adapter") as temporary:
            adapters.save_adapter(encoder.model, temporary)
    if encoder.dtype != "float32" or (lora is not None and lora.moves_base):
        adapters.put_on_whole(encoder.model, folder / "adapter", lambda: load_model(block, encoder.device, seed=seed))
    expected = None
    if lora is not None:
        trains_documents = recipe.negatives.live is None
        documents: Items | Sequence[Item] = training.dataset.corpus if trains_documents else []
        probe = probe_of(encoder, training.dataset.queries, documents)
        expected = merge_proven(encoder.model, block.label, probe)
    model = encoder.model
    if recipe.negatives.live is not None:
        model = two_towers(model, load_model(block, encoder.device, seed=seed))
    with inner_folder(folder / "model") as temporary:
        saving.save_model(model, temporary)
        if expected is not None:
            hint = f"the adapter is whole: `embedtune export {folder / 'adapter'} --dtype float32 --output MODEL`"
            refuse_lost(encoder.model, str(folder / "model"), expected, None, hint)


def evaluate_suites(
    recipe: Recipe, which: Which, suites: list[Dataset], folder: Path, log: Log, known: KnownEvaluations
) -> Evaluations:
    """Evaluates one of the run's models on every set; results by label. They replace evaluation/ (tuned),
    evaluation-base/, evaluation-origin/ or evaluation-unmixed/. Of a run with `matryoshka` each also holds sizes.json.

    known: evaluations that are taken where they are of the same model, data and settings, and to which these are added.
    """
    output = folder / ("evaluation" if which == "tuned" else f"evaluation-{which}")
    shutil.rmtree(output, ignore_errors=True)
    if not suites:
        return {}
    encoder = suite_encoder(recipe, which, suites, folder, log)
    shorter = [StoredAs(dimensions=dimensions) for dimensions in recipe.matryoshka]
    options: dict[str, Any] = {"output": output, "on_progress": log.progress}
    options |= {"measures": measures_of(recipe), "retrieval": Retrieval(slices=tuple(recipe.evaluate.slices))}
    evaluations = {}
    for dataset in suites:
        settings = [repr(options["measures"]), repr(options["retrieval"]), repr(shorter)]
        key = fingerprint_of(encoder.fingerprint, dataset.fingerprint, dataset.label, *settings)
        if key in known:
            evaluation = known[key]
            write_evaluation(evaluation, output)
        else:
            log.tell("phase", name=f"evaluate the {which} model on {dataset.label}", kind="evaluation")
            if shorter:
                evaluation, _ = evaluate_sizes(encoder, dataset, shorter, **options)
            else:
                evaluation = evaluate(encoder, dataset, **options)
        known[key] = evaluations[dataset.label] = evaluation
    return evaluations


def evaluate_by_words(recipe: Recipe, suites: list[Dataset], folder: Path, log: Log) -> None:
    """Measures BM25 on every set of texts; the results replace evaluation-bm25/."""
    output = folder / BY_WORDS
    shutil.rmtree(output, ignore_errors=True)
    textual = list(filter(is_textual, suites)) if recipe.evaluate.bm25 else []
    if textual and not is_installed():
        log.tell("message", text=f"BM25 is not measured: it needs bm25s; try: {INSTALL}, or evaluate.bm25=false")
        return
    for dataset in textual:
        log.tell("phase", name=f"evaluate BM25 on {dataset.label}", kind="bm25")
        evaluate_bm25(dataset, measures=measures_of(recipe), output=output, on_progress=log.progress)


def suite_encoder(recipe: Recipe, which: Which, suites: Sequence[Dataset], folder: Path, log: Log) -> Encoder:
    """Loads one of the run's models, to evaluate the suites with, once the one before has left the device."""
    give_back(resolve_device())
    block, seed = dataclasses.replace(recipe.model, dtype="auto"), recipe.train.seed
    if which == "origin" and (lineage := lineage_of(recipe.model)) is not None:
        block, seed = dataclasses.replace(lineage.base, dtype="auto"), lineage.seed
    elif which != "base":
        name = str(folder / {"tuned": "model", "unmixed": UNMIXED}[which])
        block = dataclasses.replace(block, name=name, compose=None, pooling=None, new_weights=[])
    encoder = load_encoder(block, precision=recipe.evaluate.precision, seed=seed)
    if recipe.model.compose is not None and recipe.model.compose.towers == "frozen":
        # The towers' outputs are computed once for the base model and every model that is tuned from it.
        log.tell("phase", name=f"encode with the {which} model's towers")
        sets: list[tuple[Items, Role]] = []
        for dataset in suites:
            sets += [(Selection(dataset.queries, list(dataset.qrels)), "query"), (dataset.corpus, "document")]
        encoder.cached_towers = CachedTowers(encoder, sets, on_progress=log.progress)
    return encoder


def environment(training: Training, suites: list[Dataset], base_fingerprint: str) -> dict[str, Any]:
    """What the result depends on besides the recipe."""
    data = {f"data {dataset.label}": dataset.fingerprint for dataset in suites}
    lineage = lineage_of(training.recipe.model)
    return {
        "versions": {"python": platform.python_version(), **store.versions(training.encoder.dtype)},
        "threads": torch.get_num_threads(),
        "processes": training.accelerator.num_processes,
        "device": str(training.encoder.device),
        "precision": training.encoder.precision,
        "dtype": training.encoder.dtype,
        "tokens_at_once": training.encoder.tokens_at_once,
        **({"lineage": lineage.as_json()} if lineage is not None else {}),
        "fingerprints": {
            "training data": training.dataset.fingerprint,
            "base weights": base_fingerprint,
            **data,
            **method_fingerprints(training.recipe.chosen()),
        },
    }
