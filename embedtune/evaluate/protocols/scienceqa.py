"""ScienceQA as a ranking of options: the query is question, hint and image (arXiv 2209.09513).

The published protocol lets a model write its answer; this one is for embedding models. It reports hit@1 among a
question's own options (a model that scores everything alike gets 1 / options) over the test split, and by subject,
context and grade as in the paper.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...data.records import Row
from ...data.tables import rows_of
from ...errors import InputError
from ...types import Item
from ..suites import Suite, Task
from ._images import RowImages
from ._rows import files_of, has_columns, text_in

LAYOUT = "problems.json and images/test/<id>/, or Parquet files with question, choices, answer, hint and image"
COLUMNS = ("question", "choices", "answer", "hint")
SUBJECTS = {"natural science": "NAT", "social science": "SOC", "language science": "LAN"}


def recognises(folder: Path) -> bool:
    return any(has_columns(path, COLUMNS) for path in _files(folder)[:1])


def _files(folder: Path) -> list[Path]:
    return files_of((folder, folder / "data", folder / "data/scienceqa"), "problems.json")


def read(folder: Path, images: Path | None) -> Suite:
    """Raises InputError, with the question, for rows of another layout and for images that are absent."""
    files = _files(folder)
    row_images = RowImages([images, folder, files[0].parent], ("images", ""))
    task = Task(label="scienceqa", folder=folder, measures=("hit@1",))
    for number, row in enumerate(_test_rows(files)):
        _add(task, str(row[1].get("_key", number)), row, row_images)
    if not task.qrels:
        raise InputError(f"{files[0]}: no question of the split test")
    return Suite(protocol="scienceqa", tasks=[task])


def _test_rows(files: list[Path]) -> Iterator[Row]:
    for path in files:
        yield from (row for row in rows_of(path) if row[1].get("split", "test") == "test")


def _add(task: Task, query_id: str, row: Row, images: RowImages) -> None:
    where, values = row
    choices, answer = values.get("choices"), values.get("answer")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(choice, str) for choice in choices):
        raise InputError(f"{where}: 'choices' must be a list of at least two texts")
    if not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise InputError(f"{where}: 'answer' must be the index of one of {len(choices)} choices, got {answer!r}")
    hint = str(values.get("hint") or "").strip()
    image = _image(query_id, values.get("image"), where, images)
    question = Item(id="", text=" ".join(filter(None, [text_in(row, "question"), hint])), image=image)
    options = [(Item(id="", text=choice), int(choice == choices[answer])) for choice in choices]
    task.add(query_id, question, options, _groups(values, bool(hint), image is not None))


def _image(query_id: str, value: Any, where: str, images: RowImages) -> Path | None:
    if not value:
        return None
    return images.path(value if isinstance(value, dict) else f"test/{query_id}/{value}", where)


def _groups(values: dict[str, Any], has_hint: bool, has_image: bool) -> tuple[str, ...]:
    """Subject, context and grade, by the paper's abbreviations."""
    context = [name for name, present in (("TXT", has_hint), ("IMG", has_image)) if present] or ["NO"]
    grade = re.fullmatch(r"grade(\d+)", str(values.get("grade") or ""))
    grades = [] if grade is None else ["G1-6" if int(grade[1]) <= 6 else "G7-12"]
    subject = SUBJECTS.get(str(values.get("subject") or ""))
    return (*([subject] if subject else []), *context, *grades)
