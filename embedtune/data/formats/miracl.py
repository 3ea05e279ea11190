"""One language of MIRACL. https://github.com/project-miracl/miracl, https://huggingface.co/datasets/miracl/miracl"""

from __future__ import annotations

from ...errors import InputError
from ..contents import Contents, items_of, judgements_in, rows_in
from ..image_columns import ImageFiles
from ..source_folder import SourceFolder
from . import FolderFormat
from .msmarco import texts_in

_NAMED = r"(?P<language>[\w]+)-(?P<split>train|dev|test[\w-]*)\.tsv"
_TOPICS, _QRELS = (rf"(.*/)?{role}\.miracl-v[\d.]+-{_NAMED}" for role in ("topics", "qrels"))
_CORPUS = r"(.*/)?docs-\d+\.jsonl(\.gz)?"


def recognises(folder: SourceFolder) -> bool:
    languages = _languages(folder)
    return bool(languages) and bool(folder.find(_TOPICS) and folder.find(_QRELS) and folder.find(_CORPUS))


def read(folder: SourceFolder, split: str, images: ImageFiles) -> Contents:
    """`topics.*.tsv`, `qrels.*.tsv` and the corpus `docs-N.jsonl.gz`, anywhere in the folder, of one language.

    A test split has no qrels, so that its topics are written as queries without judgements.
    """
    if len(languages := _languages(folder)) > 1:
        listed = ", ".join(languages)
        raise InputError(f"{folder.root}: topics and judgements of several languages ({listed}); keep those of one")
    return Contents(
        documents=items_of(rows_in(folder.paths(_CORPUS)), ids=("docid",)),
        queries=texts_in(folder.paths(_TOPICS)),
        judgements={match["split"]: judgements_in([folder.path(match)]) for match in folder.find(_QRELS)},
    )


def _languages(folder: SourceFolder) -> list[str]:
    return sorted({match["language"] for match in (*folder.find(_TOPICS), *folder.find(_QRELS))})


FORMAT = FolderFormat(name="MIRACL", recognises=recognises, read=read)
