"""Where negatives came from, what each filter dropped, and how scores lie before and after training."""

from __future__ import annotations

from ..errors import InputError
from ..negatives.audit import Audit, Suspect, dataset_of
from ..types import Dataset, Item
from .document import (
    Block,
    Cell,
    Exhibit,
    Exhibits,
    Figure,
    Figures,
    Section,
    Table,
    Text,
    number,
    plural,
    shortened,
    signed,
)
from .figures import histograms
from .pictures import Pictures
from .record import Mining, Record
from .spread import Side, Spread, shares, spread_of

MOST_DATASETS = 6  # that are drawn


def negatives_section(record: Record, pictures: Pictures) -> Section | None:
    """Of the first mining and the last their counts; of the first the scores, and likely false negatives caught."""
    if not record.minings:
        return None
    again = f" The student mined again {plural(record.refreshes, 'time')}." if record.refreshes else ""
    blocks: list[Block] = [Text(_in_words(record.minings[0].found) + again)]
    sources, filters = _tables(record.minings)
    blocks += [sources, *([filters] if filters.rows else [])]
    blocks.append(Figures(_score_figures(record.minings[0].found)))
    caught = record.minings[0].found.caught
    if caught:
        blocks.append(
            Text(
                "Likely false negatives that the filters caught: of the dropped candidates those that score furthest "
                "above the mean of their query's candidates, one for each query. Judge for yourself."
            )
        )
        blocks.append(Exhibits(_exhibits(caught, record.minings[0], pictures)))
    return Section("Negatives", blocks)


def _in_words(found: Audit) -> str:
    candidates, kept = (sum(getattr(q, name) for q in found.queries) for name in ("candidates", "kept"))
    without = sum(query.kept == 0 for query in found.queries)
    left = f"; {plural(without, 'query')} kept none" if without else ""
    return (
        f"{plural(candidates, 'candidate')} were found for {plural(len(found.queries), 'query')}, and {kept:,} of them "
        f"({kept / max(1, candidates):.0%}) were kept as negatives{left}."
    )


def _tables(minings: list[Mining]) -> tuple[Table, Table]:
    several = len(minings) > 1
    when = ["mined"] if several else []
    sources, filters = [], []
    for mining in minings:
        start = [mining.when] if several else []
        for source in mining.found.sources:
            name = source.name
            sources.append([*start, name, f"{source.candidates:,}", f"{source.kept:,}", f"{source.shared:,}"])
        for used in mining.found.filters:
            limits = "" if used.lowest_limit is None else f"{used.lowest_limit:.3f} to {used.highest_limit:.3f}"
            share = f"{used.dropped / max(1, used.candidates):.1%}"
            filters.append([*start, used.name, f"{used.dropped:,}", share, f"{used.alone:,}", limits])
    places = len(when)
    return (
        Table(
            caption="Where candidates came from",
            columns=[*when, "source", "candidates", "kept", "found by others too"],
            rows=sources,
            numeric=frozenset(range(places + 1, places + 4)),
        ),
        Table(
            caption="What each filter dropped",
            columns=[*when, "filter", "dropped", "of all", "dropped by it alone", "its limits"],
            rows=filters,
            numeric=frozenset(range(places + 1, places + 5)),
        ),
    )


def _score_figures(found: Audit) -> list[Figure]:
    edges = [found.scores[0][0], *(row[1] for row in found.scores)]
    groups = [
        (label, colour, _share([row[2:][place] for row in found.scores]))
        for label, colour, place in (("positives", "better", 0), ("kept", "tuned", 1), ("dropped", "worse", 2))
        if any(row[2:][place] for row in found.scores)
    ]
    gap_edges = [found.gaps[0][0], *(row[1] for row in found.gaps)]
    kept, dropped = ([row[place] for row in found.gaps] for place in (2, 3))
    total = max(1, sum(kept) + sum(dropped))
    beyond = sum(row[2] + row[3] for row in found.gaps if row[1] <= 0)
    gaps = [("kept", "tuned", [n / total for n in kept]), ("dropped", "worse", [n / total for n in dropped])]
    return [
        Figure(
            svg=histograms([("", groups)], edges, across="score, by whoever judged", title="Scores when mined"),
            title="Scores when mined",
            text="Each query's lowest positive, the candidates kept and those dropped, each as shares of its own kind.",
        ),
        Figure(
            svg=histograms(
                [("", gaps)], gap_edges, across="positive's score minus candidate's", title="Gaps", zero=True
            ),
            title="How far below the positive",
            text=f"Left of the dotted line a candidate scores above the positive: about {beyond / total:.1%} of them.",
        ),
    ]


def _share(counts: list[int]) -> list[float]:
    return [count / max(1, sum(counts)) for count in counts]


def _exhibits(caught: list[Suspect], mining: Mining, pictures: Pictures) -> list[Exhibit]:
    try:
        dataset: Dataset | None = dataset_of(mining.files)
    except InputError:  # moved or changed since; ids are what is left
        dataset = None

    def shown(item_id: str, role: str) -> Cell:
        items = None if dataset is None else dataset.queries if role == "query" else dataset.corpus
        item = items[item_id] if items is not None and item_id in items else Item(id=item_id)
        text = shortened(item.content) or (item.image.name if item.image else f"{role} {item_id}")
        return Cell(text, picture=pictures.of(item.image))

    return [
        Exhibit(
            heading=f"Dropped by {', '.join(v.name for v in c.filters if not v.keep)}; {c.source}, rank {c.rank:,}",
            parts=[
                ("query", shown(c.query_id, "query")),
                (f"positive {number(c.positive_reference, 3)}", shown(c.positive_id, "document")),
                (f"dropped {number(c.reference, 3)}", shown(c.doc_id, "document")),
            ],
        )
        for c in (suspect.candidate for suspect in caught)
    ]


def spread_section(record: Record) -> tuple[Section | None, list[str]]:
    """The section, and notes on what could not be shown."""
    both = [key for key in record.base if key in record.tuned]
    spreads, notes = [], []
    for key in both[:MOST_DATASETS]:
        spread = spread_of(record.base[key], record.tuned[key])
        if spread is None:
            notes.append(
                f"{record.base[key].label}: scores are not shown; the dataset is not there as it was evaluated."
            )
        elif spread.before.positives and spread.before.others:
            spreads.append(spread)
    if len(both) > MOST_DATASETS:
        notes.append(f"Scores are drawn for the first {MOST_DATASETS} of {len(both)} datasets.")
    if not spreads:
        return None, notes
    blocks: list[Block] = [
        Text(
            "Over the evaluated queries: the score of each one's best positive, and of its best other document. What "
            "is not judged may be relevant all the same."
        ),
        Figures([_spread_figure(spread) for spread in spreads]),
        _spread_table(spreads),
    ]
    return Section("Scores before and after", blocks), notes


def _spread_figure(spread: Spread) -> Figure:
    edges = spread.edges

    def groups(side: Side) -> list[tuple[str, str, list[float]]]:
        return [
            ("best positive", "better", shares(side.positives, edges)),
            ("best other", "worse", shares(side.others, edges)),
        ]

    panels = [("before", groups(spread.before)), ("after", groups(spread.after))]
    title = f"{spread.label}: scores before and after"
    return Figure(
        svg=histograms(panels, edges, across="score", title=title),
        title=spread.label,
        text=f"A positive is first for {spread.before.first:.1%} of queries before, {spread.after.first:.1%} after.",
    )


def _spread_table(spreads: list[Spread]) -> Table:
    rows = [
        [
            spread.label,
            name,
            number(_mean(side.positives), 3),
            number(_mean(side.others), 3),
            signed(side.gap, 2),
            f"{side.first:.1%}",
            f"{side.absent:,}",
        ]
        for spread in spreads
        for name, side in (("base", spread.before), ("tuned", spread.after))
    ]
    return Table(
        caption="Best positive and best other document",
        columns=[
            "dataset",
            "model",
            "best positive, mean",
            "best other, mean",
            "gap in deviations",
            "positive first",
            "no positive found",
        ],
        rows=rows,
        numeric=frozenset(range(2, 7)),
    )


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
