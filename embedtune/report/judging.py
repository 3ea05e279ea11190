"""One HTML file on which people judge the suspects of an audit by eye. It needs no network and no server."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import FileKind, check_file, first_line, whole_file
from ..negatives.audit import Audit, Suspect
from ..types import Dataset, Item
from .figures import STYLESHEET
from .markdown import TEMPLATES, environment
from .pictures import thumbnail

MARK = "<!doctype html><!-- embedtune judging page -->"
SIDE = 320  # pixels of a picture's longer side
MOST_BYTES = 50_000_000  # of all pictures of one page
PAGE = FileKind(verb="audit --html", wrote=lambda path: first_line(path) == MARK)


def check_page(path: Path, *, overwrite: bool = False) -> None:
    """Raises InputError for a file that the page cannot be written as, or that may not be replaced."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--html {path}: expected a name that ends in .html")
    check_file(path, PAGE, overwrite=overwrite, option="--html")


def write_page(path: Path, result: Audit, dataset: Dataset) -> int:
    """Writes the page of the kept and the dropped suspects; returns how many pictures are left out of it.

    A picture is left out where it is damaged and where the page already holds 50 MB of them; its file name is shown.
    Decisions are kept in the reader's browser, under a key that depends on the page's content.
    """
    pictures = Pictures()
    cards = [_card(suspect, dataset, pictures) for suspect in (*result.suspects, *result.caught)]
    content = json.dumps(cards, ensure_ascii=False, allow_nan=False)
    values = {
        "mark": MARK,
        "title": dataset.name,
        "split": dataset.split,
        "cards": content.replace("<", "\\u003c"),  # no text of the data can end the script element
        "pictures": pictures.uris,
        "key": hashlib.sha256(f"{dataset.name}\n{dataset.split}\n{content}".encode()).hexdigest()[:16],
        "teacher": result.by_teacher,
        "style": STYLESHEET.read_text(encoding="utf-8"),
        "script": (TEMPLATES / "judging.js").read_text(encoding="utf-8"),
    }
    with whole_file(path) as temporary:
        temporary.write_text(
            environment(escape=False).get_template("judging.html.jinja").render(values), encoding="utf-8"
        )
    return pictures.left_out


class Pictures:
    """The pictures of one page, each once, as data URIs."""

    def __init__(self) -> None:
        self.uris: list[str] = []
        self.left_out = 0
        self._bytes = 0
        self._indices: dict[Path, int | None] = {}

    def index_of(self, image: Path) -> int | None:
        """The picture's number on the page; None where it is left out."""
        if image not in self._indices:
            uri = thumbnail(image, SIDE) if self._bytes < MOST_BYTES else None
            self._indices[image] = len(self.uris) if uri is not None else None
            if uri is None:
                self.left_out += 1
            else:
                self.uris.append(uri)
                self._bytes += len(uri)
        return self._indices[image]


def _card(suspect: Suspect, dataset: Dataset, pictures: Pictures) -> dict[str, Any]:
    candidate = suspect.candidate
    grades = dataset.qrels.get(candidate.query_id, {})
    return {
        "query_id": candidate.query_id,
        "doc_id": candidate.doc_id,
        "kept": candidate.keep,
        "dropped_by": [verdict.name for verdict in candidate.filters if not verdict.keep],
        "source": candidate.source,
        "rank": candidate.rank,
        "score": candidate.reference,
        "positive_score": candidate.positive_reference,
        "lead": suspect.lead,
        "positives": sum(grade > 0 for grade in grades.values()),
        "query": _shown(dataset.queries[candidate.query_id], pictures),
        "positive": _shown(dataset.corpus[candidate.positive_id], pictures),
        "suspect": _shown(dataset.corpus[candidate.doc_id], pictures),
    }


def _shown(item: Item, pictures: Pictures) -> dict[str, Any]:
    picture = pictures.index_of(item.image) if item.image is not None else None
    missing = item.image.name if item.image is not None and picture is None else ""
    return {"id": item.id, "title": item.title, "text": item.text, "picture": picture, "missing": missing}
