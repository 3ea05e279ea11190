"""The report of several runs: what their recipes share and where they differ, and what that came to, query by query."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence

from ..errors import InputError
from ..evaluate.compare import Compared, Group, by_recipe, compare_groups
from ..evaluate.sources import Source, read_source
from ..recipe import plain
from ..recipe.strict_yaml import flattened
from .document import Block, Cell, Document, Figure, Figures, Section, Table, Text, number, plural, probability, signed
from .figures import SERIES, lines, spans
from .outcome import HOW_TESTED, changes_table, comparison_table
from .pictures import Pictures
from .record import Record, place_of
from .setting import duration, fingerprints, subtitle

BASE = "base model"


def runs_document(records: Sequence[Record], *, drawn: bool = True) -> Document:
    """The first run is the baseline. Raises InputError where one run is given twice."""
    names = distinct_names(records)
    notes = [f"{name}: {said}" for name, record in names.items() for said in record.missing]
    compared = _compared(names, notes)
    sections = [
        _difference_section(compared, records[0].measure, drawn) if compared else None,
        _runs_section(names),
        _recipes_section(names),
        _learning_section(names) if drawn else None,
        _queries_section(compared, records[0].measure) if compared and drawn else None,
        Section("Fingerprints", [dataclasses.replace(fingerprints(r), caption=name) for name, r in names.items()]),
    ]
    return Document(
        title=f"{len(records)} runs compared",
        subtitle=f"Baseline: {compared.baseline if compared else next(iter(names))}",
        sections=[section for section in sections if section is not None],
        notes=[*notes, *(compared.notes if compared else [])],
    )


def distinct_names(records: Sequence[Record]) -> dict[str, Record]:
    """Each run by its folder's name, with as many folders in front as it takes to tell them apart."""
    paths = [record.folder.resolve() for record in records]
    for path in paths:
        if paths.count(path) > 1:
            raise InputError(f"{path}: is given twice")
    common = os.path.commonpath([path.parent for path in paths])
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path.relative_to(common)) for path in paths]
    return dict(zip(names, records, strict=True))


def _compared(names: Mapping[str, Record], notes: list[str]) -> Compared | None:
    sources = [_source(name, record) for name, record in names.items() if record.tuned]
    notes += [f"{name}: is not compared; it has no evaluation." for name, record in names.items() if not record.tuned]
    if len(sources) < 2 or not next(iter(names.values())).tuned:
        return None
    groups = by_recipe(sources)
    first = next(iter(names.values()))
    if len(groups) == 1:
        notes.append("The runs differ in their seed alone: they are compared, as one, with their base model.")
        base = read_source(first.folder / "evaluation-base")
        groups = [Group(name=BASE, sources=[dataclasses.replace(base, name=BASE)]), *groups]
    found = compare_groups(groups)
    ordered = sorted(found.comparisons, key=lambda comparison: place_of(comparison.dataset, list(first.domains)))
    return dataclasses.replace(found, comparisons=ordered)


def _source(name: str, record: Record) -> Source:
    return dataclasses.replace(read_source(record.folder), name=name)


def _difference_section(compared: Compared, measure: str, drawn: bool) -> Section:
    main = [found for found in compared.comparisons if found.measure == measure]
    blocks: list[Block] = []
    if drawn and main:
        several = len({found.run for found in main}) > 1
        runs = list(dict.fromkeys(found.run for found in main))
        rows = [
            (
                f"{f.run}: {f.dataset}" if several else f.dataset,
                SERIES[runs.index(f.run) % len(SERIES)],
                f.difference,
                f.low,
                f.high,
            )
            for f in main
        ]
        title = f"{measure} against {compared.baseline}"
        text = "; ".join(f"{f.run}, {f.dataset}: {signed(f.difference)}" for f in main) + "."
        svg = spans(rows, across=f"difference in {measure}, with its 95% interval", title=title)
        blocks.append(Figures([Figure(svg=svg, title=title, text=text)]))
    blocks += [comparison_table(compared.comparisons, f"Against {compared.baseline}", runs=True), Text(HOW_TESTED)]
    if any(found.seeds for found in compared.comparisons):
        blocks.append(_seeds_table(compared))
    if compared.across:
        blocks.append(_across_table(compared))
    return Section("Differences", blocks)


def _seeds_table(compared: Compared) -> Table:
    rows = [
        [
            f.dataset,
            f.measure,
            f.run,
            ", ".join(f"{number(v)} ({seed})" for seed, v in f.seeds.means.items()),
            number(f.seeds.deviation),
            signed(f.seeds.difference),
            probability(f.seeds.t_p),
            probability(f.seeds.holm),
        ]
        for f in compared.comparisons
        if f.seeds
    ]
    columns = ["dataset", "measure", "run", "mean (seed)", "deviation", "difference", "p (t)", "p (Holm)"]
    caption = "Over training seeds: would training again show the difference as well?"
    return Table(caption=caption, columns=columns, rows=rows, numeric=frozenset(range(4, 8)))


def _across_table(compared: Compared) -> Table:
    rows = [
        [a.run, a.measure, f"{a.datasets}", signed(a.mean), signed(a.worst), a.worst_dataset, f"{a.lower}"]
        for a in compared.across
    ]
    columns = ["run", "measure", "datasets", "mean difference", "worst", "worst on", "lower on"]
    return Table(caption="Over all datasets", columns=columns, rows=rows, numeric=frozenset({2, 3, 4, 6}))


def _runs_section(names: Mapping[str, Record]) -> Section:
    rows = [
        [
            name,
            subtitle(record.recipe),
            f"{record.learning.steps[-1]:,}" if record.learning.steps else "0",
            "" if record.summary.get("best_step") is None else f"{record.summary['best_step']:,}",
            duration(record.learning.seconds),
            "" if record.learning.curve is None else number(record.learning.curve.best),
            "finished" if record.summary else "not finished",
        ]
        for name, record in names.items()
    ]
    columns = ["run", "what", "steps", "kept step", "training", "best validation", "state"]
    return Section("The runs", [Table(caption="Runs", columns=columns, rows=rows, numeric=frozenset({2, 3, 4, 5}))])


def _recipes_section(names: Mapping[str, Record]) -> Section:
    flat = {name: flattened(plain(record.recipe)) for name, record in names.items()}
    keys = list(dict.fromkeys(key for values in flat.values() for key in values))
    rows: list[list[str | Cell]] = [
        [key, *(str(values.get(key, "")) for values in flat.values())]
        for key in keys
        if len({str(values.get(key)) for values in flat.values()}) > 1
    ]
    if not rows:
        return Section("What differs", [Text("The recipes are the same.")])
    same = plural(len(keys) - len(rows), "other key")
    table = Table(caption="Keys of the recipes that differ", columns=["key", *names], rows=rows)
    return Section("What differs", [table, Text(f"The {same} of the recipes are the same.")])


def _learning_section(names: Mapping[str, Record]) -> Section | None:
    curves = [(name, record.learning.curve) for name, record in names.items() if record.learning.curve]
    if not curves:
        return None
    drawn = [
        (name, SERIES[number % len(SERIES)], curve.steps, curve.values) for number, (name, curve) in enumerate(curves)
    ]
    measure = curves[0][1].measure
    svg = lines(drawn, across="training step", up=f"validation {measure}", title="Learning curves", whole=True)
    text = "; ".join(f"{name}: best {curve.best:.4f}" for name, curve in curves) + "."
    return Section("Learning", [Figures([Figure(svg=svg, title="Learning curves", text=text)])])


def _queries_section(compared: Compared, measure: str) -> Section | None:
    pictures = Pictures()
    blocks: list[Block] = []
    for found in compared.comparisons:
        for what, changes in (("gained", found.gained), ("lost", found.lost)):
            if found.measure == measure and changes:
                caption = f"{found.run}, {found.dataset}: the {plural(len(changes), 'query')} that {what} most"
                blocks.append(changes_table(caption, changes, pictures, sides="baseline → run"))
    return Section("Queries that changed most", blocks) if blocks else None
