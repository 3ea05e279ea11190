"""SugarCrepe: an image, its caption and a caption with one error (arXiv 2306.14610).

A query is right if its caption scores strictly above the other. Seven categories in three types; the means are over
categories, as in the paper.
"""

from __future__ import annotations

from pathlib import Path

from ...data.tables import rows_of
from ...errors import InputError
from ...types import Item
from ..suites import Part, Suite, Task
from ._images import RowImages
from ._rows import text_in

CATEGORIES = ("add_obj", "add_att", "replace_obj", "replace_att", "replace_rel", "swap_obj", "swap_att")
LAYOUT = f"{', '.join(f'{name}.json' for name in CATEGORIES)} (or some of them), and COCO's images"


def recognises(folder: Path) -> bool:
    return bool(_files(folder))


def _files(folder: Path) -> dict[str, Path]:
    for root in (folder, folder / "data"):
        files = {name: root / f"{name}.json" for name in CATEGORIES if (root / f"{name}.json").is_file()}
        if files:
            return files
    return {}


def read(folder: Path, images: Path | None) -> Suite:
    """Raises InputError, with the entry, for rows of another layout and for images that are absent."""
    row_images = RowImages([images, folder], ("", "images", "val2017", "coco/val2017"))
    tasks = []
    for name, path in _files(folder).items():
        task = Task(label=f"sugarcrepe-{name}", folder=folder, measures=("accuracy",))
        for number, row in enumerate(rows_of(path)):
            caption, other = text_in(row, "caption"), text_in(row, "negative_caption")
            if caption == other:
                raise InputError(f"{row[0]}: both captions are the same")
            image = row_images.path(row[1].get("filename"), row[0])
            options = ((Item(id="", text=text), int(text == caption)) for text in (caption, other))
            task.add(str(row[1].get("_key", number)), Item(id="", image=image), options)
        tasks.append(task)
    means = {}
    for title, kind in (("add", "add_"), ("replace", "replace_"), ("swap", "swap_"), ("SugarCrepe", "")):
        names = [name for name in CATEGORIES if name.startswith(kind)]
        if parts := [Part(label=f"sugarcrepe-{name}") for name in names if name in _files(folder)]:
            means[title] = (parts, len(names))
    return Suite(protocol="sugarcrepe", tasks=tasks, means=means)
