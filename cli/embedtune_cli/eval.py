"""`embedtune eval`: how well a model, or a run, retrieves."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .options import (
    DATA_HELP,
    IMAGE_FOLDER_HELP,
    MEASURES_HELP,
    MODEL_HELP,
    QUANTIZE_HELP,
    option,
    output_option,
    switch,
)
from .output import progress, say, show_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from embedtune.evaluate.requests import Measurement, OnData, OnMteb
    from embedtune.evaluate.sizes import Sizes

FEW = 12  # categories of a dataset that a table shows
Mteb = Annotated[
    list[str] | None,
    option("NAME...", "Run a task or benchmark of mteb with mteb's evaluator. Needs embedtune\\[mteb]."),
]
Data = Annotated[list[str] | None, option("DIR[:SPLIT]...", DATA_HELP, "--data", "-d")]
IgnoreIdentical = Annotated[
    bool,
    switch(
        "--ignore-identical-ids",
        "Never rank the document that has the query's own id. Done without this flag where it is the query's text.",
    ),
]
KeepIdentical = Annotated[bool, switch("--keep-identical-ids", "Rank it, even where it is the query's text.")]


def evaluate(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)] = None,
    data: Data = None,
    output: Annotated[Path | None, output_option("DIR", "only the table is printed")] = None,
    measures: Annotated[
        str | None, option("NAMES", MEASURES_HELP, "--measures", default="nDCG@10 R@10 R@100 RR@10 AP@100")
    ] = None,
    baseline: Annotated[
        str | None, option("MODEL", "Also measure this model, show the difference, and keep its results.")
    ] = None,
    mteb: Mteb = None,
    run: Annotated[Path | None, option("FILE", "Measure this run (TREC, MS MARCO or JSON) instead of a model.")] = None,
    third_column: options.ThirdColumn = None,
    slices: Annotated[
        str | None,
        option("NAMES", "Also measure by these columns of queries.jsonl, such as language, or by length (in words)."),
    ] = None,
    truncate_dim: options.TruncateDim = None,
    quantize: Annotated[str, option("FORMAT[,FORMAT...]", QUANTIZE_HELP)] = "none",
    sizes: Annotated[
        str | None,
        option(
            "N,N,...",
            "Measure the vectors at these numbers of dimensions, each at each FORMAT of --quantize.",
            "--sizes",
            default="the model's own",
        ),
    ] = None,
    rescore: options.Rescore = None,
    calibrate: options.Calibrate = None,
    max_length: options.MaxLength = None,
    chunk_tokens: options.ChunkTokens = None,
    passages: options.Passages = None,
    stride: options.Stride = None,
    precision: options.ModelPrecision = "fp32",
    device: options.Device = "auto",
    ignore_identical_ids: IgnoreIdentical = False,
    keep_identical_ids: KeepIdentical = False,
    protocol: Annotated[
        str | None,
        option(
            "NAME",
            "The protocol of the --data folders: aro, mmeb, scienceqa, sugarcrepe or winoground.",
            default="recognised by the files",
        ),
    ] = None,
    image_folder: Annotated[Path | None, option("DIR", IMAGE_FOLDER_HELP, default="the protocol's folder")] = None,
    broken_images: options.BrokenImages = None,
    trust_remote_code: options.TrustRemoteCode = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Measure retrieval as BEIR does: every judged query against the whole corpus, by exact search.

    --data also takes reversed:DIR (documents ask for their queries), judged:DIR (only judged documents are ranked)
    and folders laid out as MMEB, ARO, SugarCrepe, Winoground or ScienceQA. Those are measured by their protocols, in
    which each query has its own candidates. The results of --baseline stand in OUTPUT/baseline/.

    --sizes, or several formats of --quantize, give one row for each way to store the documents' vectors: its bytes, and
    its first measure beside that of the whole vectors, with the interval of the difference and its p-value (Holm over
    the rows). OUTPUT/DATASET/ then also holds sizes.json and, with matplotlib, the plot sizes.svg.

    Example: embedtune eval runs/scifact/model --data data/scifact --data data/cranfield --output results/tuned

    Example: embedtune eval runs/scifact/model --data data/scifact --sizes 384,128,64 --quantize none,int8,binary

    Example: embedtune eval runs/emoji/model --data reversed:data/emoji --data benchmarks/MMEB-eval --output results

    Example: embedtune eval --run bm25.run --data data/scifact:test --measures "nDCG@10 R@100"

    Example: embedtune eval runs/scifact/model --mteb SciFact --mteb "MTEB(eng, v2)"

    Several processes share the encoding, except with --mteb: torchrun --nproc-per-node 2 -m embedtune_cli eval ...
    """
    from embedtune import distributed
    from embedtune.errors import InputError
    from embedtune.evaluate.requests import OfRun, OnMteb, measure_on_data, measure_run, request_of

    options = {name: value for name, value in context.params.items() if _is_set(context, name) and name != "as_json"}
    if options.pop("keep_identical_ids", False):
        if "ignore_identical_ids" in options:
            raise InputError("--keep-identical-ids and --ignore-identical-ids exclude each other; give one of them")
        options["ignore_identical_ids"] = False
        if mteb:  # `request_of` knows the two flags as one
            raise InputError("--keep-identical-ids has no effect with --mteb")
    request = request_of(options)
    if isinstance(request, OnMteb):
        if distributed.leads():  # mteb shares no work between processes
            _on_mteb(request, as_json)
        return
    with progress("Encoding") as on_progress:
        if isinstance(request, OfRun):
            measurement = measure_run(request)
        else:
            measurement = measure_on_data(request, on_progress, _plot(request))
    if measurement is None:
        return
    if measurement.written:
        say(f"written: {', '.join(map(str, measurement.written))}")
    for note in measurement.notes:
        say(note)
    if measurement.sizes:
        show_table(*_table_of_sizes(measurement.sizes), as_json=as_json)
        return
    beside = _lines(measurement.baseline) if measurement.baseline is not None else None
    columns, rows = _table(_lines(measurement), beside)
    show_table(columns, rows, as_json=as_json)


def _plot(request: OnData) -> Callable[[Mapping[str, Sizes]], str] | None:
    """What draws the sizes, None without matplotlib, which is an extra."""
    if importlib.util.find_spec("matplotlib") is None:
        if request.output is not None and request.sizes is not None:
            say("no plot is drawn: pip install 'embedtune[plots]'")
        return None

    def draw(sizes: Mapping[str, Sizes]) -> str:
        from embedtune.report.drawings import quality_by_bytes  # imports what few evaluations need
        from embedtune.report.figures import as_file

        return as_file(quality_by_bytes("Quality against bytes", sizes))

    return draw


def _table_of_sizes(measured: Mapping[str, Sizes]) -> tuple[list[str], list[list[object]]]:
    """A row for each dataset and way to store vectors."""
    rows: list[list[object]] = []
    for label, sizes in measured.items():
        for cell in sizes.cells:
            stored = cell.quantize if cell.rescore is None else f"{cell.quantize}, rescored by {cell.rescore}"
            rows.append([label, cell.dimensions, stored, cell.bytes + cell.rescore_bytes, cell.measures[sizes.measure],
                         cell.difference, cell.low, cell.high, cell.holm])  # fmt: skip
    measure = next(iter(measured.values())).measure
    return ["dataset", "dimensions", "stored", "bytes", measure, "difference", "low", "high", "p (Holm)"], rows


def _is_set(context: typer.Context, name: str) -> bool:
    """Whether the user set a parameter, and did not leave its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP")


def _on_mteb(request: OnMteb, as_json: bool) -> None:
    from embedtune.evaluate.requests import measure_on_mteb, output_of

    with progress("mteb") as on_task:
        rows = [[s.task, s.split, s.subset, s.measure, s.value] for s in measure_on_mteb(request, on_task)]
    show_table(["task", "split", "subset", "measure", "value"], rows, as_json=as_json)
    folder = output_of(request)
    say(f"written: {folder}/ (mteb's own layout in {folder}/results/)")


Line = tuple[str, int | str, dict[str, float]]  # label, number of queries or sets, measure -> value


def _lines(measurement: Measurement) -> list[Line]:
    """A line for each dataset, for each of its categories if they are few, and for each mean."""
    lines: list[Line] = []
    for evaluation in measurement.evaluations:
        lines.append((evaluation.label, evaluation.queries, evaluation.measures))
        if evaluation.slices or len(evaluation.groups) <= FEW:
            for group, values in evaluation.groups.items():
                means = {name: values[name] for name in evaluation.measures}
                lines.append((f"{evaluation.label} {group}", int(values["queries"]), means))
    return lines + [(mean.title, f"{mean.parts} of {mean.of} sets", mean.measures) for mean in measurement.means]


def _table(lines: Sequence[Line], baseline: Sequence[Line] | None) -> tuple[list[str], list[list[object]]]:
    """A row for each line; beside a baseline, a row for each line and measure with both values and their difference."""
    if baseline is None:
        names = list(dict.fromkeys(name for _, _, values in lines for name in values))
        return ["dataset", "queries", *names], [[label, n, *map(values.get, names)] for label, n, values in lines]
    rows: list[list[object]] = []
    for (label, count, values), (_, _, before) in zip(lines, baseline, strict=True):
        rows += [[label, count, name, before[name], value, value - before[name]] for name, value in values.items()]
    return ["dataset", "queries", "measure", "baseline", "model", "difference"], rows
