"""What the columns of a file hold, by their names and first cells; the one line that asks where they do not show it."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from typing import Any

from ..errors import InputError, unknown
from .image_columns import holds_images
from .records import Row

# A name of the first tuple is the role's own; one of the second counts only where no other column has one.
QUERY = (
    ("query", "anchor"),
    ("question", "query_text", "question_text", "search_query", "premise", "sentence1", "sentence_1", "sentence_a",
     "question1", "text1", "caption"),
)  # fmt: skip
POSITIVE = (
    ("positive", "positives", "pos", "positive_passage", "positive_document", "positive_text"),
    ("document", "documents", "doc", "docs", "answer", "answers", "passage", "passages", "context", "response", "text",
     "texts", "article", "content", "body", "hypothesis", "sentence2", "sentence_2", "sentence_b", "question2", "text2",
     "document_text", "passage_text", "answer_text"),
)  # fmt: skip
TITLE = (("title",), ("headline", "heading"))
TEXT = (("text",), ("body", "content", "contents", "passage", "document", "article", "abstract", "description"))
LABEL = (
    ("label", "labels"),
    ("gold_label", "relevance", "relevant", "is_relevant", "is_duplicate", "score", "scores", "similarity",
     "similarity_score", "grade", "rating", "relatedness_score"),
)  # fmt: skip
QUERY_ID = (("query_id", "query_ids"), ("qid", "question_id", "anchor_id"))
DOCUMENT_ID = (
    ("doc_id", "docid", "document_id", "corpus_id", "positive_id", "positive_doc_id", "positive_document_id"),
    ("docno", "passage_id", "pid", "article_id", "positive_ids", "doc_ids", "document_ids", "positive_document_ids"),
)
SPLIT = "split"
SPLITS = ("train", "training", "dev", "development", "validation", "valid", "val", "test", "testing", "eval")
NEGATIVE = re.compile(r"(hard_)?neg(ative)?s?(_(text|document|passage|image|doc_id|document_id|id)s?)?(_?\d+)?")

_ID_NAME = re.compile(
    r"(.*_)?(id|ids|no|nr|num|number|key|uuid|guid|url|urls|uri|link|href|hash|doi|isbn|index|idx|row|column_\d+)"
    r"|(doc|q|p|a|u|s|c)ids?|docno"
)
_ID_TEXT = re.compile(r"\w+://\S+|(?=.*\d)[A-Za-z0-9_.:/#+=%?&~,@()\[\]-]+")
ID_SHARE = 0.9  # of a column's cells: above it they are taken for ids
_WORDS_OF_NAME = 4  # a longer name of a column is a text of a file without names
_PROSE = 3  # words a cell on average: below it a column without a known name is not taken for texts


def key(name: str) -> str:
    """A column's name in lower case, its words joined by `_`."""
    return re.sub(r"[\W_]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)).strip("_").lower()


def named_as_id(name: str) -> bool:
    """Whether a column is named as ids, numbers or URLs are."""
    return bool(_ID_NAME.fullmatch(key(name)))


def looks_like_id(text: str) -> bool:
    """Whether a text is a URL, or one word of ASCII with a digit in it."""
    return bool(_ID_TEXT.fullmatch(text.strip()))


class UnclearColumns(InputError):
    """Columns that do not show what they hold; the message names the flags that say it."""


class FirstRows:
    """The first rows of a file, and what they show of its columns. names: without those that are to be ignored."""

    def __init__(self, source: str, rows: Sequence[Row], ignored: Container[str] = ()) -> None:
        self.source, self.rows = source, rows
        self.every = list(dict.fromkeys(name for _, values in rows for name in values))
        self.names = [name for name in self.every if name not in ignored]
        self.pictured = [name for name in self.names if holds_images([values.get(name) for _, values in rows])]

    @property
    def unnamed(self) -> bool:
        """Whether the names look like cells of a file whose first line names no columns."""
        return any(len(name.split()) > _WORDS_OF_NAME or _is_number(name) for name in self.every)

    def cells(self, name: str) -> list[Any]:
        """A column's cells that are not empty; the entries of lists."""
        cells = [values.get(name) for _, values in self.rows]
        return [one for cell in cells for one in (cell if isinstance(cell, list) else [cell]) if one not in (None, "")]

    def require(self, names: Iterable[str]) -> None:
        """Raises InputError for a column that is absent."""
        for name in names:
            if name and name not in self.every:
                raise InputError(f"{self.source}: {unknown('column', name, self.every)}")

    def named(self, role: tuple[tuple[str, ...], tuple[str, ...]], flag: str, taken: Container[str] = ()) -> str:
        """The column of a role by its name, or "". Raises InputError where several names fit and none is its own."""
        free = [name for name in self.names if name not in taken]
        for known in role:
            fitting = [name for name in free if key(name) in known]
            if len(fitting) == 1:
                return fitting[0]
            if fitting:
                raise self.ask(f"{' and '.join(map(repr, fitting))} may both be meant", flag)
        return ""

    def is_text(self, name: str) -> bool:
        """Whether a column holds texts (or images) and neither numbers, ids nor URLs."""
        return name in self.pictured or (self.holds_text(name) and not self.holds_ids(name))

    def holds_text(self, name: str) -> bool:
        """Whether a column's cells are strings and not all numbers: in CSV a score is a string too."""
        cells = self.cells(name)
        return bool(cells) and all(isinstance(cell, str) for cell in cells) and not all(map(_is_number, cells))

    def holds_ids(self, name: str) -> bool:
        """Whether a column is named as ids are, or nearly all of its cells look like ids."""
        return named_as_id(name) or self.looks_like_ids(name)

    def is_unique_id(self, name: str) -> bool:
        """Whether a column is named as ids are and has another one in each of the first rows."""
        cells = [str(values.get(name)) for _, values in self.rows]
        return named_as_id(name) and len(set(cells)) == len(cells) and "://" not in cells[0]

    def looks_like_ids(self, name: str) -> bool:
        cells = [str(cell) for cell in self.cells(name)]
        return bool(cells) and sum(map(looks_like_id, cells)) >= ID_SHARE * len(cells)

    def is_prose(self, name: str) -> bool:
        cells = [cell for cell in self.cells(name) if isinstance(cell, str)]
        return name in self.pictured or sum(len(cell.split()) for cell in cells) >= _PROSE * max(1, len(cells))

    def ask(self, problem: str, flags: str) -> UnclearColumns:
        """The line that asks for flags, with the first row."""
        values = self.rows[0][1]
        shown = ", ".join(f"{name}={_shortened(values.get(name))}" for name in self.every[:8])
        more = f" and {len(self.every) - 8} more columns" if len(self.every) > 8 else ""
        header = " (the first line names the columns; here it looks like a row)" if self.unnamed else ""
        return UnclearColumns(f"{self.source}: {problem}{header}; the first row is {shown}{more}; {flags}")


def _shortened(cell: Any) -> str:
    text = " ".join(repr(cell).split())
    return text if len(text) <= 40 else f"{text[:36]}...{text[-1]}"


def _is_number(text: object) -> bool:
    try:
        float(str(text))
    except ValueError:
        return False
    return True
