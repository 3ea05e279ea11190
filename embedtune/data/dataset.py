"""Loads one split of a dataset folder (BEIR's layout). Other formats are converted once, into the cache."""

from __future__ import annotations

import dataclasses
import difflib
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from .. import __version__
from ..errors import InputError
from ..files import cache_folder, fingerprint_of, fingerprint_of_file, lock
from ..recipe import INCOMPLETE, JUDGED, REVERSED, Data, split_of, without_prefixes
from ..types import Dataset, Items, Qrels, Role
from .broken import broken, pictured
from .columns import UnclearColumns
from .documents import TextColumns, holds_documents
from .formats import is_dataset_folder
from .ids import absent
from .jsonl import JsonLines
from .mixture import mixture_of, own_qrels
from .selection import Selection
from .source_folder import is_archive
from .tables import rows_of
from .trec import EXCLUDED, read_excluded, read_qrels

LAYOUT = "corpus.jsonl, queries.jsonl and qrels/<split>.tsv"


def load_dataset(name: str | Path, split: str | None = None) -> Dataset:
    """Loads one split: `DIR` or `DIR:split`, `test` where none is named.

    `name` may also be a source that `embedtune data convert` reads (pairs in a .jsonl, .csv or .parquet file, a Hugging
    Face dataset saved on disk, `hf://name@revision`); it is converted once and kept in the cache. A file holds one
    split, that of the name. With `incomplete:` before the name the documents that are judged may be absent; with
    `reversed:` before that, the documents are the queries; with `judged:` before that, the corpus holds only the
    documents that the split judges. Raises InputError for a missing folder, file or split, an
    empty corpus, judgements of absent ids, and a split without a positive.
    """
    if str(name).startswith(JUDGED):
        dataset = judged_documents(load_dataset(str(name).removeprefix(JUDGED), split))
        return dataclasses.replace(dataset, name=f"{dataset.name}-judged")
    if str(name).startswith(REVERSED):
        rest = str(name).removeprefix(REVERSED)
        if rest.startswith(JUDGED):
            raise InputError(f"{name}: write {JUDGED}{REVERSED}{rest.removeprefix(JUDGED)}, in this order")
        return reverse(load_dataset(rest, split))
    incomplete = str(name).startswith(INCOMPLETE)
    source, named = split_of(str(name).removeprefix(INCOMPLETE))
    if named and split and named != split:
        raise InputError(f"{name}: names the split {named!r}, but {split!r} is asked for; name one of them")
    split = named or split or "test"
    folder, label = _folder_of(source, split)
    path = _qrels_file(folder, split, source)
    corpus, queries, qrels = JsonLines(folder / "corpus.jsonl"), JsonLines(folder / "queries.jsonl"), read_qrels(path)
    _refuse_empty(corpus, queries, qrels, folder, path)
    _refuse_absent(corpus, queries, qrels, path, incomplete)
    excluded = read_excluded(folder / EXCLUDED) if (folder / EXCLUDED).exists() else {}
    return Dataset(
        folder=folder,
        name=label,
        split=split,
        corpus=corpus,
        queries=queries,
        qrels=qrels,
        fingerprint=_fingerprint(corpus, queries, qrels, excluded),
        incomplete=incomplete,
        excluded=excluded,
    )


def load_training(data: Data) -> Dataset:
    """The data that a recipe trains on: each dataset with its own split (`DIR:split`), else `data.split`.

    Items with a broken image are left out, up to the share that `data.broken_images` allows.
    """
    names = [data.train] if isinstance(data.train, str) else data.train
    splits = [None if split_of(without_prefixes(name))[1] else data.split for name in names]
    loaded = [_without_absent(load_dataset(name, split)) for name, split in zip(names, splits, strict=True)]
    datasets = [without_broken(dataset, data.broken_images) for dataset in loaded]
    return datasets[0] if len(datasets) == 1 else mixture_of(datasets)


def _without_absent(dataset: Dataset) -> Dataset:
    """An incomplete dataset without the judgements of absent documents, which cannot be trained on."""
    if not dataset.incomplete:
        return dataset
    qrels = {
        query_id: {doc_id: grade for doc_id, grade in judged.items() if doc_id in dataset.corpus}
        for query_id, judged in dataset.qrels.items()
    }
    qrels = {query_id: judged for query_id, judged in qrels.items() if judged}
    fingerprint = _fingerprint(dataset.corpus, dataset.queries, qrels, dataset.excluded)
    return dataclasses.replace(dataset, qrels=qrels, fingerprint=fingerprint)


def load_texts(name: str | Path) -> tuple[Items, Items]:
    """A folder's corpus and queries, without judgements; without a queries.jsonl the corpus is both.

    Raises InputError for a folder without a corpus, and for an empty file.
    """
    folder = Path(name).expanduser()
    if not (folder / "corpus.jsonl").exists():
        raise InputError(f"{name}: expected a folder with corpus.jsonl")
    corpus = JsonLines(folder / "corpus.jsonl")
    queries = JsonLines(folder / "queries.jsonl") if (folder / "queries.jsonl").exists() else corpus
    for items, file in ((corpus, "corpus.jsonl"), (queries, "queries.jsonl")):
        if not len(items):
            raise InputError(f"{folder / file}: is empty")
    return corpus, queries


def load_to_encode(name: str) -> Dataset:
    """A dataset, or the documents of a file that holds nothing else."""
    path = Path(name).expanduser()
    if path.is_file() and not is_archive(path) and holds_documents(path):
        return load_documents(path)
    return load_dataset(name)


def load_documents(file: Path, columns: TextColumns | None = None) -> Dataset:
    """A file of documents, one a row, as a dataset without queries. Columns are found by name where none are given.

    Raises InputError for columns that do not show what they hold, and for a row without an id or a text.
    """
    corpus = _items_of(file, "document", columns or TextColumns())
    return Dataset(
        folder=file.parent,
        name=file.stem,
        split="test",
        corpus=corpus,
        queries=Selection(corpus, []),
        qrels={},
        fingerprint=corpus.fingerprint,
    )


def _items_of(file: Path, role: Role, columns: TextColumns) -> JsonLines:
    """The items of a file: read in it where it is the corpus or queries of a dataset, else converted into the cache."""
    from .convert import READERS, convert_items

    first = next(rows_of(file), None)
    if file.suffix == ".jsonl" and columns == TextColumns() and (first is None or "_id" in first[1]):
        return JsonLines(file)
    content = fingerprint_of_file(file)
    key = fingerprint_of(__version__, READERS, str(file.absolute()), content, role, repr(columns))
    folder = cache_folder() / "texts" / key
    with lock(folder.with_suffix(".lock")):
        if not folder.exists():
            with _naming_the_verb("index") if role == "document" else _naming_the_columns():
                notes = convert_items(file, folder, role, columns)
            for note in notes:
                logging.getLogger(__name__).warning(note)
    return JsonLines(folder / ("corpus.jsonl" if role == "document" else "queries.jsonl"))


def load_queries(name: str | Path) -> Items:
    """The queries of a file, all queries of a dataset folder, or those that one split judges (`DIR:split`).

    Raises InputError for a missing file or split, and where there is no query.
    """
    path = Path(name).expanduser()
    if path.is_dir() or path.is_file():
        file = path / "queries.jsonl"
        queries: Items = JsonLines(file) if path.is_dir() else _items_of(path, "query", TextColumns())
    else:
        dataset = load_dataset(name)
        queries = Selection(
            dataset.queries, [query_id for query_id in dataset.queries.ids if query_id in dataset.qrels]
        )
    if not len(queries):
        raise InputError(f"{path}: no queries")
    return queries


def reverse(dataset: Dataset) -> Dataset:
    """The dataset in the other direction: every judged document is a query for the queries that it is judged for."""
    qrels: Qrels = {}
    for query_id, judged in dataset.qrels.items():
        for doc_id, relevance in judged.items():
            if doc_id in dataset.corpus:
                qrels.setdefault(doc_id, {})[query_id] = relevance
    return dataclasses.replace(
        dataset,
        name=f"{dataset.name}-reversed",
        corpus=dataset.queries,
        queries=dataset.corpus,
        qrels=qrels,
        fingerprint=_fingerprint(dataset.queries, dataset.corpus, qrels),
        reversed=not dataset.reversed,
        excluded={},
    )


def judged_documents(dataset: Dataset) -> Dataset:
    """The dataset with only those documents that its split judges, in the corpus's order."""
    if dataset.judged_only:
        return dataset
    judged = {doc_id for documents in dataset.qrels.values() for doc_id in documents}
    corpus = Selection(dataset.corpus, [doc_id for doc_id in dataset.corpus.ids if doc_id in judged])
    fingerprint = fingerprint_of(dataset.fingerprint, "judged only")  # not to be compared with the whole
    return dataclasses.replace(dataset, corpus=corpus, fingerprint=fingerprint, judged_only=True)


def source_of(dataset: Dataset) -> str:
    """The name by which `load_dataset` finds the folder again, without the split."""
    prefixes = (JUDGED if dataset.judged_only else "") + (REVERSED if dataset.reversed else "")
    prefixes += INCOMPLETE if dataset.incomplete else ""
    return prefixes + str(dataset.folder.resolve())


def queries_file(source: str) -> Path:
    """The file that holds the queries of a dataset named as by `source_of`."""
    backwards = source.removeprefix(JUDGED).startswith(REVERSED)
    return Path(without_prefixes(source)) / ("corpus.jsonl" if backwards else "queries.jsonl")


def without_broken(dataset: Dataset, share: float) -> Dataset:
    """The dataset without the items whose image cannot be read and without their judgements, named in `left_out`.

    Raises InputError where more than `share` of the images are broken, or where no positive is left.
    """
    corpus, lost_documents = readable(dataset.corpus, share, f"{dataset.folder}: corpus")
    queries, lost_queries = readable(dataset.queries, share, f"{dataset.folder}: queries")
    left_out = (*lost_documents, *lost_queries)
    if not left_out:
        return dataset
    qrels = {
        query_id: {doc_id: grade for doc_id, grade in judged.items() if doc_id in corpus}
        for query_id, judged in dataset.qrels.items()
        if query_id in queries
    }
    if not any(grade > 0 for judged in qrels.values() for grade in judged.values()):
        raise InputError(f"{dataset.folder}: no positive is left without the broken images, first {left_out[0]}")
    fingerprint = _fingerprint(corpus, queries, qrels, dataset.excluded)
    return dataclasses.replace(
        dataset, corpus=corpus, queries=queries, qrels=qrels, fingerprint=fingerprint, left_out=left_out
    )


def readable(items: Items, share: float, name: str) -> tuple[Items, tuple[str, ...]]:
    """The items whose image, if any, can be read, and a sentence for each of the others.

    Raises InputError, which begins with `name`, where more than `share` of the images are broken.
    """
    faults = broken(items)
    if not faults:
        return items, ()
    sentences = tuple(f"{items[item_id].image}: {reason}" for item_id, reason in faults.items())
    total, broken_ones = pictured(items), len(sentences)
    if broken_ones > share * total:
        raise InputError(
            f"{name}: {broken_ones:,} of {total:,} images are broken ({broken_ones / total:.1%}), more than the "
            f"{share:.1%} that broken_images allows; the first: {sentences[0]}"
        )
    return Selection(items, [item_id for item_id in items.ids if item_id not in faults]), sentences


def subset(dataset: Dataset, query_ids: Collection[str]) -> Dataset:
    """The dataset with the judgements of these queries only. Corpus and queries stay the same."""
    qrels = {query_id: dataset.qrels[query_id] for query_id in query_ids}
    fingerprint = _fingerprint(dataset.corpus, dataset.queries, qrels, dataset.excluded)
    parts = tuple(subset(part, part_qrels) for part in dataset.parts if (part_qrels := own_qrels(qrels, part.label)))
    return dataclasses.replace(dataset, qrels=qrels, fingerprint=fingerprint, parts=parts)


def splits_of(folder: Path) -> list[str]:
    """The names of a dataset folder's splits."""
    return sorted(file.stem for file in (folder / "qrels").glob("*.tsv"))


def _fingerprint(
    corpus: Items, queries: Items, qrels: Qrels, excluded: Mapping[str, Collection[str]] | None = None
) -> str:
    judged = sorted(f"{q}\t{d}\t{relevance}" for q, documents in qrels.items() for d, relevance in documents.items())
    judged += sorted(f"{q}\t{d}" for q, documents in (excluded or {}).items() for d in documents)
    return fingerprint_of(corpus.fingerprint, queries.fingerprint, *judged)


def _folder_of(source: str, split: str) -> tuple[Path, str]:
    """The folder of a dataset, or of its conversion, and the dataset's name."""
    from .convert import fingerprint_of_source, is_hub_name, label_of

    path = Path(source).expanduser()
    if not is_hub_name(source) and not path.exists():
        raise InputError(_missing(path))
    if is_dataset_folder(path):
        return path, path.resolve().name
    label = source.rpartition("/")[2].partition("@")[0] if is_hub_name(source) else label_of(path)
    folder = cache_folder() / "datasets" / fingerprint_of(fingerprint_of_source(source), split)
    _convert_once(folder, source, split)
    return folder, label


def _convert_once(folder: Path, source: str, split: str) -> None:
    from .convert import convert

    # Several processes of one run load the same data: the first converts, the others wait for it.
    with lock(folder.with_suffix(".lock")):
        if not folder.exists():
            with _naming_the_verb("data convert"):
                converted = convert(source, folder, split=split, image_files=False)
            for note in converted.notes:
                logging.getLogger(__name__).warning(note)


@contextmanager
def _naming_the_verb(verb: str) -> Iterator[None]:
    """Adds the verb that takes the flags to an error that asks for them."""
    try:
        yield
    except UnclearColumns as error:
        raise InputError(f"{error} (flags of `embedtune {verb}`)") from None


@contextmanager
def _naming_the_columns() -> Iterator[None]:
    """Replaces the flags in an error about a file of queries: the verbs that read one have none."""
    try:
        yield
    except UnclearColumns as error:
        problem = str(error).rpartition("; ")[0]
        raise InputError(f"{problem}; call the column of the queries query, and that of their ids query_id") from None


def _missing(path: Path) -> str:
    siblings = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = _nearest(path.name, siblings) or f"expected a folder with {LAYOUT}"
    return f"{path}: no such file or folder; {hint}"


def _nearest(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else ""


def _qrels_file(folder: Path, split: str, source: str) -> Path:
    path, splits = folder / "qrels" / f"{split}.tsv", splits_of(folder)
    if not splits:
        raise InputError(f"{source}: no splits; expected judgements in {folder / 'qrels'}/<split>.tsv")
    if split not in splits:
        hint = _nearest(split, splits) or (
            f"write {source}:{splits[0]}" if len(splits) == 1 and ":" not in source else ""
        )
        raise InputError(f"{source}: no split {split!r}; it has {', '.join(splits)}" + (f"; {hint}" if hint else ""))
    return path


def _refuse_empty(corpus: Items, queries: Items, qrels: Qrels, folder: Path, path: Path) -> None:
    if not len(corpus):
        raise InputError(f"{folder / 'corpus.jsonl'}: no documents")
    if not len(queries):
        raise InputError(f"{folder / 'queries.jsonl'}: no queries")
    if not any(relevance > 0 for judged in qrels.values() for relevance in judged.values()):
        raise InputError(f"{path}: no positive; every split needs judgements above 0")


def _refuse_absent(corpus: Items, queries: Items, qrels: Qrels, path: Path, incomplete: bool) -> None:
    """Judgements of absent queries or documents would make every measure wrong without a word."""
    absent_queries = absent(qrels, queries.ids)
    absent_documents = absent(chain.from_iterable(qrels.values()), corpus.ids)
    advice = f"run `embedtune data check {path.parent.parent}`"
    on = f"; to go on as BEIR and mteb do, which count them as never retrieved, write {INCOMPLETE} before the dataset"
    for kind, missing, file in (("queries", absent_queries, "queries"), ("documents", absent_documents, "corpus")):
        if missing and not (incomplete and kind == "documents"):
            raise InputError(
                f"{path}: {len(missing)} judged {kind} are not in {file}.jsonl, the first {missing[0]!r}; "
                + advice
                + (on if kind == "documents" else "")
            )
