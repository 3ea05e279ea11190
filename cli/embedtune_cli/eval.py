"""`embedtune eval`: how well a model, or a run, retrieves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import (
    DATA_HELP,
    IMAGE_FOLDER_HELP,
    MEASURES_HELP,
    MODEL_HELP,
    OUTPUT_HELP,
    BrokenImages,
    Device,
    Json,
    MaxLength,
    ModelPrecision,
    Overwrite,
    TrustRemoteCode,
)
from .output import progress, say, say_left_out, show_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedtune.evaluate.results import Evaluation
    from embedtune.evaluate.suites import Mean
    from embedtune.models.encoder import Encoder

FEW = 12  # categories of a dataset that a table shows
Mteb = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME...", help="Run a task or benchmark of mteb with mteb's evaluator. Needs embedtune\\[mteb]."
    ),
]
Data = Annotated[list[str] | None, typer.Option("--data", "-d", metavar="DIR[:SPLIT]...", help=DATA_HELP)]
Identical = Annotated[
    bool | None,
    typer.Option(
        "--ignore-identical-ids/--keep-identical-ids",
        help="Whether to remove the document that has the query's own id.",
        show_default="remove in ArguAna and Quora only",
    ),
]


def evaluate(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)] = None,
    data: Data = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help=OUTPUT_HELP, show_default="only the table is printed"),
    ] = None,
    measures: Annotated[
        str | None,
        typer.Option("--measures", metavar="NAMES", help=MEASURES_HELP, show_default="nDCG@10 R@10 R@100 RR@10 AP@100"),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Also measure this model, show the difference, and keep its results."),
    ] = None,
    mteb: Mteb = None,
    run: Annotated[Path | None, typer.Option(metavar="FILE", help="Measure this TREC run instead of a model.")] = None,
    truncate_dim: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Use only the first N dimensions of the embeddings.")
    ] = None,
    max_length: MaxLength = None,
    precision: ModelPrecision = "fp32",
    device: Device = "auto",
    ignore_identical_ids: Identical = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The protocol of the --data folders: aro, mmeb, scienceqa, sugarcrepe or winoground.",
            show_default="recognised by the files",
        ),
    ] = None,
    image_folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help=IMAGE_FOLDER_HELP, show_default="the protocol's folder"),
    ] = None,
    broken_images: BrokenImages = None,
    trust_remote_code: TrustRemoteCode = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Measure retrieval as BEIR does: every judged query against the whole corpus, by exact search.

    --data also takes reversed:DIR (documents ask for their queries), judged:DIR (only judged documents are ranked)
    and folders laid out as MMEB, ARO, SugarCrepe, Winoground or ScienceQA. Those are measured by their protocols, in
    which each query has its own candidates. The results of --baseline stand in OUTPUT/baseline/.

    Example: embedtune eval runs/scifact/model --data data/scifact --data data/cranfield --output results/tuned

    Example: embedtune eval runs/emoji/model --data reversed:data/emoji --data benchmarks/MMEB-eval --output results

    Example: embedtune eval --run bm25.run --data data/scifact:test --measures "nDCG@10 R@100"

    Example: embedtune eval runs/scifact/model --mteb SciFact --mteb "MTEB(eng, v2)"

    Several processes share the encoding, except with --mteb: torchrun --nproc-per-node 2 -m embedtune_cli eval ...
    """
    from embedtune import distributed as processes
    from embedtune.data.dataset import without_broken
    from embedtune.errors import InputError
    from embedtune.evaluate.measures import DEFAULT_MEASURES
    from embedtune.evaluate.protocols import open_data
    from embedtune.evaluate.results import BASELINE, MEANS, prepare, remove_others
    from embedtune.models.locate import locate
    from embedtune.recipe.measures import parse

    if mteb:
        without_effect = {"--data": data, "--run": run, "--baseline": baseline, "--overwrite": overwrite or None,
                          "--ignore-identical-ids": ignore_identical_ids, "--protocol": protocol,
                          "--image-folder": image_folder, "--broken-images": broken_images}  # fmt: skip
        for option, given_value in without_effect.items():
            if given_value is not None:
                raise InputError(f"{option} has no effect with --mteb, whose tasks bring their own data and rules")
        if processes.leads():  # mteb encodes by itself
            block = {"max_length": max_length, "trust_remote_code": trust_remote_code}
            _evaluate_mteb(model, mteb, output, measures, truncate_dim, block, precision, device, as_json)
        return
    if overwrite and output is None:
        raise InputError("--overwrite has no effect without --output")
    if not data:
        raise InputError("no dataset to measure on; name one with --data DIR or --data DIR:split")
    if (model is None) == (run is None):
        raise InputError("expected a model or --run FILE, and not both")
    names = parse(measures if measures is not None else DEFAULT_MEASURES)
    for name in (model, baseline):
        if name is not None:
            locate(name)
    datasets, suites = open_data(data, protocol, image_folder)
    of_datasets = {"--measures": measures, "--ignore-identical-ids": ignore_identical_ids,
                   "--broken-images": broken_images}  # fmt: skip
    for option in (option for option, value in of_datasets.items() if value is not None and not datasets):
        raise InputError(f"{option} has no effect: the protocol {suites[0].protocol} says what is measured")
    if broken_images is not None:
        datasets = [without_broken(dataset, broken_images) for dataset in datasets]
        if processes.leads():
            say_left_out([sentence for dataset in datasets for sentence in dataset.left_out])
    if output is not None and processes.leads():
        labels = [dataset.label for dataset in datasets]
        prepare(output, overwrite, [*labels, *(f"{BASELINE}/{label}" for label in labels if baseline)])

    def loaded(name: str) -> Encoder:
        from embedtune.models.encoder import load_encoder
        from embedtune.recipe import Model

        block = Model(name=name, max_length=max_length, trust_remote_code=trust_remote_code)
        return load_encoder(block, device=device, precision=precision)

    def measured(name: str, folder: Path | None) -> tuple[list[Evaluation], list[Mean]]:
        from embedtune.evaluate.retrieval import Retrieval, evaluate
        from embedtune.evaluate.suites import evaluate_suite, means_of

        encoder = loaded(name)
        with progress(f"Encoding for {name}") as on_progress:
            options: dict[str, Any] = {"output": folder, "on_progress": on_progress}
            retrieval = Retrieval(truncate_dim=truncate_dim, ignore_identical_ids=ignore_identical_ids)
            found = [evaluate(encoder, d, measures=names, retrieval=retrieval, **options) for d in datasets]
            of_suites = [evaluate_suite(encoder, suite, truncate_dim=truncate_dim, **options) for suite in suites]
        means = [m for suite, of_suite in zip(suites, of_suites, strict=True) for m in means_of(suite, of_suite)]
        return [*found, *(evaluation for of_suite in of_suites for evaluation in of_suite)], means

    if not processes.leads():
        from embedtune.evaluate.retrieval import encode_for_evaluation

        for encoder in (loaded(name) for name in (model, baseline) if name is not None):
            encode_for_evaluation(encoder, datasets)
            encode_for_evaluation(encoder, [dataset for suite in suites for dataset in suite.corpora])
        return
    means: list[Mean] = []
    if run is not None:
        from embedtune.evaluate.retrieval import evaluate_run

        given = {"--baseline": baseline, "--truncate-dim": truncate_dim, "--max-length": max_length,
                 "--ignore-identical-ids": ignore_identical_ids}  # fmt: skip
        for option, value in given.items():
            if value is not None:
                raise InputError(f"{option} is about a model; it has no effect on --run")
        if len(datasets) != 1 or suites:
            said = f"{len(data)} are given" if not suites else f"the protocol {suites[0].protocol} needs a model"
            raise InputError(f"--run {run}: a run is of one dataset; {said}")
        evaluations = [evaluate_run(run, datasets[0], measures=names, output=output)]
    elif model is not None:
        evaluations, means = measured(model, output)
    baselines, base_means = measured(baseline, output / BASELINE if output else None) if baseline else ([], [])
    if output is not None:
        kept = [output / e.label for e in evaluations] + [output / BASELINE / e.label for e in baselines]
        of_suites = [f"{suite.protocol}{MEANS}" for suite in suites if suite.means]
        remove_others(output, kept + [folder / name for folder in (output, output / BASELINE) for name in of_suites])
        say(f"written: {', '.join(str(folder) for folder in kept)}")
    for note in (note for suite in suites for note in suite.notes):
        say(note)
    columns, rows = _table(_lines(evaluations, means), _lines(baselines, base_means))
    show_table(columns, rows, as_json=as_json)


Line = tuple[str, int | str, dict[str, float]]
"""What is measured, over how many queries or sets, and its values."""


def _lines(evaluations: Sequence[Evaluation], means: Sequence[Mean]) -> list[Line]:
    """A line for each dataset, each of its categories where they are few, and each mean."""
    lines: list[Line] = []
    for e in evaluations:
        lines.append((e.label, e.queries, e.measures))
        if len(e.groups) <= FEW:
            lines += [
                (f"{e.label} {group}", int(values["queries"]), {name: values[name] for name in e.measures})
                for group, values in e.groups.items()
            ]
    return lines + [(mean.title, f"{mean.parts} of {mean.of} sets", mean.measures) for mean in means]


def _table(lines: Sequence[Line], baselines: Sequence[Line]) -> tuple[list[str], list[list[object]]]:
    """A row for each line; beside a baseline, a row for each line and measure with both and their difference."""
    if not baselines:
        names = list(dict.fromkeys(name for _, _, values in lines for name in values))
        return ["dataset", "queries", *names], [[label, n, *map(values.get, names)] for label, n, values in lines]
    rows: list[list[object]] = []
    for (label, count, tuned), (_, _, base) in zip(lines, baselines, strict=True):
        rows += [[label, count, name, base[name], value, value - base[name]] for name, value in tuned.items()]
    return ["dataset", "queries", "measure", "baseline", "model", "difference"], rows


def _evaluate_mteb(
    model: str | None,
    names: list[str],
    output: Path | None,
    measures: str | None,
    truncate_dim: int | None,
    block: dict[str, Any],
    precision: str,
    device: str,
    as_json: bool,
) -> None:
    from embedtune.errors import InputError
    from embedtune.evaluate.measures import DEFAULT_MEASURES
    from embedtune.evaluate.mteb_tasks import evaluate_tasks, home_of, tasks_of
    from embedtune.files import check_container
    from embedtune.models.locate import locate
    from embedtune.recipe.measures import parse

    if model is None:
        raise InputError("--mteb needs a model to measure")
    if precision != "fp32":
        raise InputError(f"--precision {precision} has no effect with --mteb, which encodes by itself, in fp32")
    locate(model)
    folder = output or home_of(model)
    check_container(folder)
    measured = parse(measures if measures is not None else DEFAULT_MEASURES)
    tasks = [task for name in names for task in tasks_of(name)]

    from embedtune.models.encoder import load_encoder
    from embedtune.recipe import Model

    encoder = load_encoder(Model(name=model, **block), device=device)
    if truncate_dim is not None:
        encoder.model.truncate_dim = truncate_dim
    rows: list[list[object]] = []
    with progress("mteb") as show:
        for score in evaluate_tasks(encoder, tasks, folder, measures=measured, on_task=show):
            rows.append([score.task, score.split, score.subset, score.measure, score.value])
    show_table(["task", "split", "subset", "measure", "value"], rows, as_json=as_json)
    say(f"written: {folder}/ (mteb's own layout in {folder}/results/)")
