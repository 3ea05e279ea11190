"""`report`: run folders in, one Markdown text out, or that text as an HTML page."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import yaml

from ..errors import InputError
from ..evaluate.compare import Compared, Group, by_recipe, compare_groups
from ..evaluate.sources import read_source
from ..files import FileKind, FolderKind, check_file, check_folder, whole_folder, write_text
from ..negatives.audit import dataset_of
from ..negatives.evidence import Evidence
from ..recipe.strict_yaml import flattened
from ..types import Dataset, Item
from . import drawings
from .figures import Figure, as_file
from .markdown import MARK, escaped, need, render
from .page import page
from .pictures import Thumbnails
from .record import Mining, RunRecord, in_order, read_record
from .spread import Spread, spreads_of
from .wording import plural, shortened, without_folders

if TYPE_CHECKING:
    from markupsafe import Markup

Form = Literal["html", "md"]
BASE = "base model"
Draw = Callable[[], Sequence[Figure]]
_HTML_MARKS = (b'<p class="kicker">embedtune report</p>', b" \xc2\xb7 embedtune</title>")


def _is_report(path: Path) -> bool:
    content = path.read_bytes()
    return content.endswith(f"\n{MARK}\n".encode()) or all(mark in content for mark in _HTML_MARKS)


REPORT = FileKind(verb="report", wrote=_is_report)
FIGURES = FolderKind(verb="report")


@dataclass(frozen=True, kw_only=True)
class Report:
    """notes: what a reader must know before the figures. files: name -> SVG, where the Markdown links figures."""

    text: str
    notes: list[str]
    files: dict[str, str] = field(default_factory=dict)


class Drawn:
    """The figures of a report, drawn where a template asks for them. folder: before their names in the references."""

    def __init__(self, slots: Mapping[str, Draw], folder: str = "") -> None:
        self.figures: list[Figure] = []
        self._slots, self._folder = slots, folder

    def __call__(self, slot: str) -> Markup:
        """The slot's figures as Markdown images in a paragraph of their own."""
        from markupsafe import Markup

        drawn = self._slots[slot]() if slot in self._slots else ()
        self.figures += drawn
        return Markup("\n").join(
            Markup("![") + escaped(f"{figure.title}. {figure.caption}") + Markup(f"]({self._folder}{figure.name}.svg)")
            for figure in drawn
        )


def report(runs: Sequence[str | Path], *, form: Form = "html", figures: str | None = None) -> Report:
    """The report of one run, or of several beside the first.

    form: one HTML page with everything inside, or Markdown. figures: for Markdown, the folder, relative to the text, in
    which figures are linked; absent, they are left out. Raises InputError where a folder is no run, where a run is
    named twice, and where a package that draws or renders is not installed.
    """
    if form == "html":
        need("markdown_it", "reports in HTML")
    drawn = form == "html" or figures is not None
    if drawn:
        need("matplotlib", "plots")
    records = [read_record(Path(run), negatives=len(runs) == 1) for run in runs]
    thumbnails = Thumbnails()
    values: dict[str, Any] = {"picture": thumbnails.reference if form == "html" else lambda path: escaped("")}
    if len(records) == 1:
        template, slots = "run.md.jinja", _run(records[0], values)
    else:
        template, slots = "runs.md.jinja", _runs(records, values)
    folder = f"{quote(figures)}/" if figures else ""
    values["figures"] = Drawn(slots if drawn else {}, folder)
    text = render(template, values)
    notes = values["notes"]
    if thumbnails.left_out:
        notes = [*notes, f"{plural(thumbnails.left_out, 'picture')} left out: damaged, or the page has enough of them."]
        text = render(template, values | {"notes": notes, "figures": Drawn(slots if drawn else {}, folder)})
    made = {f"{figure.name}.svg": figure for figure in values["figures"].figures}
    if form == "html":
        return Report(text=page(text, made, thumbnails.html), notes=notes)
    return Report(
        text=f"{text}\n{MARK}\n", notes=notes, files={name: as_file(figure.svg) for name, figure in made.items()}
    )


def figures_folder(output: Path) -> Path:
    """Where the figures of a Markdown report stand."""
    return output.with_name(f"{output.stem}-figures")


def check_output(output: Path, *, overwrite: bool, figures: bool) -> None:
    """Raises InputError unless the report, and its folder of figures, may be written."""
    check_file(output, REPORT, overwrite=overwrite)
    if figures:
        check_folder(figures_folder(output), FIGURES, overwrite=overwrite)


def write_report(made: Report, output: Path) -> None:
    """Writes a report whose output was checked: the figures that it links, then the text."""
    if made.files:
        with whole_folder(figures_folder(output), FIGURES, overwrite=True) as temporary:
            for name, svg in made.files.items():
                write_text(temporary / name, svg)
    write_text(output, made.text)


def card_text(record: RunRecord) -> str:
    """The part of a run's report that a model card holds: no figures, no texts of the data, no folders."""
    return render("run.md.jinja", _values(record, [], card=True) | {"figures": Drawn({}), "picture": None})


def _values(record: RunRecord, spreads: Sequence[Spread], *, card: bool) -> dict[str, Any]:
    recipe = record.folder / "recipe.yaml"
    text = record.recipe_text
    if card:
        text = yaml.safe_dump(without_folders(record.recipe), sort_keys=False, allow_unicode=True, width=120)
    return {
        "record": record,
        "card": card,
        "recipe_text": text,
        "again": shlex.join(["embedtune", "train", "recipe.yaml" if card else str(recipe), "--output", "runs/again"]),
        "spreads": spreads,
        "examples": [],
        "notes": [*record.missing, *(record.compared.notes if record.compared else [])],
    }


def _run(record: RunRecord, values: dict[str, Any]) -> dict[str, Draw]:
    """Adds a run's values; returns its figures by their slot in the template."""
    spreads, notes = spreads_of(record)
    values |= _values(record, spreads, card=False)
    values["notes"] += notes
    values["examples"] = _examples(record.minings[0]) if record.minings else []
    slots: dict[str, Draw] = {
        "learning": lambda: _learning(record),
        "scores": lambda: [drawings.spread_figure(spread, index) for index, spread in enumerate(spreads)],
    }
    if record.main:
        slots["change"] = lambda: [drawings.change_figure(record)]
    if guard := record.guard:
        slots["guard"] = lambda: drawings.guard_figures(guard)
    if record.minings:
        slots["negatives"] = lambda: drawings.mining_figures(record.minings[0].audit)
    return slots


def _learning(record: RunRecord) -> list[Figure]:
    learning = record.learning
    figures = [drawings.loss_figure(learning)]
    if learning.curve is not None:
        figures.append(drawings.learning_figure(learning.curve, record.summary.get("best_step")))
    return figures


def _examples(mining: Mining) -> list[dict[str, Any]]:
    """The likely false negatives that filters caught: the query, its lowest positive and the dropped document."""
    try:
        dataset: Dataset | None = dataset_of(mining.files)
    except InputError:  # moved or changed since: ids alone are known
        dataset = None

    def shown(item_id: str, role: str) -> dict[str, Any]:
        items = None if dataset is None else dataset.queries if role == "query" else dataset.corpus
        item = items[item_id] if items is not None and item_id in items else Item(id=item_id)
        text = shortened(item.content) or (item.image.name if item.image else f"{role} {item_id}")
        return {"text": text, "image": item.image}

    def example(candidate: Evidence) -> dict[str, Any]:
        return {
            "candidate": candidate,
            "query": shown(candidate.query_id, "query"),
            "positive": shown(candidate.positive_id, "document"),
            "dropped": shown(candidate.doc_id, "document"),
        }

    return [example(suspect.candidate) for suspect in mining.audit.caught]


def _runs(records: Sequence[RunRecord], values: dict[str, Any]) -> dict[str, Draw]:
    """Adds the values of several runs, compared with the first; returns their figures by slot."""
    runs = distinct_names(records)
    notes = [f"{name}: {sentence}" for name, record in runs.items() for sentence in record.missing]
    compared = _compared(runs, notes)
    measure = records[0].measure
    main = [c for c in compared.comparisons if c.measure == measure] if compared else []
    recipes = {name: flattened(record.recipe) for name, record in runs.items()}
    keys = list(dict.fromkeys(key for recipe in recipes.values() for key in recipe))
    rows = [[key, *(str(recipe.get(key, "")) for recipe in recipes.values())] for key in keys]
    differing = [row for row in rows if len(set(row[1:])) > 1]
    values |= {
        "runs": runs,
        "notes": [*notes, *(compared.notes if compared else [])],
        "compared": compared,
        "main": main,
        "differing": differing,
        "same": len(keys) - len(differing),
    }
    curves = {name: [record.learning.curve] for name, record in runs.items() if record.learning.curve}
    slots: dict[str, Draw] = {}
    if compared and main:
        slots["differences"] = lambda: [drawings.differences_figure(main, compared.baseline)]
    if curves:
        slots["learning"] = lambda: [drawings.learning_curves_figure(curves)]
    return slots


def distinct_names(records: Sequence[RunRecord]) -> dict[str, RunRecord]:
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


def _compared(runs: Mapping[str, RunRecord], notes: list[str]) -> Compared | None:
    """The runs against the first; seeds of one recipe, as one, against their base model. None where the first run, or
    all others, have no evaluation."""
    notes += [f"{name}: is not compared; it has no evaluation." for name, record in runs.items() if not record.tuned]
    sources = [
        dataclasses.replace(read_source(record.folder), name=name) for name, record in runs.items() if record.tuned
    ]
    first = next(iter(runs.values()))
    if len(sources) < 2 or not first.tuned:
        return None
    groups = by_recipe(sources)
    if len(groups) == 1:
        notes.append("The runs differ in their seed alone: they are compared, as one, with their base model.")
        base = read_source(first.folder / "evaluation-base")
        groups = [Group(name=BASE, sources=[dataclasses.replace(base, name=BASE)]), *groups]
    return in_order(compare_groups(groups), list(first.domains))
