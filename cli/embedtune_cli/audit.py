"""`embedtune audit`: why candidates were kept or dropped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import say, say_missing_images, show_json, show_table

if TYPE_CHECKING:
    from embedtune.negatives.audit import Audit
    from embedtune.negatives.evidence import Evidence
    from embedtune.types import Dataset

WIDTH = 40  # of the longest bar


def audit(
    negatives: Annotated[Path, typer.Argument(help="A run that `embedtune mine` or a training run wrote.")],
    data: Annotated[str | None, typer.Option("--data", "-d", help="The dataset; by default the one mined.")] = None,
    suspects: Annotated[int, typer.Option(min=0, help="How many suspects to show.")] = 10,
    queries: Annotated[bool, typer.Option("--queries", help="Show every query's counts.")] = False,
    threshold: Annotated[
        str | None, typer.Option(metavar="FILTER=NUMBER", help="Try another cut; nothing is encoded or written.")
    ] = None,
    relabel: Annotated[
        Path | None, typer.Option(metavar="OUT.tsv", help="New judgements, in which suspects are positives.")
    ] = None,
    above: Annotated[
        float | None, typer.Option(help="For --relabel: how far above the lowest positive's score a suspect lies.")
    ] = None,
    judge: Annotated[
        Path | None, typer.Option(metavar="RUN", help="For --relabel: who decides, a run of `embedtune judge`.")
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(help="A picture (.png, .jpg, .webp) to draw the suspects in, beside query and positive."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace SHEET.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show which filter dropped what, the likeliest false negatives, and how scores lie to the positives'.

    Example: embedtune audit runs/scifact-mined/negatives/mined.run

    Example: embedtune audit mined.run --threshold positive_ratio=0.9

    Example: embedtune audit runs/emoji/negatives/mined.run --suspects 20 --sheet suspects.png

    Example: embedtune audit mined.run --relabel data/scifact/qrels/train-relabelled.tsv --above 0.02
    """
    from embedtune.errors import InputError
    from embedtune.negatives import audit as auditing
    from embedtune.negatives.evidence import files_of
    from embedtune.report import side_by_side
    from embedtune.report.sheet import refuse, write_sheet

    if (relabel is None) != (above is None):
        raise InputError("--relabel OUT.tsv and --above NUMBER go together")
    if judge is not None and relabel is None:
        raise InputError("--judge has no effect without --relabel")
    if sheet is not None:
        refuse(sheet, overwrite=overwrite)
        if relabel is not None or not suspects:
            raise InputError("--sheet draws the suspects: leave --relabel and --suspects 0 out")
    files = files_of(negatives)
    if relabel is not None and above is not None:
        added = auditing.relabel(negatives, auditing.dataset_of(files, data), relabel, above=above, judge=judge)
        say(f"{relabel}: {added:,} candidates are positives there")
        return
    chosen = auditing.parse_threshold(threshold) if threshold is not None else None
    found = auditing.audit(negatives, threshold=chosen, suspects=suspects)
    wanted = suspects and (data or files.complete or sheet)
    dataset = auditing.dataset_of(files, data) if wanted else None
    if dataset is not None:
        auditing.refuse_other_data(found, dataset)
    for text in found.warnings:
        say(f"warning: {text}")
    if sheet is not None and dataset is not None and found.suspects:
        title = f"{dataset.name}: kept candidates that score most like a positive"
        missing = write_sheet(sheet, title, side_by_side.of_suspects(found, dataset))
        say(f"written: {sheet}")
        say_missing_images(missing)
    elif sheet is not None:
        say(f"{sheet}: not written; no candidate is kept, so there is no suspect to draw")
    if as_json:
        show_json(_as_json(found, dataset))
        return
    _show(found, dataset, queries)


def _show(found: Audit, dataset: Dataset | None, queries: bool) -> None:
    kept, total = sum(q.kept for q in found.queries), sum(q.candidates for q in found.queries)
    say(f"{len(found.queries):,} queries, {total:,} candidates, {kept:,} kept; "
        f"{sum(q.kept == 0 for q in found.queries):,} queries with none")  # fmt: skip
    if queries:
        rows = [[q.query_id, q.candidates, q.kept, _counts(q.dropped)] for q in found.queries]
        show_table(["query", "candidates", "kept", "dropped by"], rows, as_json=False, title="Queries")
        print()
    if found.filters:
        rows = [[f.name, f.candidates, f.dropped, f.alone, f.lowest_limit, f.highest_limit] for f in found.filters]
        columns = ["filter", "candidates", "dropped", "it alone", "lowest limit", "highest limit"]
        show_table(columns, rows, as_json=False, title="Filters")
        print()
    if len(found.sources) > 1:
        rows = [[s.name, s.candidates, s.kept, s.shared] for s in found.sources]
        show_table(["source", "candidates", "kept", "others had too"], rows, as_json=False, title="Sources")
        print()
    for title, listed in (("Suspects among the kept", found.suspects), ("Likeliest among the dropped", found.caught)):
        if listed:
            shown = _side_by_side(listed, dataset)
            show_table(list(shown[0]), [list(row.values()) for row in shown], as_json=False, title=title)
            print()
    largest = max(max(kept + dropped for _, _, kept, dropped in found.gaps), 1)
    bars = [
        [low, high, kept, dropped, "#" * round(WIDTH * kept / largest) + "-" * round(WIDTH * dropped / largest)]
        for low, high, kept, dropped in found.gaps
    ]
    columns = ["gap from", "to", "kept", "dropped", "# kept, - dropped"]
    show_table(columns, bars, as_json=False, title="The positive's score minus the candidate's")


def _counts(dropped: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in dropped.items())


def _side_by_side(listed: list[Evidence], dataset: Dataset | None) -> list[dict[str, Any]]:
    """The query, its lowest positive, and the suspect."""
    rows: list[dict[str, Any]] = []
    for s in listed:
        row = {"query": s.query_id, "suspect": s.doc_id, "score": s.reference, "positive": s.positive_id,
               "its score": s.positive_reference}  # fmt: skip
        if dataset is not None:
            row |= {
                "query text": _shortened(dataset.queries[s.query_id].shown),
                "positive text": _shortened(dataset.corpus[s.positive_id].shown),
                "suspect text": _shortened(dataset.corpus[s.doc_id].shown),
            }
        rows.append(row)
    return rows


def _shortened(text: str, most: int = 240) -> str:
    return text if len(text) <= most else text[:most].rsplit(" ", 1)[0] + " ..."


def _as_json(found: Audit, dataset: Dataset | None) -> dict[str, object]:
    return {
        "queries": [vars(q) for q in found.queries],
        "sources": [vars(s) for s in found.sources],
        "filters": [vars(f) for f in found.filters],
        "suspects": _side_by_side(found.suspects, dataset),
        "caught": _side_by_side(found.caught, dataset),
        "scores": [dict(zip(("from", "to", "positives", "kept", "dropped"), row, strict=True)) for row in found.scores],
        "gaps": [dict(zip(("from", "to", "kept", "dropped"), row, strict=True)) for row in found.gaps],
        "warnings": found.warnings,
    }
