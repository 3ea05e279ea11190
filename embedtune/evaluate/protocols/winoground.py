"""Winoground: two images and two captions of the same words in another order (arXiv 2204.03162).

Of the four scores of an example, `text` is right if each image's own caption scores strictly above the other caption,
`image` if each caption's own image scores strictly above the other image, `group` if both are right. Chance is 1/4, 1/4
and 1/6; a model that scores everything alike gets 0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...data.tables import rows_of
from ...errors import InputError
from ...types import Item, Qrels, Run
from ..suites import Reported, Suite, Task
from ._images import RowImages
from ._rows import files_of, has_columns, text_in

LAYOUT = "examples.jsonl (or Parquet files) with image_0, image_1, caption_0 and caption_1, and the images"
COLUMNS = ("image_0", "image_1", "caption_0", "caption_1")


def recognises(folder: Path) -> bool:
    return any(has_columns(path, COLUMNS) for path in _files(folder)[:1])


def _files(folder: Path) -> list[Path]:
    return files_of((folder, folder / "data"), "examples.jsonl")


def read(folder: Path, images: Path | None) -> Suite:
    """Raises InputError, with the row, for rows of another layout and for images that are absent."""
    files = _files(folder)
    row_images = RowImages([images, files[0].parent, folder], ("images", ""))
    task = Task(label="winoground", folder=folder, measures=("text", "image", "group"), report=reported)
    for number, row in enumerate(row for path in files for row in rows_of(path)):
        example = str(row[1].get("id", number))
        captions = [text_in(row, f"caption_{index}") for index in (0, 1)]
        if captions[0] == captions[1]:
            raise InputError(f"{row[0]}: both captions are the same")
        task.shown[example] = " | ".join(captions)
        group = row[1].get("collapsed_tag")
        for index in (0, 1):
            image = Item(id="", image=row_images.path(row[1].get(f"image_{index}"), row[0]))
            # The id of a caption holds its example's, so that equal captions of two examples stay apart.
            options = [(Item(id=f"{example}/caption_{c}", text=captions[c]), int(c == index)) for c in (0, 1)]
            task.add(f"{example}/image_{index}", image, options)
        if isinstance(group, str) and group:
            task.groups[example] = (group,)
    return Suite(protocol="winoground", tasks=[task])


def reported(run: Run) -> Reported:
    """The four scores of each example under its own id, and the three values of each."""
    by_example: Run = {}
    qrels: Qrels = {}
    values: dict[str, dict[str, float]] = {"text": {}, "image": {}, "group": {}}
    for query_id, scores in run.items():
        example, _, image = query_id.rpartition("/")
        named = {f"{image}/{doc_id.rpartition('/')[2]}": score for doc_id, score in scores.items()}
        by_example.setdefault(example, {}).update(named)
    for example, scores in by_example.items():
        qrels[example] = {"image_0/caption_0": 1, "image_1/caption_1": 1}
        s = {name: np.float32(score) for name, score in scores.items()}
        both, mixed = (
            [s[f"image_{i}/caption_{c}"] for i in (0, 1) for c in (0, 1) if (i == c) == same] for same in (True, False)
        )  # (of image 0, of image 1); (image 0 with caption 1, image 1 with caption 0)
        text = both[0] > mixed[0] and both[1] > mixed[1]
        image_right = both[0] > mixed[1] and both[1] > mixed[0]
        for name, right in (("text", text), ("image", image_right), ("group", text and image_right)):
            values[name][example] = float(right)
    return Reported(by_example, qrels, values)
