"""One set of LoTTE, such as writing/test. https://github.com/stanford-futuredata/ColBERT/blob/main/LoTTE.md"""

from __future__ import annotations

from ..contents import Contents, chosen_split, positives_in
from ..image_columns import ImageFiles
from ..source_folder import SourceFolder
from ..tables import rows_of
from . import FolderFormat
from .msmarco import texts_in

_ANSWERS = r"qas\.(?P<split>\w+)\.jsonl"


def recognises(folder: SourceFolder) -> bool:
    return bool(folder.find(r"collection\.tsv") and folder.find(_ANSWERS))


def read(folder: SourceFolder, split: str, images: ImageFiles) -> Contents:
    """The split `search` or `forum`: `collection.tsv`, `questions.SPLIT.tsv` and the `answer_pids` of qas.SPLIT.jsonl.

    The two kinds of questions are numbered alike, from 0, so that one folder holds one kind.
    """
    answers = {match["split"]: folder.path(match) for match in folder.find(_ANSWERS)}
    chosen_split(folder.root, split, answers)
    return Contents(
        documents=texts_in(folder.paths(r"collection\.tsv")),
        queries=texts_in(folder.paths(rf"questions\.{split}\.tsv")),
        judgements={split: positives_in(rows_of(answers[split]), "answer_pids", "qid")},
    )


FORMAT = FolderFormat(name="LoTTE", recognises=recognises, read=read)
