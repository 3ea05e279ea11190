"""ARO: does a model mind the order of words: attribution, relation, order (arXiv 2210.01936).

An image (for relations and attributes a part of it) with its caption and perturbed ones: one in Visual Genome's sets,
four in those of COCO and Flickr30k. A query is right where its caption scores strictly above all others; the released
code takes the first of the best, which in the order sets is the right one. Visual Genome's sets are reported by their
macro means: over relations without those that are symmetric or rare in the authors' list, and over pairs of attributes
with at least 25 queries. The order sets must bring their perturbed captions: the released code makes them with a
parser, at random.
"""

from __future__ import annotations

from pathlib import Path

from ...data.records import Row
from ...errors import InputError
from ...types import Item
from ..lists import Task
from ..suites import Part, Suite
from ._images import RowImages, cropped
from ._relations import LEFT_OUT
from ._rows import rows, text_in

RELATION, ATTRIBUTION = "VG-Relation", "VG-Attribution"
FILES = {
    RELATION: "visual_genome_relation.json",
    ATTRIBUTION: "visual_genome_attribution.json",
    "COCO-Order": "coco_order.json",
    "Flickr30k-Order": "flickr30k_order.json",
}
LAYOUT = f"{', '.join(FILES.values())} (or some of them), and the images"
LEAST = 25  # queries of a pair of attributes


def recognises(folder: Path) -> bool:
    return any((folder / name).is_file() for name in FILES.values())


def read(folder: Path, images: Path | None) -> Suite:
    """Raises InputError, with the entry, for what is not laid out so and for images that are not there."""
    row_images = RowImages([images, folder], ("images", ""))
    tasks, means = [], {}
    for name, file in FILES.items():
        if (folder / file).is_file():
            task = _task(name, folder / file, row_images, folder)
            tasks.append(task)
            if macro := _macro(name, task):
                means[f"{name}, macro"] = macro
    return Suite(protocol="aro", tasks=tasks, means=means)


def _task(name: str, file: Path, images: RowImages, folder: Path) -> Task:
    task = Task(label=f"aro-{name}", folder=folder, measures=("accuracy",))
    for number, row in enumerate(rows(file)):
        of_pair = name in (RELATION, ATTRIBUTION)
        right, others = _pair(row) if of_pair else _options(row)
        if right in others:
            raise InputError(f"{row[0]}: a perturbed caption is the right one")
        image = images.path(row[1].get("image_path") or row[1].get("image"), row[0])
        if of_pair:
            image = cropped(image, _box(row))
        options = [(Item(id="", text=right), 1), *((Item(id="", text=text), 0) for text in others)]
        task.add(str(number), Item(id="", image=image), options, _group(name, row))
    return task


def _pair(row: Row) -> tuple[str, list[str]]:
    return text_in(row, "true_caption"), [text_in(row, "false_caption")]


def _options(row: Row) -> tuple[str, list[str]]:
    """The right caption, which comes first, and the others."""
    options = row[1].get("caption_options")
    if not isinstance(options, list) or len(options) < 2 or not all(isinstance(o, str) and o for o in options):
        raise InputError(
            f"{row[0]}: 'caption_options' must be a list of texts, the right caption first; make the perturbed ones "
            "with the released code and save them"
        )
    return options[0], options[1:]


def _box(row: Row) -> tuple[int, int, int, int]:
    values = [row[1].get(f"bbox_{side}") for side in "xywh"]
    if not all(isinstance(value, int) for value in values):
        raise InputError(f"{row[0]}: bbox_x, bbox_y, bbox_w and bbox_h must be whole numbers, got {values}")
    x, y, width, height = (int(value or 0) for value in values)
    return x, y, x + width, y + height


def _group(name: str, row: Row) -> tuple[str, ...]:
    if name == RELATION:
        return (text_in(row, "relation_name"),)
    if name == ATTRIBUTION:
        attributes = row[1].get("attributes")
        if not isinstance(attributes, list) or len(attributes) != 2:
            raise InputError(f"{row[0]}: 'attributes' must be a list of two")
        return (f"{attributes[0]}_{attributes[1]}",)
    return ()


def _macro(name: str, task: Task) -> tuple[list[Part], int] | None:
    counts: dict[str, int] = {}
    for groups in task.groups.values():
        counts[groups[0]] = counts.get(groups[0], 0) + 1
    kept = [
        group
        for group, count in sorted(counts.items())
        if (group not in LEFT_OUT if name == RELATION else count >= LEAST)
    ]
    return ([Part(label=task.label, group=group) for group in kept], len(counts)) if kept else None
