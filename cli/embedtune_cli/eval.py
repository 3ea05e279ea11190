"""`embedtune eval`: how well a model, or a run, retrieves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .output import progress, say, say_left_out, show_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedtune.evaluate.results import Evaluation

Data = Annotated[list[str] | None, typer.Option("--data", "-d", help="A dataset folder or DIR:split; repeatable.")]
Identical = Annotated[
    bool | None,
    typer.Option(
        "--ignore-identical-ids/--keep-identical-ids",
        help="Remove the document that has the query's own id; if not given, only in ArguAna and Quora.",
    ),
]


def evaluate(
    model: Annotated[str | None, typer.Argument(help="A model folder or hub id.", show_default=False)] = None,
    data: Data = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A folder for measures, values, runs.")] = None,
    measures: Annotated[
        str | None, typer.Option(help="As in 'nDCG@10 R@100': nDCG, R, RR, AP, P, Success, with a cut-off.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="A model to set beside it; kept in OUTPUT/baseline/.")] = None,
    run: Annotated[Path | None, typer.Option("--run", help="Measure this TREC run instead of a model.")] = None,
    truncate_dim: Annotated[int | None, typer.Option(min=1, help="Use only the first so many dimensions.")] = None,
    max_length: Annotated[int | None, typer.Option(min=1, help="Tokens; the model's own if not given.")] = None,
    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16"], typer.Option(help="What it computes in.")] = "fp32",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, mps.")] = "auto",
    ignore_identical_ids: Identical = None,
    judged_only: Annotated[
        bool, typer.Option("--judged-only", help="Rank only documents that the split judges, not the whole corpus.")
    ] = False,
    broken_images: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Leave items with a broken image out, up to this share.", metavar="SHARE"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results in OUTPUT.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure retrieval as BEIR does: every judged query against the whole corpus, by exact search.

    Example: embedtune eval runs/scifact/model --data data/scifact --data data/cranfield --output results/tuned

    Example: embedtune eval --run bm25.run --data data/scifact:test --measures "nDCG@10 R@100"
    """
    from embedtune.data.dataset import load_dataset, without_broken
    from embedtune.encode.locate import locate
    from embedtune.errors import InputError
    from embedtune.evaluate.measures import DEFAULT_MEASURES, parse
    from embedtune.evaluate.results import BASELINE, distinct, prepare, remove_others

    if not data:
        raise InputError("no dataset to measure on; name one with --data DIR or --data DIR:split")
    if (model is None) == (run is None):
        raise InputError("expected a model or --run FILE, and not both")
    names = parse(measures if measures is not None else DEFAULT_MEASURES)
    for name in (model, baseline):
        if name is not None:
            locate(name)
    datasets = distinct([load_dataset(name) for name in data])
    if broken_images is not None:
        datasets = [without_broken(dataset, broken_images) for dataset in datasets]
        say_left_out([sentence for dataset in datasets for sentence in dataset.left_out])
    if output is not None:
        prepare(output, overwrite)

    def measured(name: str, folder: Path | None) -> list[Evaluation]:
        from embedtune.encode.encoder import load_encoder
        from embedtune.evaluate.retrieval import evaluate
        from embedtune.recipe import Model

        encoder = load_encoder(Model(name=name, max_length=max_length), device=device, precision=precision)
        options: dict[str, Any] = {"measures": names, "truncate_dim": truncate_dim, "output": folder}
        options["judged_only"] = judged_only
        with progress(f"Encoding for {name}") as on_progress:
            options |= {"ignore_identical_ids": ignore_identical_ids, "on_progress": on_progress}
            return [evaluate(encoder, dataset, **options) for dataset in datasets]

    if run is not None:
        from embedtune.evaluate.retrieval import evaluate_run

        given = {"--baseline": baseline, "--truncate-dim": truncate_dim, "--max-length": max_length,
                 "--ignore-identical-ids": ignore_identical_ids, "--judged-only": judged_only or None}  # fmt: skip
        for option, value in given.items():
            if value is not None:
                raise InputError(f"{option} is about a model; it has no effect on --run")
        if len(datasets) > 1:
            raise InputError(f"--run {run}: a run is of one dataset; {len(datasets)} are given")
        evaluations = [evaluate_run(run, datasets[0], measures=names, output=output)]
    elif model is not None:
        evaluations = measured(model, output)
    baselines = measured(baseline, output / BASELINE if output else None) if baseline else []
    if output is not None:
        kept = [output / e.label for e in evaluations] + [output / BASELINE / e.label for e in baselines]
        remove_others(output, kept)
        say(f"written: {', '.join(str(folder) for folder in kept)}")
    columns, rows = _table(evaluations, baselines)
    show_table(columns, rows, as_json=as_json)


def _table(evaluations: Sequence[Evaluation], baselines: Sequence[Evaluation]) -> tuple[list[str], list[list[object]]]:
    """A row for each dataset; beside a baseline, a row for each dataset and measure with both and their difference."""
    if not baselines:
        columns = ["dataset", "queries", *evaluations[0].measures]
        return columns, [[e.label, e.queries, *e.measures.values()] for e in evaluations]
    rows: list[list[object]] = []
    for tuned, base in zip(evaluations, baselines, strict=True):
        for name, value in tuned.measures.items():
            before = base.measures[name]
            rows.append([tuned.label, tuned.queries, name, before, value, value - before])
    return ["dataset", "queries", "measure", "baseline", "model", "difference"], rows
