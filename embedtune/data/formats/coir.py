"""A task of CoIR in two repositories, NAME-queries-corpus and NAME-qrels. https://github.com/CoIR-team/coir"""

from __future__ import annotations

from pathlib import Path

from ..contents import Contents, items_of, judgements_in, rows_in
from ..image_columns import ImageFiles
from ..source_folder import SourceFolder
from . import FolderFormat

_TEXTS = r"(?P<task>[^/]+)-queries-corpus/(data/)?(?P<role>queries|corpus)(-\d+-of-\d+)?\.(parquet|jsonl)"
_QRELS = r"(?P<task>[^/]+)-qrels/(data/)?(?P<split>\w+?)(-\d+-of-\d+)?\.(parquet|jsonl)"


def recognises(folder: SourceFolder) -> bool:
    """Whether there are both repositories of one task."""
    tasks = {match["task"] for match in (*folder.find(_TEXTS), *folder.find(_QRELS))}
    return len(tasks) == 1 and {match["role"] for match in folder.find(_TEXTS)} == {"queries", "corpus"}


def read(folder: SourceFolder, split: str, images: ImageFiles) -> Contents:
    """The corpus and queries (`_id`, `title`, `text`) and the judgements (`query_id`, `corpus_id`, `score`)."""
    texts = {
        role: [folder.path(match) for match in folder.find(_TEXTS) if match["role"] == role]
        for role in ("corpus", "queries")
    }
    judged: dict[str, list[Path]] = {}
    for match in folder.find(_QRELS):
        judged.setdefault(match["split"], []).append(folder.path(match))
    return Contents(
        documents=items_of(rows_in(texts["corpus"]), images),
        queries=items_of(rows_in(texts["queries"]), images),
        judgements={name: judgements_in(paths) for name, paths in judged.items()},
    )


FORMAT = FolderFormat(name="CoIR", recognises=recognises, read=read)
