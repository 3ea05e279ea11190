"""The three kinds of work of `embedtune eval`: models on data, a run on a dataset, a model on mteb's tasks.

Each kind is a dataclass whose fields are the options that it has; `request_of` refuses every other option.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from .. import distributed
from ..data.dataset import without_broken
from ..data.runs import RunFile, ThirdColumn
from ..errors import InputError
from ..files import check_container
from ..models.folders import locate
from ..recipe import Model, Precision, passages_of_flags
from ..recipe.measures import parse
from ..search.storage import Rescore, dimensions_of
from ..types import Dataset
from .measures import DEFAULT_MEASURES
from .mteb_tasks import TaskScore, evaluate_tasks, home_of, tasks_of
from .protocols import open_data
from .results import BASELINE, MEANS, Evaluation, prepare, remove_others
from .retrieval import Retrieval, encode_for_evaluation, evaluate, evaluate_run
from .sizes import Sizes, evaluate_sizes, parse_quantize, stored_ways
from .slices import refuse_unknown_slices
from .suites import Mean, Suite, evaluate_suite, means_of

if TYPE_CHECKING:
    from ..models.encoder import Encoder


@dataclass(frozen=True, kw_only=True)
class OnData:
    """A model, and beside it a baseline, on datasets and on folders of protocols."""

    WITH: ClassVar[str] = "here"
    model: str
    data: Sequence[str]
    baseline: str | None = None
    output: Path | None = None
    overwrite: bool = False
    measures: str | None = None
    ignore_identical_ids: bool | None = None
    broken_images: float | None = None
    slices: str | None = None
    protocol: str | None = None
    image_folder: Path | None = None
    truncate_dim: int | None = None
    sizes: str | None = None
    quantize: str = "none"
    rescore: Rescore | None = None
    calibrate: str | None = None
    max_length: int | None = None
    chunk_tokens: int | None = None
    passages: int | None = None
    stride: int | None = None
    precision: Precision = "fp32"
    device: str = "auto"
    trust_remote_code: bool = False


@dataclass(frozen=True, kw_only=True)
class OfRun:
    """A run of another system on one dataset."""

    WITH: ClassVar[str] = "with --run, which needs no model"
    run: Path
    data: Sequence[str]
    output: Path | None = None
    overwrite: bool = False
    measures: str | None = None
    ignore_identical_ids: bool | None = None
    third_column: ThirdColumn | None = None
    broken_images: float | None = None


@dataclass(frozen=True, kw_only=True)
class OnMteb:
    """A model on tasks or benchmarks of mteb, by mteb's own evaluator, which encodes by itself and in fp32."""

    WITH: ClassVar[str] = "with --mteb, whose tasks bring their own data and rules"
    model: str
    mteb: Sequence[str]
    output: Path | None = None
    measures: str | None = None
    truncate_dim: int | None = None
    max_length: int | None = None
    device: str = "auto"
    trust_remote_code: bool = False


Request = OnData | OfRun | OnMteb


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The evaluations of one model or run, the means that protocols report over them, and those of the baseline.

    sizes: label -> the ways to store vectors that were measured, where several were asked for. notes: sentences for the
    reader. written: the result folders.
    """

    evaluations: list[Evaluation]
    means: list[Mean] = field(default_factory=list)
    baseline: Measurement | None = None
    sizes: dict[str, Sizes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)


def request_of(options: Mapping[str, Any]) -> Request:
    """The request that the options make: by name, those that a user gave.

    Raises InputError for an option without effect and for one that is missing.
    """
    kind: type[Request] = OnMteb if "mteb" in options else OfRun if "run" in options else OnData
    if kind is not OnMteb and ("model" in options) == ("run" in options) and "data" in options:
        raise InputError("expected a model or --run FILE, and not both")
    known = {of_kind.name: of_kind for of_kind in fields(kind)}
    for name in options:
        if name not in known:
            raise InputError(f"--{name.replace('_', '-')} has no effect {kind.WITH}")
    for name, of_kind in known.items():
        if of_kind.default is MISSING and name not in options:
            absent = "no model to measure" if name == "model" else "no dataset to measure on"
            raise InputError(f"{absent}; name one{'' if name == 'model' else ' with --data DIR or --data DIR:split'}")
    if options.get("overwrite") and "output" not in options:
        raise InputError("--overwrite has no effect without --output")
    return kind(**options)


def measure_on_data(
    request: OnData,
    on_progress: Callable[..., None] | None = None,
    draw: Callable[[Mapping[str, Sizes]], str] | None = None,
) -> Measurement | None:
    """Measures the model and the baseline on all data, and writes the results if the request has an output.

    on_progress: called with (done, total, description). draw: makes the plot of label -> sizes. Returns None in the
    processes of a launch that only help to encode. Raises InputError as `evaluate` and `open_data` do, and for an
    output that may not be written.
    """
    _measures(request)  # a misspelt one is refused before anything is read
    passages_of_flags(request.passages, request.stride)
    models = [name for name in (request.model, request.baseline) if name is not None]
    for name in models:
        locate(name)
    datasets, suites = open_data(request.data, request.protocol, request.image_folder)
    _refuse_without_datasets(request, datasets, suites)
    _refuse_with_sizes(request, suites)
    refuse_unknown_slices(_slices(request), datasets)
    datasets, notes = _without_broken(datasets, request.broken_images)
    if not distributed.leads():
        for name in models:
            encoder = _encoder(request, name)
            encode_for_evaluation(encoder, datasets, _measures(request), _as_stored(request))
            encode_for_evaluation(encoder, [corpus for suite in suites for corpus in suite.corpora])
        return None
    output, baseline = request.output, None
    if output is not None:
        labels = [dataset.label for dataset in datasets] + [label for suite in suites for label in suite.labels]
        of_baseline = [f"{BASELINE}/{label}" for label in labels if request.baseline is not None]
        prepare(output, request.overwrite, [*labels, *of_baseline])
    if measures_sizes(request):
        sized = _measured_sizes(request, output, datasets, on_progress, draw)
        return _finished(output, replace(sized, notes=notes), suites)
    measurement = _measured(request, request.model, output, (datasets, suites), on_progress)
    if request.baseline is not None:
        folder = output / BASELINE if output is not None else None
        baseline = _measured(request, request.baseline, folder, (datasets, suites), on_progress)
    notes += [note for suite in suites for note in suite.notes]
    notes += _notes_on_own(measurement.evaluations, request.ignore_identical_ids)
    return _finished(output, replace(measurement, baseline=baseline, notes=notes), suites)


def _measured(
    request: OnData,
    name: str,
    output: Path | None,
    data: tuple[Sequence[Dataset], Sequence[Suite]],
    on_progress: Callable[..., None] | None,
) -> Measurement:
    """The measurement of one of the request's models on datasets and suites."""
    encoder, (datasets, suites) = _encoder(request, name), data
    retrieval = _as_stored(request)
    options = _options(name, output, on_progress)
    evaluations = [
        evaluate(encoder, dataset, measures=_measures(request), retrieval=retrieval, **options) for dataset in datasets
    ]
    for suite in suites:
        evaluations += evaluate_suite(encoder, suite, truncate_dim=request.truncate_dim, **options)
    means = [mean for suite in suites for mean in means_of(suite, evaluations)]
    return Measurement(evaluations=evaluations, means=means)


def _as_stored(request: OnData) -> Retrieval:
    """How the request searches; where it measures several sizes, how it searches the whole vectors."""
    if measures_sizes(request):
        return replace(_retrieval(request), calibrate=None)
    (quantize,) = parse_quantize(request.quantize)
    return replace(_retrieval(request), truncate_dim=request.truncate_dim, quantize=quantize, rescore=request.rescore)


def _retrieval(request: OnData) -> Retrieval:
    """How the request searches, apart from the vectors' size and precision."""
    calibrate = None
    if request.calibrate is not None:
        from ..search.build import read_source  # imports FAISS

        calibrate = read_source(request.calibrate).documents
    ignored, slices = request.ignore_identical_ids, tuple(_slices(request))
    return Retrieval(ignore_identical_ids=ignored, calibrate=calibrate, slices=slices)


def _options(name: str, output: Path | None, on_progress: Callable[..., None] | None) -> dict[str, Any]:
    options: dict[str, Any] = {"output": output}
    if on_progress is not None:
        options["on_progress"] = partial(on_progress, description=f"Encoding for {name}")
    return options


def measures_sizes(request: OnData) -> bool:
    """Whether the request names several ways to store vectors."""
    return request.sizes is not None or len(parse_quantize(request.quantize)) > 1


def _measured_sizes(
    request: OnData,
    output: Path | None,
    datasets: Sequence[Dataset],
    on_progress: Callable[..., None] | None,
    draw: Callable[[Mapping[str, Sizes]], str] | None,
) -> Measurement:
    """The measurement of the model's whole vectors, and of every way to store them."""
    encoder, retrieval = _encoder(request, request.model), _retrieval(request)
    options = _options(request.model, output, on_progress) | {"measures": _measures(request), "retrieval": retrieval}
    wanted = stored_ways(request.sizes, request.quantize, request.rescore, encoder.dimension)
    measured = [evaluate_sizes(encoder, dataset, wanted, draw=draw, **options) for dataset in datasets]
    return Measurement(
        evaluations=[evaluation for evaluation, _ in measured],
        sizes={evaluation.label: sizes for evaluation, sizes in measured},
    )


def _refuse_with_sizes(request: OnData, suites: Sequence[Suite]) -> None:
    """Raises InputError for options that do not go with the vectors' sizes and precisions."""
    several, stored = measures_sizes(request), request.quantize != "none" or request.calibrate is not None
    wrong = {
        "--sizes and --truncate-dim both name sizes; leave out --truncate-dim": request.sizes is not None
        and request.truncate_dim is not None,
        "several values of --quantize go with --sizes, not with --truncate-dim": several
        and request.truncate_dim is not None,
        "--sizes and several values of --quantize compare a model with its own whole vectors; leave out --baseline, "
        "and measure the other model by itself": several and request.baseline is not None,
        "--sizes and --quantize are of corpora; --data names a protocol, whose candidates are scored as float32": bool(
            suites
        )
        and (several or stored),
        "--calibrate has no effect: int8 alone has ranges; add --quantize int8 or --rescore int8": request.calibrate
        is not None
        and "int8" not in [*parse_quantize(request.quantize), request.rescore],
    }
    for message, applies in wrong.items():
        if applies:
            raise InputError(message)


def measure_run(request: OfRun) -> Measurement | None:
    """Measures the run; returns None in all processes of a launch but the first.

    Raises InputError as `evaluate_run` does, and for other data than one dataset.
    """
    if not distributed.leads():
        return None
    names = _measures(request)
    datasets, suites = open_data(request.data)
    if len(datasets) != 1 or suites:
        named = f"{len(request.data)} are named" if not suites else f"the protocol {suites[0].protocol} needs a model"
        raise InputError(f"--run {request.run}: a run is of one dataset; {named}")
    datasets, notes = _without_broken(datasets, request.broken_images)
    if request.output is not None:
        prepare(request.output, request.overwrite, [datasets[0].label])
    ignored = request.ignore_identical_ids
    evaluation = evaluate_run(
        RunFile(request.run, request.third_column),
        datasets[0],
        measures=names,
        ignore_identical_ids=ignored,
        output=request.output,
    )
    notes += _notes_on_own([evaluation], ignored)
    return _finished(request.output, Measurement(evaluations=[evaluation], notes=notes), [])


def _notes_on_own(evaluations: Sequence[Evaluation], asked: bool | None) -> list[str]:
    """A sentence for each dataset whose own documents are left out without having been asked to be."""
    return [
        f"{evaluation.label}: the queries are documents of the same ids, which are not ranked for themselves; "
        "--keep-identical-ids ranks them"
        for evaluation in evaluations
        if asked is None and evaluation.protocol.get("ignore_identical_ids")
    ]


def measure_on_mteb(request: OnMteb, on_task: Callable[[int, int, str], None] | None = None) -> Iterator[TaskScore]:
    """Runs mteb's evaluator on the tasks, yielding each one's main scores; writes to `output_of(request)`.

    Raises InputError as `tasks_of` and `evaluate_tasks` do, and for more dimensions than the model has.
    """
    locate(request.model)
    folder, names = output_of(request), _measures(request)
    check_container(folder)
    tasks = [task for name in request.mteb for task in tasks_of(name)]
    encoder = _encoder(request, request.model)
    if request.truncate_dim is not None:
        encoder.model.truncate_dim = dimensions_of(encoder.name, encoder.dimension, request.truncate_dim)
    yield from evaluate_tasks(encoder, tasks, folder, measures=names, on_task=on_task)


def output_of(request: OnMteb) -> Path:
    """The folder of mteb's results: the output, or `mteb/` in the model's run folder."""
    return request.output or home_of(request.model)


def _measures(request: Request) -> list[str]:
    return parse(request.measures if request.measures is not None else DEFAULT_MEASURES)


def _slices(request: OnData) -> list[str]:
    return (request.slices or "").replace(",", " ").split()


def _encoder(request: OnData | OnMteb, name: str) -> Encoder:
    from ..models.encoder import load_encoder

    model = Model(name=name, max_length=request.max_length, trust_remote_code=request.trust_remote_code)
    if not isinstance(request, OnData):
        return load_encoder(model, device=request.device)
    passages = passages_of_flags(request.passages, request.stride)
    model = replace(model, passages=passages, chunk_tokens=request.chunk_tokens)
    return load_encoder(model, device=request.device, precision=request.precision)


def _refuse_without_datasets(request: OnData, datasets: Sequence[Dataset], suites: Sequence[Suite]) -> None:
    """Raises InputError for an option about datasets if all data is of protocols."""
    for name in ("measures", "ignore_identical_ids", "broken_images", "slices", "passages"):
        if getattr(request, name) is not None and not datasets:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option} has no effect: the protocol {suites[0].protocol} determines what is measured")


def _without_broken(datasets: Sequence[Dataset], share: float | None) -> tuple[list[Dataset], list[str]]:
    """The datasets without items whose image is broken, if a share of them may be, and a note for each left out."""
    if share is None:
        return list(datasets), []
    kept = [without_broken(dataset, share) for dataset in datasets]
    return kept, [f"left out: {sentence}" for dataset in kept for sentence in dataset.left_out]


def _finished(output: Path | None, measurement: Measurement, suites: Sequence[Suite]) -> Measurement:
    """The measurement with the folders that were written; results of an earlier request are removed from the output."""
    if output is None:
        return measurement
    written = [output / evaluation.label for evaluation in measurement.evaluations]
    if measurement.baseline is not None:
        written += [output / BASELINE / evaluation.label for evaluation in measurement.baseline.evaluations]
    means = [f"{suite.protocol}{MEANS}" for suite in suites if suite.means]
    remove_others(output, [*written, *(folder / name for folder in (output, output / BASELINE) for name in means)])
    return replace(measurement, written=written)
