"""ARO: is a model sensitive to the order of words: attribution, relation, order (arXiv 2210.01936).

The query is an image (for relations and attributes a part of it); the candidates are its caption and perturbed ones:
one in Visual Genome's sets, four in those of COCO and Flickr30k. A query is right if its caption scores strictly above
all others; the released code takes the first of the best, which in the order sets is the right one. Visual Genome's
sets are reported by macro means: over relations without those that are symmetric or rare by the authors' list
(_relations.txt), and over pairs of attributes with at least 25 queries. The order sets must hold their perturbed
captions: the released code makes them at random, with a parser.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ...data.records import Row
from ...data.tables import rows_of
from ...errors import InputError
from ...types import Item
from ..suites import Part, Suite, Task
from ._images import RowImages, cropped
from ._rows import text_in

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
    """Raises InputError, with the entry, for rows of another layout and for images that are absent."""
    row_images = RowImages([images, folder], ("images", ""))
    tasks, means = [], {}
    for name, file in FILES.items():
        if (folder / file).is_file():
            task = _task(name, folder / file, row_images, folder)
            tasks.append(task)
            if name in (RELATION, ATTRIBUTION) and (macro := _macro(name, task))[0]:
                means[f"{name}, macro"] = macro
    return Suite(protocol="aro", tasks=tasks, means=means)


def _task(name: str, file: Path, images: RowImages, folder: Path) -> Task:
    task = Task(label=f"aro-{name}", folder=folder, measures=("accuracy",))
    for number, row in enumerate(rows_of(file)):
        where, values = row
        image = images.path(values.get("image_path") or values.get("image"), where)
        if name in (RELATION, ATTRIBUTION):
            captions = [text_in(row, "true_caption"), text_in(row, "false_caption")]
            image = cropped(image, _box(row))
        else:
            captions = _options(row)
        if captions[0] in captions[1:]:
            raise InputError(f"{where}: a perturbed caption is the right one")
        options = [(Item(id="", text=text), int(index == 0)) for index, text in enumerate(captions)]
        task.add(str(number), Item(id="", image=image), options, _group(name, row))
    return task


def _options(row: Row) -> list[str]:
    """The captions, the right one first."""
    options = row[1].get("caption_options")
    if not isinstance(options, list) or len(options) < 2 or not all(isinstance(o, str) and o for o in options):
        raise InputError(
            f"{row[0]}: 'caption_options' must be a list of texts, the right caption first; make the perturbed ones "
            "with the released code and save them"
        )
    return options


def _box(row: Row) -> tuple[int, int, int, int]:
    values = [row[1].get(f"bbox_{side}") for side in "xywh"]
    if not all(isinstance(value, int) for value in values):
        raise InputError(f"{row[0]}: bbox_x, bbox_y, bbox_w and bbox_h must be whole numbers, got {values}")
    x, y, width, height = (int(value or 0) for value in values)
    return x, y, x + width, y + height


def _group(name: str, row: Row) -> tuple[str, ...]:
    """The relation, or the pair of attributes, that the query belongs to."""
    if name == RELATION:
        return (text_in(row, "relation_name"),)
    if name == ATTRIBUTION:
        attributes = row[1].get("attributes")
        if not isinstance(attributes, list) or len(attributes) != 2:
            raise InputError(f"{row[0]}: 'attributes' must be a list of two")
        return (f"{attributes[0]}_{attributes[1]}",)
    return ()


def _macro(name: str, task: Task) -> tuple[list[Part], int]:
    """The groups that the macro mean is over, and the number of all groups."""
    counts = Counter(group for (group,) in task.groups.values())
    left_out = set(Path(__file__).with_name("_relations.txt").read_text(encoding="utf-8").splitlines())
    kept = [g for g, count in sorted(counts.items()) if (g not in left_out if name == RELATION else count >= LEAST)]
    return [Part(label=task.label, group=group) for group in kept], len(counts)
