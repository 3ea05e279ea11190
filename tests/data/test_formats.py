"""Published layouts, each built small and whole: what is read of them, and what is refused in one line."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from embedtune.data import formats
from embedtune.data.check import check
from embedtune.data.convert import convert
from embedtune.data.dataset import load_dataset
from embedtune.data.documents import TextFiles
from embedtune.data.pairs import Columns
from embedtune.data.trec import read_excluded, read_run
from embedtune.errors import InputError

CORPUS = [{"_id": "d1", "title": "Rivers", "text": "flow"}, {"_id": "d2", "title": "", "text": "stone"}]
QUERIES = [{"_id": "q1", "text": "what flows"}, {"_id": "q2", "text": "what is hard"}]
QRELS = [{"query-id": "q1", "corpus-id": "d1", "score": 2}, {"query-id": "q2", "corpus-id": "d2", "score": 1}]
JUDGED = {"q1": {"d1": 2}, "q2": {"d2": 1}}
PAIRS = [{"query-id": "q1", "corpus-id": "d1"}, {"query-id": "q2", "corpus-id": "d2"}]
TSV = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq2\td2\t1\n"

Rows = list[dict[str, Any]]


def lines(rows: Rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def parquet(rows: Rows) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet as file

    buffer = io.BytesIO()
    file.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def folder(root: Path, files: Mapping[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def contents(dataset: str | Path, split: str | None = None) -> tuple[dict[str, str], dict[str, str], dict[str, Any]]:
    """The documents and the queries by id, and the judgements, as training and evaluation read the source."""
    loaded = load_dataset(dataset, split)
    documents = {item.id: item.content for item in loaded.corpus}
    return documents, {item.id: item.content for item in loaded.queries}, loaded.qrels


AS_BEIR = ({"d1": "Rivers flow", "d2": "stone"}, {"q1": "what flows", "q2": "what is hard"}, JUDGED)
BEIR_FILES = {"corpus.jsonl": lines(CORPUS), "queries.jsonl": lines(QUERIES), "qrels/test.tsv": TSV}


@pytest.mark.parametrize(
    "files",
    [
        pytest.param(
            {"corpus.jsonl.gz": gzip.compress(lines(CORPUS)), "queries.jsonl.gz": gzip.compress(lines(QUERIES)),
             "qrels/test.tsv": TSV, "README.md": "words"}, id="the hub's jsonl.gz"),
        pytest.param(
            {"corpus.jsonl.gz": gzip.compress(lines(CORPUS)), "queries.jsonl.gz": gzip.compress(lines(QUERIES)),
             "test.tsv": TSV}, id="qrels of a repository of their own"),
        pytest.param(
            {"corpus.jsonl": lines(CORPUS), "queries.jsonl": lines(QUERIES), "qrels/test.jsonl": lines(QRELS)},
            id="mteb's jsonl qrels"),
        pytest.param(
            {"corpus/corpus-00000-of-00002.parquet": parquet(CORPUS[:1]),
             "corpus/corpus-00001-of-00002.parquet": parquet(CORPUS[1:]),
             "queries/queries-00000-of-00001.parquet": parquet(QUERIES),
             "data/test-00000-of-00001.parquet": parquet(QRELS)}, id="parquet shards, judgements in data"),
        pytest.param(
            {"corpus/test-00000-of-00001.parquet": parquet(CORPUS),
             "queries/test-00000-of-00001.parquet": parquet(QUERIES),
             "qrels/test-00000-of-00001.parquet": parquet(QRELS)}, id="parquet with a split everywhere"),
        pytest.param(
            {"data/corpus-00000-of-00001.parquet": parquet(CORPUS),
             "data/queries-00000-of-00001.parquet": parquet(QUERIES),
             "default/test-00000-of-00001.parquet": parquet(QRELS)}, id="parquet in data, judgements in default"),
        pytest.param(
            {"cosqa-queries-corpus/data/corpus-00000-of-00001.parquet": parquet(CORPUS),
             "cosqa-queries-corpus/data/queries-00000-of-00001.parquet": parquet(QUERIES),
             "cosqa-qrels/data/test-00000-of-00001.parquet":
                 parquet([{"query_id": "q1", "corpus_id": "d1", "score": 2},
                          {"query_id": "q2", "corpus_id": "d2", "score": 1}])}, id="CoIR in two repositories"),
    ],
)  # fmt: skip
def test_beir_as_downloaded(tmp_path: Path, files: dict[str, bytes | str]) -> None:
    assert contents(folder(tmp_path / "set", files)) == AS_BEIR


def test_three_saved_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    parts = {"test": datasets.Dataset.from_list(QRELS)}
    datasets.Dataset.from_list(CORPUS).save_to_disk(tmp_path / "set/corpus")
    datasets.Dataset.from_list(QUERIES).save_to_disk(tmp_path / "set/queries")
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "set/qrels")
    assert contents(tmp_path / "set") == AS_BEIR


def zipped(path: Path, files: Mapping[str, bytes | str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, files: Mapping[str, bytes | str]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            data = content.encode() if isinstance(content, str) else content
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_beir_in_an_archive(tmp_path: Path, pack: Callable[..., Path]) -> None:
    files = {f"scifact/{name}": content for name, content in BEIR_FILES.items()} | {"__MACOSX/._a": b"", ".b": b""}
    path = pack(tmp_path / ("set.zip" if pack is zipped else "set.tar.gz"), files)
    assert contents(path) == AS_BEIR
    assert load_dataset(path).name == "set"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_the_check_of_a_download_says_what_to_convert(tmp_path: Path) -> None:
    source = folder(tmp_path / "a", {"collection.tsv": "", "questions.search.tsv": "", "qas.search.jsonl": ""})
    with pytest.raises(InputError, match=r"a: has the files of LoTTE; check the folder that `embedtune data convert"):
        check(source)


def link(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(member)
    return buffer.getvalue()


def packed(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.zip", packed("../corpus.jsonl", b""), "'../corpus.jsonl' leaves the archive's folder"),
        ("a.zip", packed("/corpus.jsonl", b""), "'/corpus.jsonl' leaves the archive's folder"),
        ("a.zip", packed("corpus.jsonl", bytes(1 << 25)), "grows far beyond its size when it is unpacked"),
        ("a.tgz", link("corpus.jsonl"), "'corpus.jsonl' is no regular file; links in archives are not followed"),
        ("a.zip", b"PK", "cannot be unpacked: File is not a zip file"),
        ("a.tar.gz", b"\x1f\x8b", "cannot be unpacked: "),
        ("a.zip", packed("notes.txt", b"a"), "neither a dataset folder (no corpus.jsonl) nor a Hugging Face dataset"),
    ],
)
def test_an_archive_that_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        convert(tmp_path / name, tmp_path / "out")
    assert str(caught.value).startswith(f"{tmp_path / name}: {message}")
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_link_out_of_the_folder_is_not_read(tmp_path: Path) -> None:
    outside = tmp_path / "secret.tsv"
    outside.write_text("1\tsecret\n")
    source = folder(tmp_path / "set", {"queries.tsv": "q1\tone\n", "qrels.tsv": "q1\t0\td1\t1\n"})
    (source / "collection.tsv").symlink_to(outside)
    with pytest.raises(InputError, match=r"collection\.tsv: is a link out of .*set; copy the file into the folder$"):
        convert(source, tmp_path / "out")


def test_the_links_of_a_hub_snapshot_are_read(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots/abc"
    folder(blobs, {str(number): content for number, content in enumerate(BEIR_FILES.values())})
    for number, name in enumerate(("corpus.jsonl", "queries.jsonl", "test.tsv")):
        snapshot.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(blobs / str(number))
    assert contents(snapshot) == AS_BEIR


def test_judgements_without_a_score_column_are_of_relevance_1(tmp_path: Path) -> None:
    files = {f"{role}/train-00000-of-00001.parquet": parquet(rows)
             for role, rows in (("corpus", CORPUS), ("queries", QUERIES), ("qrels", PAIRS))}  # fmt: skip
    assert contents(folder(tmp_path / "NanoSet", files), "train")[2] == {"q1": {"d1": 1}, "q2": {"d2": 1}}
    plain = BEIR_FILES | {"qrels/test.tsv": "query-id\tcorpus-id\nq1\td1\nq2\td2\n"}
    assert contents(folder(tmp_path / "plain", plain))[2] == {"q1": {"d1": 1}, "q2": {"d2": 1}}
    half = BEIR_FILES | {"qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\td1\n"}
    with pytest.raises(InputError, match=r"test\.tsv:2: expected 3 columns `query-id corpus-id score`, got 2$"):
        load_dataset(folder(tmp_path / "half", half))


def test_splits_that_are_datasets_of_their_own(tmp_path: Path) -> None:
    other = [{"_id": "d1", "title": "", "text": "another text under the same id"}]
    files = {}
    for name, corpus in (("NanoNQ", CORPUS), ("NanoFEVER", other)):
        for role, rows in (("corpus", corpus), ("queries", QUERIES), ("qrels", PAIRS[: len(corpus)])):
            files[f"{role}/{name}-00000-of-00001.parquet"] = parquet(rows)
    source = folder(tmp_path / "NanoBEIR-en", files)
    assert contents(f"{source}:NanoNQ")[2] == {"q1": {"d1": 1}, "q2": {"d2": 1}}
    assert contents(f"{source}:NanoFEVER")[0] == {"d1": "another text under the same id"}
    message = r"NanoBEIR-en: its parts are datasets of their own \(NanoFEVER, NanoNQ\); name one: .*:NanoFEVER, or with"
    with pytest.raises(InputError, match=message):
        load_dataset(source)


def test_instructions_of_queries_are_kept(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    asked = [{**QUERIES[0], "instruction": "find rivers"}, {**QUERIES[1], "instruction": None}]
    tables = {"corpus": CORPUS, "queries": asked, "test": QRELS}
    saved = datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in tables.items()})
    saved.save_to_disk(tmp_path / "saved")
    assert [item.instruction for item in load_dataset(tmp_path / "saved").queries] == ["find rivers", None]
    beside = {"corpus/corpus-0.parquet": parquet(CORPUS), "queries/queries-0.parquet": parquet(QUERIES),
              "qrels/test-0.parquet": parquet(QRELS),
              "instruction/instruction-0.parquet": parquet([{"query-id": "q2", "instruction": "find stones"}]),
              }  # fmt: skip
    source = folder(tmp_path / "beside", beside)
    assert [item.instruction for item in load_dataset(source).queries] == [None, "find stones"]


def test_a_column_that_datasets_gives_back_changed_is_refused(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    if not hasattr(datasets, "Json"):
        pytest.skip("this version of datasets has no type Json")
    features = datasets.Features({"_id": datasets.Json(), "text": datasets.Value("string")})
    corpus = datasets.Dataset.from_list([{"_id": "007", "text": "stone"}], features=features)
    tables = {
        "corpus": corpus,
        "queries": datasets.Dataset.from_list(QUERIES),
        "test": datasets.Dataset.from_list(QRELS),
    }
    datasets.DatasetDict(tables).save_to_disk(tmp_path / "saved")
    with pytest.raises(
        InputError, match=r"saved: column '_id' has values of several types, which datasets stores as Json"
    ):
        load_dataset(tmp_path / "saved")


def test_judgements_alone_are_refused(tmp_path: Path) -> None:
    (tmp_path / "test.parquet").write_bytes(parquet(QRELS))
    with pytest.raises(
        InputError, match=r"test\.parquet: row 1: judgements alone, without corpus and queries; name the"
    ):
        load_dataset(tmp_path / "test.parquet")


def test_judgements_of_absent_queries_are_left_out_and_said(tmp_path: Path) -> None:
    files = {"corpus.jsonl": lines(CORPUS), "queries.jsonl": lines(QUERIES[:1]), "qrels/test.jsonl": lines(QRELS)}
    source = folder(tmp_path / "set", files)
    note = f"{source}: 1 judgements of split 'test' are of queries that are not there; left out"
    assert convert(source, tmp_path / "out").notes[0] == note
    assert load_dataset(tmp_path / "out").qrels == {"q1": {"d1": 2}}


MS_MARCO = {"collection.tsv": "0\tRivers flow\n1\tstone \"hard\n", "queries.train.tsv": "7\twhat flows\n",
            "queries.dev.small.tsv": "8\twhat is hard\n"}  # fmt: skip


def test_ms_marco(tmp_path: Path) -> None:
    files = {"qrels.train.tsv": "7\t0\t0\t1\n", "qrels.dev.small.tsv": "8\t0\t1\t1\n",
             "qidpidtriples.train.full.2.tsv.gz": gzip.compress(b"7\t0\t1\n")}  # fmt: skip
    source = folder(tmp_path / "msmarco", MS_MARCO | files)
    convert(source, tmp_path / "out")
    texts = ({"0": "Rivers flow", "1": 'stone "hard'}, {"7": "what flows", "8": "what is hard"})
    assert contents(tmp_path / "out", "train") == (*texts, {"7": {"0": 1}})
    assert contents(tmp_path / "out", "dev.small") == (*texts, {"8": {"1": 1}})
    assert read_run(tmp_path / "out/negatives/given.run") == {"7": {"1": 1.0}}
    (source / "collection.tsv").write_text("0\tRivers flow\n1 stone\n")
    with pytest.raises(InputError, match=r"collection\.tsv:2: expected an id, a tab and a text, got '1 stone'$"):
        convert(source, tmp_path / "again")


def test_triples_of_ids_are_judgements_where_there_are_no_qrels(tmp_path: Path) -> None:
    source = folder(tmp_path / "msmarco", MS_MARCO | {"qidpidtriples.train.small.tsv": "7\t0\t1\n"})
    assert contents(source, "train")[2] == {"7": {"0": 1}}


def test_lotte(tmp_path: Path) -> None:
    files = {"collection.tsv": "0\tRivers flow\n1\tstone\n", "metadata.jsonl": lines([{"dataset": "writing"}])}
    for kind, text, answers in (("search", "what flows", [0]), ("forum", "what is there?", [0, 1])):
        files[f"questions.{kind}.tsv"] = f"0\t{text}\n".encode()
        files[f"qas.{kind}.jsonl"] = lines([{"qid": 0, "query": text, "answer_pids": answers, "url": "http://a"}])
    source = folder(tmp_path / "test", files)
    documents = {"0": "Rivers flow", "1": "stone"}
    assert contents(source, "search") == (documents, {"0": "what flows"}, {"0": {"0": 1}})
    assert contents(source, "forum") == (documents, {"0": "what is there?"}, {"0": {"0": 1, "1": 1}})
    with pytest.raises(
        InputError, match=r"parts are datasets of their own \(forum, search\); name one: .*test:forum, or"
    ):
        convert(source, tmp_path / "out")


def test_miracl(tmp_path: Path) -> None:
    corpus = [
        {"docid": "39#0", "title": "Albedo", "text": "is light"},
        {"docid": "39#1", "title": "Albedo", "text": "b"},
    ]
    source = folder(tmp_path / "miracl", {
        "miracl-v1.0-yo/topics/topics.miracl-v1.0-yo-dev.tsv": "1\twhat is light?\n",
        "miracl-v1.0-yo/topics/topics.miracl-v1.0-yo-test-a.tsv": "2\twhat else?\n",
        "miracl-v1.0-yo/qrels/qrels.miracl-v1.0-yo-dev.tsv": "1\tQ0\t39#0\t1\n1\tQ0\t39#1\t0\n",
        "miracl-corpus-v1.0-yo/docs-0.jsonl.gz": gzip.compress(lines(corpus)),
    })  # fmt: skip
    documents = {"39#0": "Albedo is light", "39#1": "Albedo b"}
    assert contents(source, "dev") == (
        documents,
        {"1": "what is light?", "2": "what else?"},
        {"1": {"39#0": 1, "39#1": 0}},
    )


def test_bright(tmp_path: Path) -> None:
    documents = [{"id": "a/b_0.txt", "content": "Rivers flow"}, {"id": "a/b_1.txt", "content": "stone"}]
    example = {"id": "0", "query": "what flows", "reasoning": "long", "gold_answer": "rivers", "gold_ids_long": ["N/A"]}
    examples = [example | {"gold_ids": ["a/b_0.txt"], "excluded_ids": ["a/b_1.txt"]},
                example | {"id": "1", "gold_ids": ["a/b_1.txt"], "excluded_ids": ["N/A"]}]  # fmt: skip
    source = folder(tmp_path / "BRIGHT", {
        "documents/biology-00000-of-00001.parquet": parquet(documents),
        "documents/pony-00000-of-00001.parquet": parquet([{"id": "p", "content": "another"}]),
        "examples/biology-00000-of-00001.parquet": parquet(examples),
        "examples/pony-00000-of-00001.parquet": parquet(examples[:1]),
    })  # fmt: skip
    texts = {"a/b_0.txt": "Rivers flow", "a/b_1.txt": "stone"}
    queries = {"0": "what flows", "1": "what flows"}
    assert contents(source, "biology") == (texts, queries, {"0": {"a/b_0.txt": 1}, "1": {"a/b_1.txt": 1}})
    folder_of = load_dataset(source, "biology").folder
    assert read_excluded(folder_of / "excluded.tsv") == {"0": frozenset({"a/b_1.txt"})}


def test_tevatron_2_with_its_corpus(tmp_path: Path) -> None:
    row = {"query_id": "q1", "query_text": "what flows", "positive_document_ids": ["d1"],
           "negative_document_ids": ["d2"], "source": "web", "answer": None}  # fmt: skip
    corpus = [{"docid": "d1", "title": "Rivers", "text": "flow"}, {"docid": "d2", "text": "stone"}]
    source = folder(tmp_path / "tevatron", {"train.jsonl": lines([row]), "corpus.jsonl": lines(corpus)})
    dataset = load_dataset(source, "train")
    assert contents(source, "train") == (AS_BEIR[0], {"q1": "what flows"}, {"q1": {"d1": 1}})
    assert read_run(dataset.folder / "negatives/given.run") == {"q1": {"d2": 1.0}}
    message = r'train\.jsonl:1: "positive_document_ids" are ids \(Tevatron 2\); name a folder with these rows'
    with pytest.raises(InputError, match=message):
        convert(source / "train.jsonl", tmp_path / "out")


def test_flagembedding_keeps_a_teachers_scores(tmp_path: Path) -> None:
    row = {
        "query": "what flows",
        "pos": ["rivers", "lava"],
        "neg": ["stone"],
        "pos_scores": [0.9, 0.8],
        "neg_scores": [1],
    }
    source = (
        folder(tmp_path, {"a.jsonl": lines([row, {"query": "what is hard", "pos": ["stone"], "neg": []}])}) / "a.jsonl"
    )
    convert(source, tmp_path / "out")
    dataset = load_dataset(tmp_path / "out", "train")
    text, query = ({item.id: item.content for item in items} for items in (dataset.corpus, dataset.queries))
    teacher = read_run(tmp_path / "out/negatives/teacher.run")
    scores = {query[q]: {text[d]: score for d, score in scored.items()} for q, scored in teacher.items()}
    assert scores == {"what flows": {"rivers": 0.9, "lava": 0.8, "stone": 1.0}}
    folder(tmp_path, {"a.jsonl": lines([row | {"neg_scores": [1, 2]}])})
    with pytest.raises(InputError, match=r"a\.jsonl:1: 2 'neg_scores' for 1 documents; give one for each "):
        convert(source, tmp_path / "again")


def test_every_format_is_found_by_its_file() -> None:
    files = {file.stem for file in Path(formats.__file__).parent.glob("[!_]*.py")}
    assert {one.name for one in formats._formats()} >= {"FlagEmbedding", *formats.folder_formats()}
    assert len(formats._formats()) == len(files) > 8


def test_no_layout_is_taken_for_another(tmp_path: Path) -> None:
    from embedtune.data.source_folder import source_folder

    lotte = folder(tmp_path / "a", {"collection.tsv": "", "questions.search.tsv": "", "qas.search.jsonl": ""})
    msmarco = folder(tmp_path / "b", {"collection.tsv": "", "queries.tsv": "", "qrels.tsv": ""})
    beir = folder(tmp_path / "c", {"corpus.jsonl": "", "queries.jsonl": "", "qrels/test.jsonl": ""})
    for source, name in ((lotte, "LoTTE"), (msmarco, "MS MARCO"), (beir, "BEIR, mteb, NanoBEIR")):
        recognised = [one.name for one in formats._formats()
                      if isinstance(one, formats.FolderFormat) and one.recognises(source_folder(source))]  # fmt: skip
        assert recognised == [name]


def test_every_format_stands_in_the_documents() -> None:
    page = (Path(__file__).parents[2] / "docs/your-data.md").read_text(encoding="utf-8")
    assert [one.name for one in formats._formats() if f"| {one.name} |" not in page] == []


def test_a_dataset_inside_a_folder_is_found(tmp_path: Path) -> None:
    nested = {f"data/scifact/{name}": content for name, content in BEIR_FILES.items()}
    assert contents(folder(tmp_path / "set", nested | {"README.md": "words", "data/LICENSE": "words"})) == AS_BEIR
    assert contents(zipped(tmp_path / "set.zip", nested | {"README.md": "words"})) == AS_BEIR
    two = {f"cqa/{name}/{file}": content for name in ("android", "english") for file, content in BEIR_FILES.items()}
    with pytest.raises(
        InputError, match=r"two: holds several datasets; name one of their folders .*: cqa/android, cqa/english$"
    ):
        convert(folder(tmp_path / "two", two), tmp_path / "out")
    assert contents(tmp_path / "two/cqa/english") == AS_BEIR


PAIR, OTHER = {"query": "what flows", "positive": "rivers"}, {"query": "what is hard", "positive": "stone"}


@pytest.mark.parametrize(
    "files",
    [
        {"data/train-00000-of-00002.parquet": parquet([PAIR]), "data/train-00001-of-00002.parquet": parquet([OTHER]),
         "data/test-00000-of-00001.parquet": parquet([PAIR])},
        {"train.jsonl": lines([PAIR, OTHER]), "test.jsonl.gz": gzip.compress(lines([PAIR]))},
        {"train.csv": "query,positive\nwhat flows,rivers\nwhat is hard,stone\n", "test.json": json.dumps([PAIR])},
    ],
)  # fmt: skip
def test_pairs_in_files_named_as_splits(tmp_path: Path, files: dict[str, bytes | str]) -> None:
    source = folder(tmp_path / "set", files | {"README.md": "words"})
    assert set(contents(source, "train")[0].values()) == {"rivers", "stone"}
    assert len(contents(source, "test")[2]) == 1
    other = folder(tmp_path / "other", {"a.jsonl": lines([PAIR]), "b.jsonl": lines([OTHER])})
    with pytest.raises(InputError, match=r"of a folder with files of pairs, name one file, or call them train\.jsonl"):
        convert(other, tmp_path / "out")


@pytest.mark.parametrize("flags", [{"columns": Columns(query="a")}, {"skip_bad": 1}])
def test_flags_that_a_published_dataset_does_not_follow_are_refused(tmp_path: Path, flags: dict[str, Any]) -> None:
    source = folder(tmp_path / "set", {**BEIR_FILES, "qrels/test.tsv": ""} | {"qrels/test.jsonl": lines(QRELS)})
    (source / "qrels/test.tsv").unlink()
    with pytest.raises(InputError, match=r"set: a published dataset, read by the names .* go with files of rows$"):
        convert(source, tmp_path / "out", **flags)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("test.csv", TSV.replace("\t", ",")),
        ("test.tsv", TSV.replace("\t2\n", "\t2.0\n")),
        ("test.jsonl", lines([row | {"score": str(row["score"])} for row in QRELS])),
    ],
)
def test_relevances_as_tables_write_them(tmp_path: Path, name: str, content: bytes | str) -> None:
    files = {"corpus.jsonl": lines(CORPUS), "queries.jsonl": lines(QUERIES), f"qrels/{name}": content}
    assert contents(folder(tmp_path / "set", files)) == AS_BEIR


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("qrels.txt", "q1 0 d1 2\nq2 0 d2 1\nq2 0 d1 0\n"),
        ("qrels.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t2\nq2\td2\t1\nq2\td1\t0\n"),
        ("qrels.parquet", parquet([*QRELS, {"query-id": "q2", "corpus-id": "d1", "score": 0}])),
    ],
)
def test_judgements_with_files_of_documents_and_queries(tmp_path: Path, name: str, content: bytes | str) -> None:
    files = {name: content, "documents.csv": "id,title,text\nd1,Rivers,flow\nd2,,stone\n",
             "asked.csv": "query_id,query\nq1,what flows\nq2,what is hard\n"}  # fmt: skip
    source = folder(tmp_path / "set", files)
    convert(
        source / name,
        tmp_path / "out",
        split="test",
        files=TextFiles(corpora=(source / "documents.csv",), queries=source / "asked.csv"),
    )
    assert contents(tmp_path / "out") == (*AS_BEIR[:2], {"q1": {"d1": 2}, "q2": {"d2": 1, "d1": 0}})
    assert not (tmp_path / "out/negatives").exists()


def test_bad_judgements_are_left_out_and_listed(tmp_path: Path) -> None:
    files = {"qrels/test.txt": "q1 0 d1 1\nq1 0\n", "d.csv": "id,text\nd1,flow\n", "q.csv": "query_id,query\nq1,what\n"}
    source = folder(tmp_path / "set", files)
    both = TextFiles(corpora=(source / "d.csv",), queries=source / "q.csv")
    converted = convert(source / "qrels/test.txt", tmp_path / "out", split="test", files=both, skip_bad=1)
    assert (len(converted.left_out), load_dataset(tmp_path / "out").qrels) == (1, {"q1": {"d1": 1}})
    with pytest.raises(InputError, match=r"qrels: neither a dataset folder"):
        convert(source / "qrels", tmp_path / "b", files=both)


def test_a_corpus_with_other_names_of_ids_is_converted(tmp_path: Path) -> None:
    corpus = [{"id": row["_id"], "title": row["title"], "text": row["text"]} for row in CORPUS]
    source = folder(tmp_path / "set", BEIR_FILES | {"corpus.jsonl": lines(corpus)})
    assert contents(source) == AS_BEIR
    with pytest.raises(InputError, match=r"set: has the files of BEIR, mteb, NanoBEIR; check the folder that"):
        check(source)
    folder(source, {"corpus.jsonl": lines([{"id": "d1", "contents": "Rivers flow"}])})
    with pytest.raises(InputError, match=r"corpus\.jsonl:1: no \"text\", but 'contents'; rename the column$"):
        load_dataset(source)


def test_miracl_of_two_languages_is_told(tmp_path: Path) -> None:
    files = {f"topics.miracl-v1.0-{language}-dev.tsv": "1\twhat\n" for language in ("yo", "sw")}
    files |= {"qrels.miracl-v1.0-yo-dev.tsv": "1\tQ0\t39#0\t1\n", "docs-0.jsonl": '{"docid": "39#0", "text": "a"}\n'}
    with pytest.raises(
        InputError, match=r"set: topics and judgements of several languages \(sw, yo\); keep those of one$"
    ):
        convert(folder(tmp_path / "set", files), tmp_path / "out")
