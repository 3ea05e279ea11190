import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from random_encoder import Random, corpus

from embedtune.data.jsonl import JsonLines
from embedtune.data.trec import read_run
from embedtune.errors import InputError
from embedtune.models.similarity import as_scored
from embedtune.search import faiss_kinds as nearest
from embedtune.search.build import IndexSource, add_documents, build, read_source
from embedtune.search.folder import find, open_index
from embedtune.types import Item


def brute_force(encoder: Random, query: str, items: Sequence[Item], k: int) -> list[str]:
    embeddings = as_scored(encoder.encode(list(items), "document"), encoder.similarity)
    asked = as_scored(encoder.encode([Item(id="q", text=query)], "query"), encoder.similarity)
    order = np.argsort(-(embeddings @ asked[0]))[:k]
    return [list(items)[row].id for row in order]


@pytest.fixture
def documents(tmp_path: Path) -> JsonLines:
    return corpus(tmp_path / "corpus.jsonl", [f"d{n}" for n in range(600)])


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_exact_finds_what_brute_force_finds(tmp_path: Path, documents: JsonLines, similarity: str) -> None:
    encoder = Random(similarity=similarity)
    manifest = build(encoder, IndexSource(documents), tmp_path / "index")
    assert (manifest.kind, manifest.documents, manifest.recall) == ("exact", 600, None)
    index = open_index(tmp_path / "index")
    for query in ("Title d5 text", "something else"):
        found = find(index, encoder, query, 7)
        assert [f.document.id for f in found] == brute_force(encoder, query, list(documents), 7)
        assert [f.rank for f in found] == [1, 2, 3, 4, 5, 6, 7]
    best = find(index, encoder, "Title d5 text", 1)[0]
    assert best.document == Item(id="d5", title="Title d5", text="text")
    assert index.manifest == manifest


class Same(Random):
    """An encoder that gives every document the same vector, and every query."""

    def encode(self, items: Sequence[Item], role: str, *, on_progress: object = None) -> np.ndarray:
        row = np.random.default_rng(1).normal(size=self.dimension)
        return np.tile(row, (len(items), 1)).astype(np.float32)


@pytest.mark.parametrize("kind", ["exact", "hnsw", "ivfpq"])
def test_equal_documents_come_in_the_order_of_eval_whatever_k_is(tmp_path: Path, kind: str) -> None:
    ids = [f"d{n:02}" for n in range(40)] if kind != "ivfpq" else [f"d{n:03}" for n in range(100)]
    encoder, documents = Same(), corpus(tmp_path / "corpus.jsonl", ids)
    build(encoder, IndexSource(documents), tmp_path / "index", kind=kind)
    index = open_index(tmp_path / "index")
    ranked = sorted(ids, reverse=True)  # trec_eval: the larger id first
    for k in (1, 2, 3, 4, 5, 17):
        best = [f.document.id for f in find(index, encoder, "words", k)]
        # An approximate index breaks ties among the k + 64 documents that it finds.
        assert best == (ranked[:k] if kind != "ivfpq" else sorted(best, reverse=True))
        assert best[0] == find(index, encoder, "words", k)[0].document.id


def test_k_beyond_the_corpus_finds_everything(tmp_path: Path, documents: JsonLines) -> None:
    build(Random(), IndexSource(documents), tmp_path / "index")
    assert len(find(open_index(tmp_path / "index"), Random(), "words", 10_000)) == 600


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_approximate_kinds_report_the_recall_they_have(tmp_path: Path, documents: JsonLines, kind: str) -> None:
    encoder = Random()
    queries = corpus(tmp_path / "queries.jsonl", [f"d{n}" for n in range(0, 600, 20)])
    manifest = build(encoder, IndexSource(documents, queries), tmp_path / "index", kind=kind)
    assert manifest.recall is not None
    assert (manifest.recall["queries"], manifest.recall["documents"], manifest.recall["k"]) == (30, 600, 10)
    index = open_index(tmp_path / "index")
    shared = 0
    for item in queries:
        found = {f.document.id for f in find(index, encoder, item.content, 10)}
        shared += len(found & set(brute_force(encoder, item.content, list(documents), 10)))
    assert manifest.recall["value"] == pytest.approx(shared / 300)
    assert manifest.recall["value"] > (0.95 if kind == "hnsw" else 0.3)


def test_without_queries_documents_measure_the_recall(tmp_path: Path, documents: JsonLines) -> None:
    recall = build(Random(), IndexSource(documents), tmp_path / "index", kind="hnsw").recall
    assert recall is not None
    assert recall["queries"] == 600


def test_kinds_and_parameters_go_by_size() -> None:
    assert [nearest.kind_for(n) for n in (49_999, 50_000, 999_999, 1_000_000)] == ["exact", "hnsw", "hnsw", "ivfpq"]
    assert nearest.parameters("ivfpq", 4_000_000, 384) == {"nlist": 8000, "m": 96, "nbits": 8, "nprobe": 500}
    assert nearest.parameters("ivfpq", 1_000_000, 1026)["m"] == 342
    assert nearest.parameters("ivfpq", 600, 16) == {"nlist": 12, "m": 4, "nbits": 3, "nprobe": 8}
    with pytest.raises(InputError, match="an ivfpq index learns from at least 100 documents, got 99; use exact"):
        nearest.parameters("ivfpq", 99, 16)


@pytest.mark.parametrize("kind", ["exact", "hnsw", "ivfpq"])
def test_added_documents_are_found_and_replaced_ones_are_not(tmp_path: Path, documents: JsonLines, kind: str) -> None:
    encoder, folder = Random(), tmp_path / "index"
    build(encoder, IndexSource(documents), folder, kind=kind)
    more = corpus(tmp_path / "more.jsonl", ["d7", "new", "d9"], note=" changed")
    with pytest.raises(
        InputError, match="holds 2 of the documents already, the first is 'd7'; --replace replaces them"
    ):
        add_documents(encoder, more, folder)
    assert open_index(folder).manifest.documents == 600

    manifest = add_documents(encoder, more, folder, replace=True)
    assert manifest.documents == 601
    assert manifest.data == [documents.fingerprint, more.fingerprint]
    index = open_index(folder)
    near = 1 if kind != "ivfpq" else 60  # codes of 12 bits tell little
    assert "new" in {f.document.id for f in find(index, encoder, "Title new text changed", near)}
    assert "text changed" in {f.document.text for f in find(index, encoder, "Title d7 text changed", near)}
    everything = [f.document for f in find(index, encoder, "Title d7 text", 700)]
    if kind == "exact":
        assert len(everything) == 601
    assert len({item.id for item in everything}) == len(everything)
    assert all(item.text == "text changed" for item in everything if item.id in {"d7", "d9", "new"})
    # What is left on disk is a corpus again: every document once.
    assert sorted(JsonLines(folder / "documents.jsonl").ids) == sorted([*documents.ids, "new"])

    add_documents(encoder, corpus(tmp_path / "third.jsonl", ["d7", "new"], note=" again"), folder, replace=True)
    index = open_index(folder)
    assert index.manifest.documents == 601
    assert "text again" in {f.document.text for f in find(index, encoder, "Title d7 text again", near)}
    assert documents["d500"] in [f.document for f in find(index, encoder, "Title d500 text", near)]


def test_another_model_is_refused_by_name(tmp_path: Path, documents: JsonLines) -> None:
    build(Random(), IndexSource(documents), tmp_path / "index")
    other = Random(identity="2" * 32)
    other.name = "models/other"
    message = r"index: built with model models/random \(11111111\); models/other \(22222222\) is another, or the same"
    with pytest.raises(InputError, match=message):
        find(open_index(tmp_path / "index"), other, "words", 3)
    with pytest.raises(InputError, match=message):
        add_documents(other, documents, tmp_path / "index", replace=True)


def test_an_empty_query_is_refused(tmp_path: Path, documents: JsonLines) -> None:
    build(Random(), IndexSource(documents), tmp_path / "index")
    with pytest.raises(InputError, match="query 'words' is empty; there is nothing to search for"):
        find(open_index(tmp_path / "index"), Random(), "  ", 3)


def test_existing_folders_are_refused(tmp_path: Path, documents: JsonLines) -> None:
    folder = tmp_path / "index"
    build(Random(), IndexSource(documents), folder)
    with pytest.raises(InputError, match="index: exists already; choose another --output, or replace it with"):
        build(Random(), IndexSource(documents), folder)
    fewer = corpus(tmp_path / "fewer.jsonl", ["a", "b"])
    assert build(Random(), IndexSource(fewer), folder, overwrite=True).documents == 2
    assert open_index(folder).ids == ["a", "b"]
    with pytest.raises(InputError, match="exists already and holds a dataset; choose another --output"):
        build(Random(), IndexSource(documents), tmp_path, overwrite=True)


def test_damage_is_named(tmp_path: Path, documents: JsonLines) -> None:
    with pytest.raises(InputError, match=r"nowhere: not an index \(no manifest.json\)"):
        open_index(tmp_path / "nowhere")
    folder = tmp_path / "index"
    build(Random(), IndexSource(documents), folder)
    ids = (folder / "ids.json").read_text()
    (folder / "ids.json").write_text('["one"]')
    with pytest.raises(
        InputError, match=r"damaged index, build it again with `embedtune index` \(600 vectors, 1 ids\)"
    ):
        open_index(folder)
    (folder / "ids.json").write_text(ids)
    faiss = (folder / "index.faiss").read_bytes()
    (folder / "index.faiss").write_bytes(faiss[: len(faiss) // 2])
    with pytest.raises(InputError, match=r"index.faiss: absent, or not a FAISS index; build the index again"):
        open_index(folder)


def test_a_damaged_manifest_or_document_is_named(tmp_path: Path, documents: JsonLines) -> None:
    folder = tmp_path / "index"
    build(Random(), IndexSource(documents), folder)
    manifest, lines = json.loads((folder / "manifest.json").read_text()), (folder / "documents.jsonl").read_bytes()
    (folder / "manifest.json").write_text(json.dumps(manifest | {"kind": "flat"}))
    with pytest.raises(
        InputError,
        match=r"damaged index, build it again with `embedtune index` \(manifest\.json: kind: Input should be 'exact', ",
    ):
        open_index(folder)
    for change in ({"kind": "hnsw"}, {"dimension": 8}):
        (folder / "manifest.json").write_text(json.dumps(manifest | change))
        with pytest.raises(InputError, match=r"\(index\.faiss is not an (exact|hnsw) index of"):
            open_index(folder)
    del manifest["images"]  # as an older version wrote it
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert open_index(folder).manifest.images == []
    (folder / "documents.jsonl").write_bytes(lines[7:])
    with pytest.raises(
        InputError, match=r"damaged index, build it again with `embedtune index` \(documents\.jsonl, row \d+\)"
    ):
        find(open_index(folder), Random(), "Title d5 text", 3)


def test_vectors_are_read_from_disk(tmp_path: Path, documents: JsonLines) -> None:
    build(Random(), IndexSource(documents), tmp_path / "index")
    index = open_index(tmp_path / "index")
    if not Path("/proc/self/maps").exists():
        pytest.skip("only Linux tells what is memory-mapped")
    assert str(tmp_path / "index" / "index.faiss") in Path("/proc/self/maps").read_text()
    assert len(index.ids) == 600


def test_a_corpus_needs_no_judgements(tmp_path: Path) -> None:
    corpus(tmp_path / "bare" / "corpus.jsonl", ["a"])
    source = read_source(str(tmp_path / "bare"))
    assert (list(source.documents.ids), source.queries) == (["a"], None)


def test_index_and_search_commands(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: Callable[..., object]
) -> None:
    folder, run = tmp_path / "index", tmp_path / "tiny.run"
    made = run_cli("index", tiny_dataset, "--model", tiny_model, "--output", folder)
    assert made.exit_code == 0, made.stderr
    assert made.stdout.splitlines()[1].split("\t")[1:4] == ["60", "exact", "32"]

    found = run_cli("search", folder, "what old river is new 3", "-k", "100", "--json")
    rows = json.loads(found.stdout)
    assert [row["rank"] for row in rows] == list(range(1, 61))
    assert rows[0].keys() == {"rank", "score", "id", "title", "text"}
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert max(scores) < 1.000001

    assert run_cli("search", folder, "--queries", tiny_dataset, "--output", run, "-k", "5").exit_code == 0
    assert {len(scores) for scores in read_run(run).values()} == {5}
    assert len(read_run(run)) == 30
    assert "exists already" in run_cli("search", folder, "--queries", tiny_dataset, "--output", run).stderr


def test_search_agrees_with_eval(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: Callable[..., object]
) -> None:
    assert run_cli("index", tiny_dataset, "--model", tiny_model, "--output", tmp_path / "index").exit_code == 0
    options = ["--queries", f"{tiny_dataset}:test", "-k", "60", "--output", tmp_path / "tiny.run"]
    assert run_cli("search", tmp_path / "index", *options).exit_code == 0
    assert run_cli("eval", tiny_model, "--data", tiny_dataset, "--output", tmp_path / "out").exit_code == 0
    found, measured = read_run(tmp_path / "tiny.run"), read_run(tmp_path / "out" / "tiny" / "run.trec")
    assert {q: list(scores.items()) for q, scores in found.items() if q in measured} == {
        q: list(scores.items()) for q, scores in measured.items()
    }


def test_a_title_cannot_drive_the_terminal(tiny_model: Path, tmp_path: Path, run_cli: Callable[..., object]) -> None:
    (tmp_path / "corpus.jsonl").write_text(
        json.dumps({"_id": "d", "title": "\x1b]0;owned\x07", "text": "river"}) + "\n"
    )
    assert run_cli("index", tmp_path, "--model", tiny_model, "--output", tmp_path / "index").exit_code == 0
    found = run_cli("search", tmp_path / "index", "river")
    assert found.exit_code == 0, found.stderr
    assert "\x1b" not in found.stdout
    assert r"\u001b]0;owned\u0007" in found.stdout


def test_an_index_is_searched_by_its_own_model(
    tiny_model: Path, bare_checkpoint: Path, tiny_dataset: Path, tmp_path: Path, run_cli: Callable[..., object]
) -> None:
    from sentence_transformers import SentenceTransformer

    folder = tmp_path / "index"
    assert run_cli("index", tiny_dataset, "--model", tiny_model, "--output", folder).exit_code == 0
    other = SentenceTransformer(str(tiny_model), device="cpu")
    other[0].model.embeddings.word_embeddings.weight.data[5] += 1
    other.save_pretrained(str(tmp_path / "other"))
    refused = run_cli("search", folder, "river", "--model", tmp_path / "other")
    assert refused.exit_code == 2
    assert f"built with model {tiny_model.resolve()} (" in refused.stderr
    assert f"; {tmp_path / 'other'} (" in refused.stderr
    SentenceTransformer(str(tiny_model), device="cpu").save_pretrained(str(tmp_path / "copy"))
    assert run_cli("search", folder, "river", "--model", tmp_path / "copy").exit_code == 0


def test_adding_by_command(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: Callable[..., object]
) -> None:
    folder = tmp_path / "index"
    assert run_cli("index", tiny_dataset, "-m", tiny_model, "-o", folder, "--kind", "hnsw").exit_code == 0
    refused = run_cli("index", tiny_dataset, "-o", folder, "--add")
    assert "holds 60 of the documents already, the first is 'd0'; --replace" in refused.stderr
    added = run_cli("index", tiny_dataset, "-o", folder, "--add", "--replace")
    assert added.exit_code == 0, added.stderr
    assert added.stdout.splitlines()[1].split("\t")[1:3] == ["60", "hnsw"]
    assert len(run_cli("search", folder, "river", "-k", "99").stdout.splitlines()) == 61


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index", "{data}", "--output", "{out}"], "no model to encode the documents; name one with --model"),
        (["index", "{data}", "-m", "x", "-o", "{out}", "--replace"], "--replace goes with --add"),
        (["index", "{data}", "-o", "{out}", "--add", "--overwrite"], "--add keeps the index's kind and documents"),
        (["index", "{data}", "-o", "{out}", "--add"], "{out}: not an index (no manifest.json)"),
        (["index", "{out}", "-m", "x", "-o", "{out}"], "{out}: no such file or folder"),
        (["search", "{out}", "river"], "{out}: not an index (no manifest.json)"),
        (["search", "{out}", " "], "the query is empty; give some words"),
        (["search", "{out}"], "name one query (WORDS, --image FILE or both) or --queries, and not both"),
        (["search", "{out}", "x", "--queries", "{data}"], "name one query (WORDS, --image FILE or both) or --queries"),
        (["search", "{out}", "x", "--text", "y"], "--text is the former spelling of WORDS; leave --text out"),
        (["search", "{out}", "x", "--output", "{out}"], "--output goes with --queries"),
        (["search", "{out}", "--queries", "{data}"], "--queries needs --output FILE, --sheet FILE, or both"),
        (["search", "{out}", "x", "--sheet", "s.gif"], "--sheet s.gif: expected a name that ends in .png, .jpg, .jpeg"),
    ],
)
def test_commands_refuse(
    arguments: list[str], message: str, tiny_dataset: Path, tmp_path: Path, run_cli: Callable[..., object]
) -> None:
    names = {"data": str(tiny_dataset), "out": str(tmp_path / "out")}
    done = run_cli(*(argument.format(**names) for argument in arguments))
    assert done.exit_code == 2
    assert done.stderr.startswith("error: " + message.format(**names))
    assert len(done.stderr.splitlines()) == 1


def test_an_index_without_its_documents_is_damaged(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: Callable[..., object]
) -> None:
    folder = tmp_path / "index"
    assert run_cli("index", tiny_dataset, "--model", tiny_model, "--output", folder).exit_code == 0
    (folder / "documents.jsonl").unlink()
    with pytest.raises(InputError, match=r"with `embedtune index` \(documents\.jsonl is absent\)"):
        open_index(folder)
