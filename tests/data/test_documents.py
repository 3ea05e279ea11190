"""Files of documents and of queries, one a row: read by the names of their columns by index, encode and search."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedtune.data.dataset import load_documents, load_queries
from embedtune.data.documents import TextColumns
from embedtune.data.resolution import doubt_of_size, smallest_difference
from embedtune.data.trec import read_run
from embedtune.errors import InputError
from embedtune.search.build import read_source

ARTICLES = [
    {"article_no": "007", "title": "Rivers", "body": "They flow down to the sea.", "by": "A. B."},
    {"article_no": "8", "title": "Stone", "body": "It is hard and it is grey.", "by": "C. D."},
]


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_documents_keep_their_ids_and_titles(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write(tmp_path / "articles.jsonl", *ARTICLES)
    corpus = read_source(str(file)).documents
    assert [(item.id, item.title, item.text) for item in corpus] == [
        ("007", "Rivers", "They flow down to the sea."),
        ("8", "Stone", "It is hard and it is grey."),
    ]
    assert caplog.messages == [f"{file}: columns not used: by"]
    assert read_source(str(file)).documents.fingerprint == corpus.fingerprint
    packed = tmp_path / "articles.csv.gz"
    packed.write_bytes(gzip.compress(b"article_no;title;body;by\n007;Rivers;flow, all;x\n8;;hard;y\n"))
    assert [(item.id, item.content) for item in read_source(str(packed)).documents] == [
        ("007", "Rivers flow, all"),
        ("8", "hard"),
    ]


def test_columns_that_are_named_go_before_those_that_are_found(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {"id": 1, "ref": "x-1", "text": "a b", "note": "c d"})
    assert [item.id for item in load_documents(file).corpus] == ["1"]
    columns = TextColumns(id="ref", texts=("note", "text"))
    (item,) = load_documents(file, columns).corpus
    assert (item.id, item.text) == ("x-1", "c d\na b")
    with pytest.raises(InputError, match=r"a\.jsonl: unknown column 'reff': did you mean 'ref'\?$"):
        load_documents(file, TextColumns(id="reff"))
    with pytest.raises(InputError, match=r"--id-column, --title-column and --text-column go with a file of documents$"):
        read_source(str(tmp_path), columns=columns)


def test_a_corpus_under_another_name_is_read_as_it_stands(tmp_path: Path) -> None:
    file = write(tmp_path / "docs.jsonl", {"_id": "d1", "title": "Rivers", "text": ""}, {"_id": "d2", "text": "stone"})
    assert [(item.id, item.content) for item in read_source(str(file)).documents] == [("d1", "Rivers"), ("d2", "stone")]


def test_pairs_give_their_documents(tmp_path: Path) -> None:
    source = read_source(f"{write(tmp_path / 'p.jsonl', {'question': 'what flows', 'answer': 'rivers'})}:train")
    assert [item.text for item in source.documents] == ["rivers"]
    assert source.queries is not None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "1", "text": "a"}, {"id": "1", "text": "b"}], r":2: id '1' has other content than at .*:1$"),
        ([{"id": "1", "text": "a"}, {"id": None, "text": "b"}], r":2: 'id' is empty; every line needs an id$"),
        ([{"id": "1", "text": "a"}, {"id": "2", "text": " "}], r":2: 'text' is empty; every line needs a text$"),
        (
            [{"id": "1", "abstract": "a b", "body": "c d"}],
            ": 'abstract' and 'body' may both be meant; .* --text-column",
        ),
        ([{"key": "k1", "no": 5, "text": "a"}], ": 'key' and 'no' may both be the id; .* name it with --id-column "),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_documents(write(tmp_path / "a.jsonl", *rows))


def test_queries_of_a_file_are_found_by_name(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("qid,question\nq7,what flows\nq8,what is hard\n")
    assert [(item.id, item.text) for item in load_queries(tmp_path / "q.csv")] == [
        ("q7", "what flows"),
        ("q8", "what is hard"),
    ]
    file = write(tmp_path / "q.jsonl", {"_id": "a", "text": "b"})
    assert [(item.id, item.text) for item in load_queries(file)] == [("a", "b")]


def test_index_encode_and_search_take_files(tmp_path: Path, tiny_model: Path, run_cli: Callable[..., Any]) -> None:
    articles = write(tmp_path / "articles.jsonl", *ARTICLES)
    (tmp_path / "q.csv").write_text("question\nThey flow down to the sea.\n")
    model = ["--model", tiny_model]
    assert run_cli("index", articles, *model, "--output", tmp_path / "index").exit_code == 0
    run = tmp_path / "hits.run"
    result = run_cli("search", tmp_path / "index", "--queries", tmp_path / "q.csv", "--output", run)
    assert result.exit_code == 0, result.stderr
    assert [sorted(scores) for scores in read_run(run).values()] == [["007", "8"]]
    assert run_cli("encode", articles, *model, "--output", tmp_path / "vectors").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "vectors").glob("[!.]*")) == [
        "corpus.ids",
        "corpus.npy",
        "manifest.json",
    ]
    assert (tmp_path / "vectors" / "corpus.ids").read_text() == "007\n8\n"
    assert len(np.load(tmp_path / "vectors" / "corpus.npy")) == 2
    named = ["--id-column", "by", "--text-column", "title"]
    assert run_cli("index", articles, *model, "--output", tmp_path / "b", *named).exit_code == 2  # ids with blanks


def test_the_smallest_difference_that_queries_can_show() -> None:
    assert smallest_difference(100) == pytest.approx(0.049)
    assert doubt_of_size("test", 300) == ""
    assert doubt_of_size("test", 40) == (
        "test: 40 queries: differences in nDCG@10 under 0.08 will not show (95% interval, where one query's difference "
        "has a standard deviation of 0.25); 0.03 wants 267 queries"
    )


def test_a_small_test_split_is_told(tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    rows = [{"query": f"query {n}", "answer": f"text of {n}"} for n in range(50)]
    pairs = write(tmp_path / "pairs.jsonl", *rows)
    result = run_cli("data", "convert", pairs, "--output", tmp_path / "all")
    assert "will not show" not in result.stderr
    result = run_cli("data", "split", tmp_path / "all", "--test", "0.2", "--output", tmp_path / "parts")
    assert "warning: test: 10 queries: differences in nDCG@10 under 0.15 will not show" in result.stderr
    result = run_cli("data", "convert", pairs, "--output", tmp_path / "dev", "--split", "dev")
    assert "warning: dev: 50 queries: differences in nDCG@10 under 0.07 will not show" in result.stderr


@pytest.mark.parametrize("first", ["0\tThe river flows down to the sea", "0\tRivers"])
def test_a_first_line_that_is_a_document_is_not_taken_for_names(tmp_path: Path, first: str) -> None:
    (tmp_path / "a.tsv").write_text(f"{first}\n1\tA stone is hard and grey\n")
    with pytest.raises(
        InputError, match=r"no column is named as texts are \(the first line names the columns; here it"
    ):
        load_documents(tmp_path / "a.tsv")


def test_an_unclear_file_of_queries_says_how_to_call_its_columns(tmp_path: Path) -> None:
    (tmp_path / "q.tsv").write_text("0\twhy does the river flow\n1\twhat is a stone\n")
    with pytest.raises(InputError, match=r"; call the column of the queries query, and that of their ids query_id$"):
        load_queries(tmp_path / "q.tsv")
