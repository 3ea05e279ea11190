"""MMEB: 36 sets in four meta-tasks, each query with its own candidates, hit@1 (VLM2Vec, arXiv 2410.05160).

Rows are those of the published evaluation data: `qry_text`, `qry_img_path`, `tgt_text` and `tgt_img_path` (lists, the
first one the positive), in Parquet or JSON lines, one folder or file for each set. The published scoring takes the
first of the best, so that a model that scores everything alike is always right; here it gets 1 / number of candidates.
A set that is a dataset folder (MMEB-V2's visual documents, arXiv 2507.04590, converted) is ranked as a whole, by nDCG@5
with linear gain.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...data.dataset import load_dataset
from ...data.records import Row
from ...data.tables import rows_of
from ...errors import InputError
from ...types import Dataset, Item
from ..suites import Part, Suite, Task
from ._images import RowImages
from ._rows import has_columns

LAYOUT = "files, or folders of files, with rows of qry_text, qry_img_path, tgt_text and tgt_img_path"
COLUMNS = ("qry_text", "tgt_text")
SUFFIXES = (".parquet", ".jsonl", ".json")
IMAGES = ("images", "eval_images")  # names of folders of images
IMAGE_TOKENS = ("<|image_1|>", "<|image_pad|>", "<image>")
IN_DISTRIBUTION, OUT_OF_DISTRIBUTION = "in distribution", "out of distribution"
SETS = [
    ("Classification", IN_DISTRIBUTION, "ImageNet-1K N24News HatefulMemes VOC2007 SUN397"),
    ("Classification", OUT_OF_DISTRIBUTION, "Place365 ImageNet-A ImageNet-R ObjectNet Country211"),
    ("VQA", IN_DISTRIBUTION, "OK-VQA A-OKVQA DocVQA InfographicsVQA ChartQA Visual7W"),
    ("VQA", OUT_OF_DISTRIBUTION, "ScienceQA VizWiz GQA TextVQA"),
    ("Retrieval", IN_DISTRIBUTION, "VisDial CIRR VisualNews_t2i VisualNews_i2t MSCOCO_t2i MSCOCO_i2t NIGHTS WebQA"),
    ("Retrieval", OUT_OF_DISTRIBUTION, "OVEN FashionIQ EDIS Wiki-SS-NQ"),
    ("Grounding", IN_DISTRIBUTION, "MSCOCO"),
    ("Grounding", OUT_OF_DISTRIBUTION, "RefCOCO RefCOCO-Matching Visual7W-Pointing"),
]
META_TASKS = tuple(dict.fromkeys(meta_task for meta_task, _, _ in SETS))
ALL, DOCUMENTS = "MMEB", "Visual documents"


def sets_of(title: str) -> list[str]:
    """The sets of a meta-task, of a distribution, or of MMEB."""
    return [name for *titles, names in SETS if title in (*titles, ALL) for name in names.split()]


def recognises(folder: Path) -> bool:
    return any(has_columns(files[0], COLUMNS) for files in _files(folder).values())


def read(folder: Path, images: Path | None) -> Suite:
    """Raises InputError, with the row, for rows of another layout and for images that are absent."""
    known = sets_of(ALL)
    tasks, corpora, notes = [], [], []
    row_images = RowImages([images, folder, folder.parent], ("", *IMAGES))
    for name, files in _files(folder).items():
        if name in known or has_columns(files[0], COLUMNS):
            tasks.append(_task(name, files, row_images, folder))
        elif (files[0].parent / "corpus.jsonl").exists():
            corpora.append(load_dataset(files[0].parent))
    if others := [task.label for task in tasks if task.label.removeprefix("mmeb-") not in known]:
        notes.append(f"not among the 36 sets of MMEB, so in no mean: {', '.join(others)}")
    present = [name for name in known if f"mmeb-{name}" in {task.label for task in tasks}]
    if len(present) < len(known):
        notes.append(f"{len(present)} of the {len(known)} sets are here; means are over those")
    return Suite(protocol="mmeb", tasks=tasks, means=_means(present, corpora), corpora=corpora, notes=notes)


def _files(folder: Path) -> dict[str, list[Path]]:
    """Set -> its files: those of its folder, or the file of its name. A folder of files alone is one set."""
    if not folder.is_dir():
        return {}
    shards = _shards(folder)
    if of_one_set := [path for path in shards if path.name.partition("-")[0].partition(".")[0] == "test"]:
        return {folder.resolve().name: of_one_set}
    folders = [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name not in IMAGES]
    sets = {path.name: _shards(path) for path in folders} | {path.stem: [path] for path in shards}
    return {name: files for name, files in sets.items() if files}


def _shards(folder: Path) -> list[Path]:
    """A folder's files of rows: those of the split `test` if the files are named by split."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.suffix.lower() in SUFFIXES]
    return [path for path in files if path.name.startswith("test")] or files


def _task(name: str, files: list[Path], images: RowImages, folder: Path) -> Task:
    task = Task(label=f"mmeb-{name}", folder=folder, measures=("hit@1",))
    for number, row in enumerate(row for path in files for row in rows_of(path)):
        query = _item(row, row[1].get("qry_text"), row[1].get("qry_img_path"), row[1].get("qry_inst"), images)
        task.add(str(number), query, ((item, int(index == 0)) for index, item in enumerate(_targets(row, images))))
    return task


def _targets(row: Row, images: RowImages) -> Iterator[Item]:
    where, values = row
    texts, paths = values.get("tgt_text"), values.get("tgt_img_path")
    if isinstance(paths, list) and not isinstance(texts, list):
        texts = [texts or ""] * len(paths)
    if isinstance(texts, list) and not isinstance(paths, list):
        paths = [paths or ""] * len(texts)
    if not isinstance(texts, list) or not isinstance(paths, list) or len(texts) != len(paths):
        raise InputError(f"{where}: 'tgt_text' and 'tgt_img_path' must be lists of the same length")
    if len(texts) < 2:
        raise InputError(f"{where}: {len(texts)} target(s); a query needs its positive, the first, and others")
    for text, path in zip(texts, paths, strict=True):
        yield _item(row, text, path, values.get("tgt_inst"), images)


def _item(row: Row, text: Any, path: Any, instruction: Any, images: RowImages) -> Item:
    """The image and the text, without the token that marks the image's position: the encoder sets its own."""
    where = row[0]
    parts = [part for part in (instruction, text) if part]
    if not all(isinstance(part, str) for part in parts) or not isinstance(path or "", str):
        raise InputError(f"{where}: texts and paths must be strings, got {str(text)[:40]!r} and {str(path)[:40]!r}")
    content = " ".join(parts)
    for token in IMAGE_TOKENS:
        if token in content and not path:
            raise InputError(f"{where}: the text has the token {token} of an image, and there is no image")
        content = content.replace(token, "")
    image = images.path(path, where) if path else None
    if image is None and not content.strip():
        raise InputError(f"{where}: neither a text nor an image")
    return Item(id="", text=content.strip(), image=image)


def _means(present: list[str], corpora: list[Dataset]) -> dict[str, tuple[list[Part], int]]:
    """The means over each meta-task, each distribution and all sets."""
    means = {}
    for title in (*META_TASKS, IN_DISTRIBUTION, OUT_OF_DISTRIBUTION, ALL):
        names = sets_of(title)
        means[title] = ([Part(label=f"mmeb-{name}") for name in names if name in present], len(names))
    means[DOCUMENTS] = ([Part(label=dataset.label) for dataset in corpora], len(corpora))
    return {title: (parts, count) for title, (parts, count) in means.items() if parts}
