"""What came of it: each dataset before and after with intervals, the guard's curve, the queries that changed most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..evaluate.compare import Change, Comparison
from .document import (
    Block,
    Cell,
    Figure,
    Figures,
    Section,
    Table,
    Text,
    Tone,
    Verdict,
    Verdicts,
    interval,
    number,
    plural,
    probability,
    shortened,
    signed,
)
from .figures import spans
from .pictures import Pictures
from .record import Record

LEVEL = 0.05
Ranks = tuple[Mapping[str, int | None], Mapping[str, int | None]]
HOW_TESTED = (
    "Differences are paired by query. The interval is a 95% bootstrap interval of the mean difference over queries; p "
    "is a paired randomisation test's, with Holm's correction over all rows of the table. They say what other queries "
    "of the same kind would show; not what another training seed would."
)


def tone_of(comparison: Comparison) -> Tone:
    """Better or worse only where that is more than chance, after Holm's correction."""
    if comparison.holm is None or comparison.holm >= LEVEL:
        return ""
    return "better" if comparison.difference > 0 else "worse"


def said_of(comparison: Comparison) -> str:
    if comparison.holm is None:
        return "means only, no test"
    return tone_of(comparison) or "no difference shown"


def verdicts(record: Record, main: Sequence[Comparison]) -> Verdicts:
    """Each dataset by the recipe's measure."""
    return Verdicts(
        [
            Verdict(
                dataset=found.dataset,
                domain=record.domain(found.dataset),
                measure=found.measure,
                before=number(found.baseline),
                after=number(found.value),
                difference=signed(found.difference),
                interval=interval(found.low, found.high),
                said=said_of(found),
                tone=tone_of(found),
            )
            for found in main
        ]
    )


def outcome_section(record: Record, *, drawn: bool = True) -> Section | None:
    """Base against tuned; or the base alone, where the run was stopped before the tuned model was measured."""
    if record.compared is None:
        return _base_only(record) if record.base else None
    found = record.compared.comparisons
    main = [comparison for comparison in found if comparison.measure == record.measure]
    figures: list[Block] = [Figures([_change_figure(main, record)])] if drawn and main else []
    blocks = [verdicts(record, main), *figures, comparison_table(found, "All measures"), Text(HOW_TESTED)]
    return Section("Before and after", blocks)


def _change_figure(main: Sequence[Comparison], record: Record) -> Figure:
    rows = [
        (f.dataset, "tuned" if record.domain(f.dataset) == "in domain" else "ink", f.difference, f.low, f.high)
        for f in main
    ]
    title = f"Change of {record.measure} by fine-tuning"
    return Figure(
        svg=spans(rows, across=f"change of {record.measure}, with its 95% interval", title=title),
        title=title,
        text="; ".join(
            f"{f.dataset}: {signed(f.difference)}" + (f" ({interval(f.low, f.high)})" if f.low is not None else "")
            for f in main
        )
        + ". In domain is coloured, the rest is not.",
    )


def comparison_table(comparisons: Sequence[Comparison], caption: str, *, runs: bool = False) -> Table:
    """A row for each dataset and measure, and run where there are several."""
    columns = [
        "dataset",
        "measure",
        *(["run"] if runs else []),
        "difference",
        "95% interval",
        "baseline → run" if runs else "before → after",
        "p (Holm)",
        "queries better / same / worse",
    ]
    rows: list[list[str | Cell]] = []
    for found in comparisons:
        counts = "" if found.wins is None else f"{found.wins:,} / {found.ties:,} / {found.losses:,}"
        rows.append(
            [
                found.dataset,
                found.measure,
                *([found.run] if runs else []),
                Cell(signed(found.difference), tone_of(found)),
                interval(found.low, found.high),
                f"{number(found.baseline)} → {number(found.value)}",
                probability(found.holm),
                counts,
            ]
        )
    return Table(caption=caption, columns=columns, rows=rows, numeric=frozenset(range(2 + runs, len(columns))))


def _base_only(record: Record) -> Section:
    rows = [[part.label, name, number(value)] for part in record.base.values() for name, value in part.measures.items()]
    table = Table(caption="The base model", columns=["dataset", "measure", "base"], rows=rows, numeric=frozenset({2}))
    return Section("Before", [Text("Only the base model was measured before the run stopped."), table])


def mteb_section(record: Record) -> Section | None:
    """Of each of mteb's tasks the recipe's measure where it has it, else the first of its own."""
    if not record.mteb:
        return None
    rows = []
    for part in record.mteb.values():
        name = record.measure if record.measure in part.measures else next(iter(part.measures))
        rows.append([part.label, name, number(part.measures[name])])
    columns = ["task", "measure", "value"]
    table = Table(caption="The tuned model, by mteb", columns=columns, rows=rows, numeric=frozenset({2}))
    return Section("mteb", [Text("Measured by mteb's own evaluator, on its own data."), table])


def queries_section(record: Record, pictures: Pictures) -> Section | None:
    """By the recipe's measure, the queries that gained and lost most on each dataset."""
    if record.compared is None:
        return None
    blocks: list[Block] = [
        Text(
            "The query's value before and after, and where its first relevant document stood among those found. "
            "Single queries show what changed; whether it is more than chance stands above."
        )
    ]
    for found in record.compared.comparisons:
        if found.measure != record.measure:
            continue
        key = found.dataset.casefold()
        ranks = (record.base[key].first_ranks, record.tuned[key].first_ranks)
        for what, changes in (("gained", found.gained), ("lost", found.lost)):
            if changes:
                caption = f"{found.dataset}: the {plural(len(changes), 'query')} that {what} most ({found.measure})"
                blocks.append(changes_table(caption, changes, pictures, ranks))
    return Section("Queries that changed most", blocks) if len(blocks) > 1 else None


def changes_table(
    caption: str,
    changes: Sequence[Change],
    pictures: Pictures,
    ranks: Ranks | None = None,
    *,
    sides: str = "before → after",
) -> Table:
    """A row for each query. ranks: where its first relevant document stood before and after, where that is known."""
    rows: list[list[str | Cell]] = []
    for change in changes:
        text = shortened(change.text) if change.text else f"query {change.query_id}"
        rows.append(
            [
                Cell(text, picture=pictures.of(Path(change.image) if change.image else None)),
                f"{number(change.baseline, 3)} → {number(change.value, 3)}",
                Cell(signed(change.difference, 3), "better" if change.difference > 0 else "worse"),
                *([" → ".join(_rank(side.get(change.query_id)) for side in ranks)] if ranks else []),
            ]
        )
    columns = ["query", sides, "difference", *(["first relevant at rank"] if ranks else [])]
    return Table(caption=caption, columns=columns, rows=rows, numeric=frozenset(range(1, len(columns))), texts=True)


def _rank(rank: int | None) -> str:
    return "none" if rank is None else f"{rank:,}"
