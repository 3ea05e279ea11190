"""BEIR's layout as downloaded, as hub snapshots have it, and as saved with `save_to_disk`; mteb's and NanoBEIR's too.

https://github.com/beir-cellar/beir (corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv); https://huggingface.co/mteb
(parquet, or qrels/SPLIT.jsonl; also `instruction` and `top_ranked`);
https://huggingface.co/datasets/sentence-transformers/NanoBEIR-en (a split of each table is a dataset; no scores).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from .. import huggingface
from ..contents import Contents, Judgement, chosen_split, items_of, judgements_in, judgements_of, rows_in
from ..image_columns import ImageFiles
from ..records import Row
from ..source_folder import SourceFolder
from . import FolderFormat

_QRELS = ("qrels", "default")
_ROOT_QRELS = r"(?P<split>train|dev|validation|val|test)\.(tsv|jsonl)"  # as in the hub's NAME-qrels repositories
_DATA_QRELS = r"data/(?!corpus|queries)(?P<split>\w+?)(-\d+-of-\d+)?\.parquet"


def recognises(folder: SourceFolder) -> bool:
    return all(_holds(folder, role) for role in ("corpus", "queries")) and (
        any(_holds(folder, role) for role in _QRELS) or bool(folder.find(_ROOT_QRELS) or folder.find(_DATA_QRELS))
    )


def read(folder: SourceFolder, split: str, images: ImageFiles) -> Contents:
    """The contents of all splits; of one where each split has a corpus of its own."""
    roles = {role: _rows(folder, role) for role in ("corpus", "queries", "instruction")}
    return contents(roles, _judgements(folder, split), split, str(folder.root), images)


def of_tables(tables: Mapping[str, huggingface.Table], split: str, source: str, images: ImageFiles) -> Contents | None:
    """The contents of a retrieval set of the hub or of a saved one, by its tables; None for any other set.

    Tables are named by role (corpus, queries, instruction; others are splits of judgements), or `configuration/split`.
    A table without the columns of judgements, such as `top_ranked` and `bm25`, is not read.
    """
    roles: dict[str, dict[str, Iterator[Row]]] = {"corpus": {}, "queries": {}, "instruction": {}}
    qrels: dict[str, Iterator[Judgement]] = {}
    for name, table in tables.items():
        role, _, part = name.partition("/")
        rows = huggingface.rows_of(table, f"{source} ({name})")
        if role in roles:
            roles[role][part] = rows
        elif {"query-id", "query_id"} & set(table.column_names) and {"corpus-id", "corpus_id"} & set(
            table.column_names
        ):
            qrels[part or role] = judgements_of(rows)
    if not (roles["corpus"] and roles["queries"]):
        return None
    return contents(roles, qrels, split, source, images)


def contents(
    roles: Mapping[str, Mapping[str, Iterable[Row]]],
    qrels: Mapping[str, Iterable[Judgement]],
    split: str,
    source: str,
    images: ImageFiles,
) -> Contents:
    """The contents of tables, role -> split -> rows. Where each split has a corpus of its own, those of `split`."""
    corpus, queries = roles["corpus"], roles["queries"]
    if len(corpus) > 1:
        chosen_split(source, split, corpus.keys() & queries.keys() & qrels.keys())
        corpus, queries, qrels = {split: corpus[split]}, {split: queries[split]}, {split: qrels[split]}
    instructions = chain.from_iterable(roles["instruction"].values())
    return Contents(
        documents=items_of(chain.from_iterable(corpus.values()), images),
        queries=items_of(chain.from_iterable(queries.values()), images),
        judgements=qrels,
        instructions={str(values.get("query-id")): str(values.get("instruction") or "") for _, values in instructions},
    )


def _holds(folder: SourceFolder, role: str) -> bool:
    return bool(folder.tables(role) or _saved(folder, role))


def _saved(folder: SourceFolder, role: str) -> bool:
    return bool(folder.find(rf"{role}/dataset_(info|dict)\.json"))


def _rows(folder: SourceFolder, role: str) -> dict[str, Iterator[Row]]:
    """split -> the rows of a role. A table without splits has the split ""."""
    if _saved(folder, role):
        source = str(folder.root / role)
        tables = huggingface.open_tables(source, "")
        return {name: huggingface.rows_of(table, f"{source} ({name or role})") for name, table in tables.items()}
    return {name: rows_in(paths) for name, paths in folder.tables(role).items()}


def _judgements(folder: SourceFolder, split: str) -> dict[str, Iterator[Judgement]]:
    """split -> judgements; those without a split are of `split`."""
    for role in _QRELS:
        if _saved(folder, role):
            return {name or split: judgements_of(rows) for name, rows in _rows(folder, role).items()}
        if tables := folder.tables(role):
            return {name or split: judgements_in(paths) for name, paths in tables.items()}
    files: dict[str, list[str]] = {}
    for match in folder.find(_ROOT_QRELS) or folder.find(_DATA_QRELS):
        files.setdefault(match["split"], []).append(match.string)
    return {part: judgements_in([folder.root / name for name in names]) for part, names in files.items()}


FORMAT = FolderFormat(name="BEIR, mteb, NanoBEIR", recognises=recognises, read=read)
