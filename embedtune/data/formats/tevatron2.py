"""Tevatron 2's training rows with their corpus.

https://github.com/texttron/tevatron, src/tevatron/retriever/dataset.py
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from ...types import Item
from ..contents import Contents, Located, ids_in, items_of, positives_in, rows_in
from ..image_columns import ImageFiles
from ..jsonl import LineError, id_in
from ..records import texts
from ..source_folder import SourceFolder
from . import FolderFormat

POSITIVES, NEGATIVES = "positive_document_ids", "negative_document_ids"
_QUERY_ID = "query_id"
ALONE = (
    f'"{POSITIVES}" are ids (Tevatron 2); name a folder with these rows as train.jsonl and their corpus.jsonl, or name '
    "the documents with --corpus FILE"
)
_ROWS = r"(train[\w.-]*|(train|data)/train[\w.-]*)\.(jsonl|parquet)(\.gz)?"


def recognises(folder: SourceFolder) -> bool:
    rows = folder.paths(_ROWS) if folder.tables("corpus") else []
    return bool(rows) and any(POSITIVES in values for _, values in islice(rows_in(rows), 1))


def read(folder: SourceFolder, split: str, images: ImageFiles) -> Contents:
    """`query_id`, `query_text`, `query_image`, lists of document ids; the corpus has `docid`, `title`, `text`, `image`.

    Videos and sounds are not read, and a query or document with nothing else is an error.
    """
    rows = folder.paths(_ROWS)
    corpus = [path for paths in folder.tables("corpus").values() for path in paths]
    return Contents(
        documents=items_of(rows_in(corpus), images, ids=("docid",)),
        queries=_queries(rows, images),
        judgements={split: positives_in(rows_in(rows), POSITIVES, _QUERY_ID)},
        negatives=((query_id, doc_id) for _, query_id, doc_id in ids_in(rows_in(rows), NEGATIVES, _QUERY_ID)),
    )


def _queries(paths: Sequence[Path], images: ImageFiles) -> Iterator[Located]:
    for row in rows_in(paths):
        where, values = row
        text, image = "".join(texts(row, "query_text")), next(images.of(row, "query_image"), None)
        if not text and image is None:
            raise LineError(where, "missing text", "no 'query_text' and no 'query_image'")
        yield where, Item(id=id_in(values, _QUERY_ID, where), text=text, image=image)


FORMAT = FolderFormat(name="Tevatron 2", recognises=recognises, read=read)
