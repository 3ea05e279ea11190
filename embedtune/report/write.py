"""`report`: run folders in, one Markdown text out, or that text as an HTML page."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import yaml

from ..errors import InputError
from ..evaluate.compare import Compared, Group, by_recipe, compare_groups
from ..evaluate.guarded import HALF
from ..evaluate.sources import Source, read_source
from ..files import FileKind, FolderKind, check_file, check_folder, whole_folder, write_text
from ..negatives.audit import dataset_of
from ..recipe.strict_yaml import flattened
from ..types import Dataset, Item
from . import drawings
from .figures import Drawing, as_file
from .markdown import MARK, escaped, need, render
from .model_facts import card_name, example, facts_of, usage
from .outcome import guard_sentence, sentences, tables
from .page import page
from .pictures import Thumbnails
from .record import OF_TRAINING, Mining, RunRecord, read_record
from .spread import spreads_of
from .wording import shortened, without_folders

if TYPE_CHECKING:
    from markupsafe import Markup

Form = Literal["html", "md"]
BASE = "base model"
HTML_MARK = b'<p class="kicker">embedtune report</p>'
_HTML_MARKS = (HTML_MARK, b" \xc2\xb7 embedtune</title>")


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


class Figures:
    """The figures of a report, drawn as a template asks for them. folder: of their files, from the text; None leaves
    them out."""

    def __init__(self, folder: str | None) -> None:
        self.drawn: dict[str, tuple[str, Drawing]] = {}  # file name -> title, SVG
        self._folder = folder

    def __call__(
        self, draw: Callable[..., Drawing], title: str, *values: object, caller: Any, **options: Any
    ) -> Markup:
        """A Markdown image, whose text is the title and the caption."""
        from markupsafe import Markup

        if self._folder is None:
            return Markup("")
        number = sum(name.startswith(draw.__name__) for name in self.drawn)
        name = f"{draw.__name__}{f'-{number + 1}' if number else ''}.svg"
        self.drawn[name] = title, draw(title, *values, **options)
        caption = " ".join(caller().split())
        return Markup(f"![{escaped(title)}. {caption}]({self._folder}{name})\n")


def report(runs: Sequence[str | Path], *, form: Form = "html", figures: str | None = None) -> Report:
    """The report of one run, or of several beside the first.

    form: one HTML page with everything inside, or Markdown. figures: for Markdown, the folder, relative to the text, in
    which figures are linked; absent, they are left out. Raises InputError where a folder is no run, where a run is
    named twice, and where a package that draws or renders is not installed.
    """
    html = form == "html"
    if html:
        need("markdown_it", "reports in HTML")
    if html or figures is not None:
        need("matplotlib", "plots")
    records = [read_record(Path(run), negatives=len(runs) == 1) for run in runs]
    picture = Thumbnails(wanted=html)
    figure = Figures("" if html else None if figures is None else f"{quote(figures)}/")
    template, values = ("run.md.jinja", _run(records[0])) if len(records) == 1 else ("runs.md.jinja", _runs(records))
    text = render(template, values | {"picture": picture, "figure": figure, "draw": drawings})
    notes = [*values["notes"], *picture.notes]
    if html:
        return Report(text=page(text, figure.drawn, picture.html), notes=notes)
    files = {name: as_file(svg) for name, (_, svg) in figure.drawn.items()}
    return Report(text=f"{text}\n{MARK}\n", notes=notes, files=files)


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
    recipe = without_folders(record.recipe)
    values = _shared(record) | {
        "title": card_name(record),
        "example": example(record.folder / "model", record.recipe["matryoshka"]),
        "usage": usage(record.folder / "model", record.recipe["matryoshka"]),
        "card": True,
        "named": recipe,
        "recipe_text": yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=120),
        "recipe_file": "recipe.yaml",
        "notes": [note for note in record.notes if not note.startswith(OF_TRAINING)],
        "spreads": [],
        "examples": [],
        "figure": Figures(None),
        "draw": drawings,
    }
    return render("run.md.jinja", values)


def _run(record: RunRecord) -> dict[str, Any]:
    spreads, notes = spreads_of(record)
    recipe = record.folder / "recipe.yaml"
    return _shared(record) | {
        "title": record.name,
        "card": False,
        "named": record.recipe,
        "recipe_text": recipe.read_text(encoding="utf-8"),
        "recipe_file": str(recipe),
        "spreads": spreads,
        "examples": _examples(record.minings[0]) if record.minings else [],
        "notes": [*record.notes, *notes],
    }


def _shared(record: RunRecord) -> dict[str, Any]:
    """What the report and the card both say."""
    return {
        "record": record,
        "sentences": sentences(record),
        "facts": facts_of(record),
        "outcome": tables(record, others=False),
        "guard_words": guard_sentence(record.guard) if record.guard else "",
        "half": HALF,
    }


def _examples(mining: Mining) -> list[dict[str, Any]]:
    """The likely false negatives that filters caught, each with its query and its query's lowest positive."""
    try:
        dataset: Dataset | None = dataset_of(mining.files)
    except InputError:  # moved or changed since: ids alone are known
        dataset = None

    def shown(item_id: str, role: str) -> dict[str, Any]:
        items = None if dataset is None else dataset.queries if role == "query" else dataset.corpus
        item = items[item_id] if items is not None and item_id in items else Item(id=item_id)
        text = shortened(item.content) or (item.image.name if item.image else f"{role} {item_id}")
        return {"text": text, "image": item.image}

    return [
        {
            "candidate": candidate,
            "query": shown(candidate.query_id, "query"),
            "positive": shown(candidate.positive_id, "document"),
            "dropped": shown(candidate.doc_id, "document"),
        }
        for candidate in (suspect.candidate for suspect in mining.audit.caught)
    ]


def _runs(records: Sequence[RunRecord]) -> dict[str, Any]:
    """The values of several runs, compared with the first."""
    runs = distinct_names(records)
    notes = [f"{name}: {sentence}" for name, record in runs.items() for sentence in record.missing]
    compared = _compared(runs, notes)
    comparisons = compared.comparisons if compared else []
    recipes = {name: flattened(record.recipe) for name, record in runs.items()}
    keys = list(dict.fromkeys(key for recipe in recipes.values() for key in recipe))
    rows = [[key, *(str(recipe.get(key, "")) for recipe in recipes.values())] for key in keys]
    differing = [row for row in rows if len(set(row[1:])) > 1]
    return {
        "runs": runs,
        "notes": [*notes, *(compared.notes if compared else [])],
        "compared": compared,
        "main": [c for c in comparisons if c.measure == records[0].measure],
        "differing": differing,
        "same": len(keys) - len(differing),
        "curves": {name: [record.learning.curve] for name, record in runs.items() if record.learning.curve},
    }


def distinct_names(records: Sequence[RunRecord]) -> dict[str, RunRecord]:
    """Each run by its folder's name, or by its path where two have the same name."""
    paths = [record.folder.resolve() for record in records]
    for path in paths:
        if paths.count(path) > 1:
            raise InputError(f"{path}: is given twice")
    names = [path.name for path in paths]
    return dict(zip(names if len(set(names)) == len(names) else map(str, paths), records, strict=True))


def _compared(runs: Mapping[str, RunRecord], notes: list[str]) -> Compared | None:
    """The runs against the first; seeds of one recipe, as one, against their base model. None where the first run, or
    all others, have no evaluation."""
    notes += [f"{name}: is not compared; it has no evaluation." for name, record in runs.items() if not record.tuned]
    sources = [
        dataclasses.replace(read_source(record.folder), name=name, measured=record.tuned)
        for name, record in runs.items()
        if record.tuned
    ]
    first = next(iter(runs.values()))
    if len(sources) < 2 or not first.tuned:
        return None
    groups = by_recipe(sources)
    if len(groups) == 1:
        notes.append("The runs differ in their seed alone: they are compared, as one, with their base model.")
        groups = [Group(name=BASE, sources=[Source(name=BASE, measured=first.base)]), *groups]
    return compare_groups(groups)
