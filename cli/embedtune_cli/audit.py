"""`embedtune audit`: why mined candidates were kept or dropped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from . import options
from .options import option, switch
from .output import Table, say, say_missing_images, show_json, show_table, show_tables

if TYPE_CHECKING:
    from embedtune.negatives.audit import Audit, Suspect
    from embedtune.negatives.evidence import MiningFiles
    from embedtune.types import Dataset

WIDTH = 40  # characters of the longest bar


def audit(
    negatives: options.NegativesArgument,
    data: options.MinedData = None,
    suspects: Annotated[int, option("N", "List the N kept candidates that are likeliest false negatives.", min=0)] = 10,
    per_query: Annotated[bool, switch("--per-query", "Also show the counts of each query.")] = False,
    threshold: Annotated[
        str | None, option("FILTER=NUMBER", "Show the counts for another limit of a filter; no model is loaded.")
    ] = None,
    methods: options.MethodFolders = [],  # noqa: B006
    relabel: Annotated[
        Path | None, option("FILE", "Write new judgements (.tsv) in which false negatives are positives.")
    ] = None,
    above: Annotated[
        float | None,
        option(
            "MARGIN",
            "With --relabel: judge candidates relevant that score this much above the lowest-scoring positive.",
        ),
    ] = None,
    judge: Annotated[
        Path | None, option("FILE", "With --relabel: decide by the scores that `embedtune judge` wrote.")
    ] = None,
    decisions: Annotated[
        list[Path],
        option("FILE...", "Decisions saved on the page of --html, a file for each person: show how far people agree."),
    ] = [],  # noqa: B006
    html: Annotated[
        Path | None, option("FILE", "Also write a page on which people judge the suspects, kept and dropped.", "--html")
    ] = None,
    sheet: options.Sheet = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Show which filter dropped which candidates, the likeliest false negatives, and the scores beside the positives'.

    Example: embedtune audit runs/scifact-mined/negatives/mined.run

    Example: embedtune audit mined.run --threshold positive_ratio=0.9

    Example: embedtune audit runs/emoji/negatives/mined.run --suspects 20 --sheet suspects.png

    Example: embedtune audit mined.run --relabel data/scifact/qrels/train-relabelled.tsv --above 0.02

    Example: embedtune audit mined.run --suspects 40 --html judging.html

    Example: embedtune audit mined.run --decisions anna.jsonl --decisions ben.jsonl --relabel qrels.tsv
    """
    from embedtune.errors import InputError
    from embedtune.methods import use_folders
    from embedtune.negatives import audit as auditing
    from embedtune.negatives.evidence import files_of
    from embedtune.report.judging import check_page, write_page
    from embedtune.report.sheet import refuse, rows_of_suspects, write_sheet

    if relabel is not None and (above is None) == (not decisions):
        raise InputError("--relabel needs --above MARGIN, or --decisions FILE that people saved")
    if above is not None and relabel is None:
        raise InputError("--above has no effect without --relabel FILE")
    if judge is not None and above is None:
        raise InputError("--judge has no effect without --relabel FILE --above MARGIN")
    if methods and threshold is None:
        raise InputError("--methods has no effect without --threshold")
    if overwrite and sheet is None and html is None:
        raise InputError("--overwrite has no effect without --sheet or --html")
    for flag, target in (("--sheet", sheet), ("--html", html)):
        if target is not None and not suspects:
            raise InputError(f"{flag} shows the suspects; leave --suspects 0 out")
    if sheet is not None:
        refuse(sheet, overwrite=overwrite)
    if html is not None:
        check_page(html, overwrite=overwrite)
    files = files_of(negatives)
    if relabel is not None or decisions:
        shows = {"--sheet": sheet, "--html": html, "--threshold": threshold, "--per-query": per_query}
        for flag, value in ({**shows, "--json": as_json} if relabel else shows).items():
            if value:
                raise InputError(f"{flag} has no effect with {'--relabel' if relabel else '--decisions'}")
        if decisions:
            _show_agreement(decisions, relabel, as_json)
        if relabel is not None:
            _relabel(files, data, relabel, above=above, judge=judge, decisions=decisions)
        return
    use_folders(methods)
    chosen = auditing.parse_threshold(threshold) if threshold is not None else None
    result = auditing.audit(negatives, threshold=chosen, suspects=suspects)
    wants_texts = suspects and (data or files.complete or sheet or html)
    dataset = auditing.dataset_of(files, data) if wants_texts else None
    if dataset is not None:
        auditing.refuse_other_data(result, dataset)
    for text in result.warnings:
        say(f"warning: {text}")
    if sheet is not None and dataset is not None and result.suspects:
        title = f"{dataset.name}: the likeliest false negatives among the kept candidates"
        missing = write_sheet(sheet, title, rows_of_suspects(result, dataset))
        say(f"written: {sheet}")
        say_missing_images(missing)
    elif sheet is not None:
        say(f"{sheet}: not written; no candidate is kept, so there is no suspect to draw")
    if html is not None and dataset is not None:
        left_out = write_page(html, result, dataset)
        say(f"written: {html}; open it in a browser, and read the decisions with --decisions")
        if left_out:
            say(f"warning: {left_out:,} pictures are left out of it: damaged, or the page holds 50 MB of them")
    if as_json:
        show_json(_as_json(result, dataset))
        return
    _show(result, dataset, per_query)


def _show_agreement(files: list[Path], relabel: Path | None, as_json: bool) -> None:
    """How far every two people agree: the result, or beside judgements a remark."""
    from embedtune.data.decisions import agreements, read_decisions
    from embedtune.errors import InputError

    if len(set(files)) < len(files):
        raise InputError("--decisions: a file is named twice; name one file for each person")
    people = {str(path): read_decisions(path) for path in files}
    if len(people) == 1 and relabel is None:
        raise InputError("--decisions: one file alone shows no agreement; name a second one, or --relabel FILE")
    rows: list[list[object]] = [
        [first, second, both.pairs, both.alike, both.kappa] for first, second, both in agreements(people)
    ]
    columns = ["first", "second", "pairs both decided", "decided alike", "Cohen's kappa"]
    if relabel is None:
        show_table(columns, rows, as_json=as_json)
        return
    for first, second, both in agreements(people):
        kappa = "" if both.kappa is None else f", Cohen's kappa {both.kappa:.2f}"
        say(f"{first} and {second}: {both.alike:,} of {both.pairs:,} pairs decided alike{kappa}")


def _relabel(
    files: MiningFiles,
    data: str | None,
    output: Path,
    *,
    above: float | None,
    judge: Path | None,
    decisions: list[Path],
) -> None:
    from embedtune.negatives import audit as auditing

    dataset = auditing.dataset_of(files, data)
    if above is not None:
        added = auditing.relabel(files.run, dataset, output, above=above, judge=judge)
        say(f"written: {output}; {added:,} candidates are positives in it")
        return
    relevant, other, disputed = auditing.relabel_by_people(dataset, output, decisions)
    say(f"written: {output}; {relevant:,} suspects are positives in it, {other:,} are judged not relevant")
    if disputed:
        pairs = ", ".join(f"{query_id} {doc_id}" for query_id, doc_id in disputed[:5])
        say(f"people disagree on {len(disputed):,} pairs, which stay as they were: {pairs}")


def _show(result: Audit, dataset: Dataset | None, per_query: bool) -> None:
    kept, total = sum(q.kept for q in result.queries), sum(q.candidates for q in result.queries)
    without = sum(q.kept == 0 for q in result.queries)
    say(
        f"{len(result.queries):,} queries: {kept:,} of {total:,} candidates kept ({kept / total:.1%}); "
        f"{without:,} queries keep none; scores are the {'teacher' if result.by_teacher else 'model'}'s"
    )
    tables: list[Table] = []
    if per_query:
        columns = ["query", "candidates", "kept", "dropped by"]
        rows: list[list[object]] = [[q.query_id, q.candidates, q.kept, _counts(q.dropped)] for q in result.queries]
        tables.append(("Queries", columns, rows))
    if result.filters:
        columns = ["filter", "candidates", "dropped", "dropped by it alone", "lowest limit", "highest limit"]
        rows = [[f.name, f.candidates, f.dropped, f.alone, f.lowest_limit, f.highest_limit] for f in result.filters]
        tables.append(("Filters: candidates that each one drops, and its limits over the queries", columns, rows))
    if len(result.sources) > 1:
        columns = ["source", "candidates", "kept", "in other sources too"]
        rows = [[s.name, s.candidates, s.kept, s.shared] for s in result.sources]
        tables.append(("Sources: candidates by the source that ranked them highest", columns, rows))
    for title, listed in (
        ("Likeliest false negatives among the kept", result.suspects),
        ("Likeliest false negatives among the dropped, one for each query", result.caught),
    ):
        if listed:
            shown = _side_by_side(listed, dataset)
            tables.append((title, list(shown[0]), [list(row.values()) for row in shown]))
    largest = max(max(kept + dropped for _, _, kept, dropped in result.gaps), 1)
    rows = [
        [low, high, kept, dropped, "#" * round(WIDTH * kept / largest) + "-" * round(WIDTH * dropped / largest)]
        for low, high, kept, dropped in result.gaps
    ]
    columns = ["from", "to", "kept", "dropped", "# kept, - dropped"]
    tables.append(("Candidates by their distance below the lowest positive (its score minus theirs)", columns, rows))
    show_tables(tables)


def _counts(dropped: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in dropped.items())


def _side_by_side(listed: list[Suspect], dataset: Dataset | None) -> list[dict[str, Any]]:
    """Each suspect beside its query and the query's lowest positive."""
    rows: list[dict[str, Any]] = []
    for suspect in listed:
        s = suspect.candidate
        row = {"query": s.query_id, "suspect": s.doc_id, "score": s.reference, "above its query's mean": suspect.lead,
               "positive": s.positive_id, "positive's score": s.positive_reference}  # fmt: skip
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


def _as_json(result: Audit, dataset: Dataset | None) -> dict[str, object]:
    return {
        "queries": [vars(q) for q in result.queries],
        "sources": [vars(s) for s in result.sources],
        "filters": [vars(f) for f in result.filters],
        "suspects": _side_by_side(result.suspects, dataset),
        "caught": _side_by_side(result.caught, dataset),
        "scores": [
            dict(zip(("from", "to", "positives", "kept", "dropped"), row, strict=True)) for row in result.scores
        ],
        "gaps": [dict(zip(("from", "to", "kept", "dropped"), row, strict=True)) for row in result.gaps],
        "warnings": result.warnings,
    }
