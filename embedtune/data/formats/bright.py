"""One domain of BRIGHT. https://huggingface.co/datasets/xlangai/BRIGHT, https://github.com/xlang-ai/BRIGHT/blob/main/run.py"""

from __future__ import annotations

from collections.abc import Iterator

from ...types import Item
from ..contents import Contents, Located, chosen_split, ids_in, items_of, positives_in, rows_in
from ..image_columns import ImageFiles
from ..jsonl import id_in
from ..records import Row, one_text
from ..source_folder import SourceFolder
from . import FolderFormat

NOTHING = "N/A"  # stands alone in `excluded_ids` where nothing is excluded


def recognises(folder: SourceFolder) -> bool:
    return bool(folder.tables("documents") and folder.tables("examples"))


def read(folder: SourceFolder, split: str, images: ImageFiles) -> Contents:
    """`documents` (`id`, `content`) and `examples` (`id`, `query`, `gold_ids`, `excluded_ids`) of the domain `split`.

    Excluded documents are never ranked for their query. `long_documents` and the reasoning of models are not read.
    """
    documents, examples = folder.tables("documents"), folder.tables("examples")
    chosen_split(folder.root, split, documents.keys() & examples.keys())
    rows = list(rows_in(examples[split]))
    return Contents(
        documents=items_of(rows_in(documents[split]), ids=("id",), text="content"),
        queries=_queries(rows),
        judgements={split: positives_in(rows, "gold_ids", "id")},
        excluded=[(query_id, d) for _, query_id, d in ids_in(rows, "excluded_ids", "id") if d != NOTHING],
    )


def _queries(rows: list[Row]) -> Iterator[Located]:
    for row in rows:
        yield row[0], Item(id=id_in(row[1], "id", row[0]), text=one_text(row, "query"))


FORMAT = FolderFormat(name="BRIGHT", recognises=recognises, read=read)
