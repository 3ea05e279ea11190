"""MS MARCO's passage files. https://microsoft.github.io/msmarco/Datasets.html"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ...types import Item
from ..contents import Contents, Located, judgements_in
from ..image_columns import ImageFiles
from ..jsonl import LineError, decode, fault_of_id, read_lines
from ..source_folder import SourceFolder
from . import FolderFormat

_GZ = r"(\.gz)?"
_CORPUS = rf"(collection|corpus)\.tsv{_GZ}"
_QUERIES = rf"queries(\.[\w.-]+?)?\.tsv{_GZ}"
_QRELS = rf"qrels(\.(?P<split>[\w.-]+?))?\.tsv{_GZ}"
_TRIPLES = rf"(qidpidtriples|triples\.ids?)[\w.-]*\.(tsv|txt){_GZ}"


def recognises(folder: SourceFolder) -> bool:
    judged = folder.find(_QRELS) or folder.find(_TRIPLES)
    return bool(folder.find(_CORPUS) and folder.find(_QUERIES) and judged)


def read(folder: SourceFolder, split: str, images: ImageFiles) -> Contents:
    """`collection.tsv`, `queries*.tsv`, `qrels.SPLIT.tsv` and `qidpidtriples*.tsv`, none with a header.

    The triples' negatives are given negatives; their positives are judgements only where there is no qrels file.
    """
    triples = folder.paths(_TRIPLES)
    judgements = {match["split"] or split: judgements_in([folder.path(match)]) for match in folder.find(_QRELS)}
    return Contents(
        documents=texts_in(folder.paths(_CORPUS)),
        queries=texts_in(folder.paths(_QUERIES)),
        judgements=judgements or {split: _positives(triples)},
        negatives=((query_id, doc_id) for _, query_id, _, doc_id in _triples(triples)),
    )


def texts_in(paths: Iterable[Path]) -> Iterator[Located]:
    """The items of headerless `id<TAB>text` files. Raises LineError for a line without a tab and a broken id."""
    for path in paths:
        for number, raw in read_lines(path):
            where = f"{path}:{number}"
            item_id, tab, text = decode(raw, where).rstrip("\r\n").partition("\t")
            if not tab:
                raise LineError(where, "malformed line", f"expected an id, a tab and a text, got {item_id[:40]!r}")
            if fault := fault_of_id(item_id):
                raise LineError(where, "unusable id", fault)
            yield where, Item(id=item_id, text=text)


def _triples(paths: Sequence[Path]) -> Iterator[tuple[str, str, str, str]]:
    """(where, query_id, doc_id of the positive, doc_id of the negative) for each line."""
    for path in paths:
        for number, raw in read_lines(path):
            where = f"{path}:{number}"
            ids = re.split(r"[\t ]+", decode(raw, where).strip())
            if len(ids) != 3:
                raise LineError(where, "malformed line", f"expected the ids `query positive negative`, got {len(ids)}")
            yield where, ids[0], ids[1], ids[2]


def _positives(triples: Sequence[Path]) -> Iterator[tuple[str, str, str, int]]:
    for where, query_id, doc_id, _ in _triples(triples):
        yield where, query_id, doc_id, 1


FORMAT = FolderFormat(name="MS MARCO", recognises=recognises, read=read)
