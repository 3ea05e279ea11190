"""What a published dataset holds, read from rows: documents, queries, judgements. The writer writes it as a folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..types import Item
from .columns import TEXT, key
from .image_columns import ImageFiles
from .jsonl import LineError, decode, id_in, read_lines
from .records import Row, texts
from .tables import FORMS, OnFault, raise_fault, rows_of, suffix_of
from .trec import judgements

_OTHER_TEXTS = (*TEXT[0], *TEXT[1])
_ID = ("_id", "id", "docid")
_QUERY_ID, _DOC_ID = ("query-id", "query_id"), ("corpus-id", "corpus_id")

Located = tuple[str, Item]
"""Where an item stands (`file:line`), and the item."""
Judgement = tuple[str, str, str, int]
"""Where a judgement stands, query_id, doc_id, relevance."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The contents of a dataset under its own ids.

    judgements: split -> judgements. negatives: (query_id, doc_id) given as negatives, best first. excluded: (query_id,
    doc_id) that are never ranked. instructions: query_id -> the instruction of a query that stands without one.
    """

    documents: Iterable[Located]
    queries: Iterable[Located]
    judgements: Mapping[str, Iterable[Judgement]]
    negatives: Iterable[tuple[str, str]] = ()
    excluded: Iterable[tuple[str, str]] = ()
    instructions: Mapping[str, str] = field(default_factory=dict)


def rows_in(paths: Sequence[Path]) -> Iterator[Row]:
    for path in paths:
        yield from rows_of(path)


def items_of(
    rows: Iterable[Row], images: ImageFiles | None = None, *, ids: Sequence[str] = _ID, text: str = "text"
) -> Iterator[Located]:
    """The rows as items: an id, `title`, the text, `image` and `instruction`.

    ids: the columns that may hold the id; the first that a row has does. Raises LineError for a row without an id and
    for a field that is no text.
    """
    for where, values in rows:
        item_id = _first_id(values, ids, where)
        if not item_id:
            raise LineError(where, "missing id", f'no "{ids[0]}"; every row needs one')
        if text not in values and (others := [name for name in values if key(name) in _OTHER_TEXTS]):
            raise LineError(
                where, "missing text", f'no "{text}", but {", ".join(map(repr, others))}; rename the column'
            )
        title, content = ("".join(texts((where, values), name)) for name in ("title", text))
        instruction = "".join(texts((where, values), "instruction")) or None
        image = next(images.of((where, values), "image"), None) if images is not None else None
        yield where, Item(id=item_id, title=title, text=content, image=image, instruction=instruction)


def judgements_of(rows: Iterable[Row]) -> Iterator[Judgement]:
    """Rows of `query-id`, `corpus-id` and `score` as judgements; in rows without a score column the relevance is 1.

    Raises LineError for a row without ids, and for a score that is no whole number.
    """
    for where, values in rows:
        query_id, doc_id = (_first_id(values, keys, where) for keys in (_QUERY_ID, _DOC_ID))
        score = _whole(values.get("score", 1))
        if not query_id or not doc_id or score is None:
            expected = 'expected "query-id", "corpus-id" and a whole "score"'
            raise LineError(where, "malformed line", f"{expected}, got {values}")
        yield where, query_id, doc_id, score


def _whole(score: Any) -> int | None:
    """A relevance, also as CSV has it; None for what is no whole number."""
    try:
        return int(float(score)) if not isinstance(score, bool) and float(score).is_integer() else None
    except (TypeError, ValueError):
        return None


def _first_id(values: dict[str, Any], keys: Sequence[str], where: str) -> str:
    """The id under the first of the keys that a row has, or ""."""
    return next(filter(None, (id_in(values, key, where) for key in keys)), "")


def ids_in(rows: Iterable[Row], column: str, query_key: str) -> Iterator[tuple[str, str, str]]:
    """(where, query_id, doc_id) for each id in a column of lists. Raises LineError for a row without a query's id."""
    for where, values in rows:
        listed, query_id = values.get(column) or [], id_in(values, query_key, where)
        if not query_id or not isinstance(listed, list):
            expected = f"expected {query_key!r} and a list of ids {column!r}"
            raise LineError(where, "malformed line", f"{expected}, got {str(listed)[:40]}")
        for doc_id in listed:
            yield where, query_id, id_in({column: doc_id}, column, where)


def positives_in(rows: Iterable[Row], column: str, query_key: str) -> Iterator[Judgement]:
    """A judgement of relevance 1 for each id in a column of lists."""
    for where, query_id, doc_id in ids_in(rows, column, query_key):
        yield where, query_id, doc_id, 1


def judgements_in(paths: Sequence[Path], on_fault: OnFault = raise_fault) -> Iterator[Judgement]:
    """The judgements of files: tables, and others as TREC and BEIR write them."""
    for path in paths:
        if _is_text(path):
            yield from ((f"{path}:{number}", q, d, relevance) for number, q, d, relevance in judgements(path, on_fault))
        else:
            yield from judgements_of(rows_of(path, on_fault))


def holds_judgements(path: Path) -> bool:
    """Whether the first line or row is a judgement or its header: query-id, corpus-id, perhaps a score; or TREC's 4."""
    if _is_text(path):
        fields = next((decode(raw, str(path)).split() for _, raw in read_lines(path)), [])
        if len(fields) == 4 and fields[1] in ("0", "Q0"):
            return fields[3].lstrip("-").isdecimal()
    else:
        fields = list(next(rows_of(path), ("", {}))[1])
    return {"query_id", "corpus_id"} <= set(map(key, fields)) <= {"query_id", "corpus_id", "score"}


def _is_text(path: Path) -> bool:
    return suffix_of(path) == ".tsv" or suffix_of(path) not in FORMS


def chosen_split(source: str | Path, split: str, splits: Iterable[str]) -> str:
    """`split`, of a source whose splits are datasets of their own. Raises InputError where it is none of them."""
    known = sorted(splits)
    if split not in known:
        listed = ", ".join(known)
        raise InputError(
            f"{source}: its parts are datasets of their own ({listed}); name one: {source}:{known[0]}, or with "
            "`embedtune data convert` --split"
        )
    return split
