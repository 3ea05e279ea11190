"""People's own files: columns by name, ids with files of documents, labels, scores; what is unclear is asked for."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from embedtune.data.check import check
from embedtune.data.convert import Converted, convert
from embedtune.data.dataset import load_dataset
from embedtune.data.documents import TextColumns, TextFiles
from embedtune.data.labels import Labels
from embedtune.data.pairs import Columns
from embedtune.data.trec import read_run
from embedtune.errors import InputError

Rows = Sequence[dict[str, Any]]
SUFFIXES = [".jsonl", ".json", ".csv", ".tsv", ".parquet"]


def as_bytes(suffix: str, rows: Rows) -> bytes:
    if suffix in (".csv", ".tsv"):
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0], delimiter=";" if suffix == ".csv" else "\t")
        writer.writeheader()
        writer.writerows(
            {name: json.dumps(cell) if isinstance(cell, list) else cell for name, cell in row.items()} for row in rows
        )
        return text.getvalue().encode()
    if suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        sink = pa.BufferOutputStream()
        parquet.write_table(pa.Table.from_pylist(list(rows)), sink)
        return bytes(sink.getvalue())
    return (json.dumps(list(rows)) if suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)).encode()


def write(path: Path, *rows: dict[str, Any]) -> Path:
    """Writes rows in the form that the name shows."""
    packed = path.suffix == ".gz"
    content = as_bytes((path.with_suffix("") if packed else path).suffix, rows)
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def judged(folder: Path, split: str = "train") -> tuple[dict[str, dict[str, int]], dict[str, list[str]]]:
    """Query's text -> document's text -> relevance; query's text -> texts of given negatives, best first."""
    dataset = load_dataset(folder, split)
    text = {item.id: item.content for item in dataset.corpus}
    query = {item.id: item.content for item in dataset.queries}
    qrels = {query[q]: {text[d]: grade for d, grade in grades.items()} for q, grades in dataset.qrels.items()}
    given = folder / "negatives" / "given.run"
    run = read_run(given) if given.exists() else {}
    return qrels, {query[q]: [text[d] for d in sorted(scores, key=lambda d: -scores[d])] for q, scores in run.items()}


ARTICLES = [
    {"article_no": "007", "title": "Rivers", "body": "They flow down to the sea.", "author": "A. B."},
    {"article_no": "8", "title": "Stone", "body": "It is hard and it is grey.", "author": "C. D."},
    {"article_no": "9", "title": "", "body": "Lava is molten stone.", "author": "C. D."},
]


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_pairs_of_ids_and_a_file_of_documents(tmp_path: Path, suffix: str, packed: str) -> None:
    articles = write(tmp_path / f"articles{suffix}{packed}", *ARTICLES)
    pairs = write(
        tmp_path / f"pairs{suffix}{packed}",
        {"id": "1", "question": "where do rivers flow to", "article_no": "007"},
        {"id": "2", "question": "what is molten", "article_no": "9"},
    )
    converted = convert(pairs, tmp_path / "out", files=TextFiles(corpora=(articles,)))
    dataset = load_dataset(tmp_path / "out", "train")
    assert list(dataset.corpus.ids) == ["007", "8", "9"]
    assert dataset.corpus["007"].content == "Rivers They flow down to the sea."
    query = {item.text: item.id for item in dataset.queries}
    assert dataset.qrels == {
        query["where do rivers flow to"]: {"007": 1},
        query["what is molten"]: {"9": 1},
    }
    assert converted.notes == (f"{articles}: columns not used: author", f"{pairs}: columns not used: id")


def test_queries_and_documents_in_files_of_their_own(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.csv", *ARTICLES[:2]), write(tmp_path / "b.jsonl", *ARTICLES[2:])
    queries = write(
        tmp_path / "q.tsv", {"qid": "q1", "question": "what flows"}, {"qid": "q2", "question": "what melts"}
    )
    pairs = write(tmp_path / "p.jsonl", {"qid": "q1", "doc": "007", "bad": 8}, {"qid": "q2", "doc": ["9"], "bad": None})
    files = TextFiles(corpora=(first, second), queries=queries)
    convert(pairs, tmp_path / "out", files=files, columns=Columns(negatives=("bad",)))
    dataset = load_dataset(tmp_path / "out", "train")
    assert dataset.qrels == {"q1": {"007": 1}, "q2": {"9": 1}}
    assert dataset.queries["q2"].text == "what melts"
    assert len(dataset.corpus) == 3
    assert read_run(tmp_path / "out" / "negatives" / "given.run") == {"q1": {"8": 1.0}}


def test_several_ids_in_one_cell_and_numbers_with_gaps(tmp_path: Path) -> None:
    articles = write(tmp_path / "a.parquet", *({**article, "article_no": 7 + n} for n, article in enumerate(ARTICLES)))
    files = TextFiles(corpora=(articles,))
    pairs = write(tmp_path / "p.csv", {"question": "what is hard", "hits": "7, 9"}, {"question": "what", "hits": "8"})
    convert(pairs, tmp_path / "a", files=files)
    assert [sorted(grades) for grades in load_dataset(tmp_path / "a", "train").qrels.values()] == [["7", "9"], ["8"]]
    gaps = write(tmp_path / "p.parquet", {"question": "what is hard", "hit": 7.0}, {"question": "what", "hit": None})
    with pytest.raises(InputError, match=r"p\.parquet: row 2: 'hit' is empty"):
        convert(gaps, tmp_path / "b", files=files)
    converted = convert(gaps, tmp_path / "b", files=files, skip_bad=1)
    assert list(load_dataset(tmp_path / "b", "train").qrels.values()) == [{"7": 1}]
    assert [line.partition(" (")[0] for line in converted.left_out] == [
        f"{gaps}: row 2: 'hit' is empty; every line needs one"
    ]


def test_row_numbers_that_are_ids_by_chance_do_not_count(tmp_path: Path) -> None:
    articles = write(tmp_path / "a.jsonl", *({"id": n, "text": f"text number {n} of all"} for n in range(1, 5)))
    files = TextFiles(corpora=(articles,))
    convert(write(tmp_path / "p.csv", {"id": 1, "question": "q", "article": 4}), tmp_path / "out", files=files)
    assert list(load_dataset(tmp_path / "out", "train").qrels.values()) == [{"4": 1}]
    unclear = write(tmp_path / "u.csv", {"first": 1, "question": "q", "second": 4})
    with pytest.raises(InputError, match=r"'first' and 'second' may all hold .* name one with --positive-column$"):
        convert(unclear, tmp_path / "b", files=files)


def test_an_id_that_no_document_has(tmp_path: Path) -> None:
    articles = write(tmp_path / "articles.csv", *ARTICLES)
    pairs = write(tmp_path / "p.csv", {"question": "a", "article_no": "007"}, {"question": "b", "article_no": "7"})
    files = TextFiles(corpora=(articles,))
    expected = r"p\.csv:3: 'article_no' names '7', which is not among the 3 document ids, such as '007' \(`embedtune"
    with pytest.raises(InputError, match=expected):
        convert(pairs, tmp_path / "out", files=files)
    assert len(convert(pairs, tmp_path / "out", files=files, skip_bad=1).left_out) == 1


def test_texts_of_several_columns_and_columns_that_are_named(tmp_path: Path) -> None:
    rows = [{"code": "A-1", "teil": "X", "kopf": "Fluss", "erst": "Er fliesst.", "dann": "Ins Meer."}]
    articles = write(tmp_path / "a.csv", *rows)
    pairs = write(tmp_path / "p.csv", {"frage": "wohin fliesst der Fluss", "artikel": "A-1"})
    columns = TextColumns(id="code", title="kopf", texts=("erst", "dann"))
    convert(pairs, tmp_path / "out", files=TextFiles(corpora=(articles,), columns=columns))
    document = load_dataset(tmp_path / "out", "train").corpus["A-1"]
    assert (document.title, document.text) == ("Fluss", "Er fliesst.\nIns Meer.")
    with pytest.raises(InputError, match=r"a\.csv: no column is named as texts are; .* --text-column; several are "):
        convert(pairs, tmp_path / "b", files=TextFiles(corpora=(articles,)))


Expected = tuple[dict[str, dict[str, int]], dict[str, list[str]]]
FLOWS = {"why do rivers flow": {"gravity": 1}}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"id": "17", "query": "why do rivers flow", "answer": "gravity"}], (FLOWS, {})),
        ([{"context": "gravity", "url": "http://a.b/1", "Question": "why do rivers flow"}], (FLOWS, {})),
        (
            [
                {"query": "why do rivers flow", "answer": "gravity", "label": 1},
                {"query": "why do rivers flow", "answer": "stone", "label": 0},
            ],
            (FLOWS, {"why do rivers flow": ["stone"]}),
        ),
        (
            [{"query": "why do rivers flow", "answer": ["stone", "gravity"], "labels": [0, 1]}],
            (FLOWS, {"why do rivers flow": ["stone"]}),
        ),
        (
            [
                {"premise": "why do rivers flow", "hypothesis": "gravity", "label": "entailment"},
                {"premise": "why do rivers flow", "hypothesis": "maybe so", "label": "neutral"},
                {"premise": "why do rivers flow", "hypothesis": "stone", "label": "contradiction"},
            ],
            (FLOWS, {"why do rivers flow": ["stone"]}),
        ),
        (
            [{"question1": "why do rivers flow", "question2": "gravity", "is_duplicate": True}],
            (FLOWS, {}),
        ),
        (
            [{"anchor": "why do rivers flow", "positive": "gravity", "negative_1": "stone", "negative_2": "lava"}],
            (FLOWS, {"why do rivers flow": ["stone", "lava"]}),
        ),
    ],
)
def test_forms_of_pairs_in_every_kind_of_file(tmp_path: Path, rows: Rows, expected: Expected, suffix: str) -> None:
    convert(write(tmp_path / f"pairs{suffix}", *rows), tmp_path / "out")
    assert judged(tmp_path / "out") == expected


def test_scores_beside_negatives_are_a_teachers(tmp_path: Path) -> None:
    row = {"query": "why", "answer": "gravity", "negative_1": "stone", "negative_2": "lava", "scores": [0.9, 0.5, 0.25]}
    convert(write(tmp_path / "a.jsonl", row), tmp_path / "out")
    text = {item.id: item.text for item in load_dataset(tmp_path / "out", "train").corpus}
    (scores,) = read_run(tmp_path / "out" / "negatives" / "teacher.run").values()
    assert {text[doc_id]: score for doc_id, score in scores.items()} == {"gravity": 0.9, "stone": 0.5, "lava": 0.25}
    margin = write(tmp_path / "b.jsonl", {"query": "why", "positive": "gravity", "negative": "stone", "score": 0.4})
    converted = convert(margin, tmp_path / "b")
    assert f"{margin}: 'score' looks like labels and is not used" in converted.notes[1]
    assert judged(tmp_path / "b") == ({"why": {"gravity": 1}}, {"why": ["stone"]})


STS = [
    {"sentence1": "a man runs", "sentence2": text, "score": score}
    for text, score in (("he runs", 5.0), ("he moves", 3.5), ("he rests", 2.5), ("it rains", 0.4))
]


def test_scores_want_a_threshold(tmp_path: Path) -> None:
    source = write(tmp_path / "sts.csv", *STS)
    with pytest.raises(
        InputError, match=r"'score' holds more than 1 and 0 \(5\.0, 3\.5, .*; give --label-threshold X"
    ) as error:
        convert(source, tmp_path / "out")
    assert "\n" not in str(error.value)
    convert(source, tmp_path / "a", columns=Columns(labels=Labels(threshold=3.2)))
    positives = {"he runs": 1, "he moves": 1}
    assert judged(tmp_path / "a") == ({"a man runs": positives}, {"a man runs": ["he rests", "it rains"]})
    converted = convert(source, tmp_path / "b", columns=Columns(labels=Labels(threshold=3.2, negative_threshold=1)))
    assert judged(tmp_path / "b") == ({"a man runs": positives}, {"a man runs": ["it rains"]})
    assert converted.notes == (
        f"{source}: 1 pairs have a label in 'score' that makes them neither positive nor negative; left out",
    )
    convert(source, tmp_path / "c", columns=Columns(ignored=("score",)))
    assert judged(tmp_path / "c") == ({"a man runs": dict.fromkeys([row["sentence2"] for row in STS], 1)}, {})


def test_whole_grades_are_kept(tmp_path: Path) -> None:
    rows = [
        {"query": "q", "document": text, "relevance": grade} for text, grade in (("a b", 3), ("c d", 1), ("e f", 0))
    ]
    convert(write(tmp_path / "a.csv", *rows), tmp_path / "out", columns=Columns(labels=Labels(threshold=1)))
    assert judged(tmp_path / "out") == ({"q": {"a b": 3, "c d": 1}}, {"q": ["e f"]})


def test_labels_by_their_values(tmp_path: Path) -> None:
    rows = [{"premise": "p", "hypothesis": text, "label": label} for text, label in (("a", 0), ("b", 1), ("c", 2))]
    source = write(tmp_path / "nli.jsonl", *rows)
    with pytest.raises(InputError, match=r"'label' holds more than 1 and 0 \(0, 1, 2\); .* --positive-label VALUE"):
        convert(source, tmp_path / "out")
    rule = Labels(positive=("0",), negative=("2",))
    assert len(convert(source, tmp_path / "out", columns=Columns(labels=rule)).notes) == 1
    assert judged(tmp_path / "out") == ({"p": {"a": 1}}, {"p": ["c"]})


def test_a_label_that_comes_late_and_is_neither(tmp_path: Path) -> None:
    rows = [{"query": f"q {n}", "answer": "a", "label": n % 2} for n in range(120)] + [
        {"query": "q", "answer": "a", "label": 0.5}
    ]
    source = write(tmp_path / "a.csv", *rows)
    with pytest.raises(
        InputError, match=r"a\.csv:122: label '0\.5' is neither 1 nor 0; give --label-threshold X or --posit"
    ):
        convert(source, tmp_path / "out")


def test_labels_of_other_words_and_labels_of_ids(tmp_path: Path) -> None:
    rows = [{"query": "q", "product_title": f"thing {label}", "esci_label": label} for label in "ESCI"]
    columns = Columns(positive="product_title", label="esci_label", labels=Labels(positive=("E", "s"), negative=("I",)))
    convert(write(tmp_path / "a.parquet", *rows), tmp_path / "a", columns=columns)
    assert judged(tmp_path / "a") == ({"q": {"thing E": 1, "thing S": 1}}, {"q": ["thing I"]})
    articles = write(tmp_path / "articles.jsonl", *ARTICLES)
    pairs = [
        {"question": "what flows", "article_no": article_no, "relevance": relevance}
        for article_no, relevance in (("007", 1), ("8", 0))
    ]
    convert(write(tmp_path / "b.tsv", *pairs), tmp_path / "b", files=TextFiles(corpora=(articles,)))
    assert judged(tmp_path / "b") == (
        {"what flows": {"Rivers They flow down to the sea.": 1}},
        {"what flows": ["Stone It is hard and it is grey."]},
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_flagembedding_in_every_kind_of_file(tmp_path: Path, suffix: str) -> None:
    row = {"query": "why do rivers flow", "pos": ["gravity"], "neg": ["stone", "lava"]}
    convert(write(tmp_path / f"a{suffix}", row), tmp_path / "out")
    assert judged(tmp_path / "out") == (FLOWS, {"why do rivers flow": ["stone", "lava"]})


def test_dpr_answers_are_no_documents(tmp_path: Path) -> None:
    row = {
        "question": "why do rivers flow",
        "answers": ["because"],
        "positive_ctxs": [{"title": "Rivers", "text": "flow", "passage_id": "7"}],
        "negative_ctxs": [{"title": "", "text": "lava"}],
        "hard_negative_ctxs": [{"title": "", "text": "stone", "psg_id": 9}],
    }
    convert(write(tmp_path / "train.json", row), tmp_path / "out")
    qrels, negatives = judged(tmp_path / "out")
    assert qrels == {"why do rivers flow": {"Rivers flow": 1}}
    assert negatives == {"why do rivers flow": ["stone", "lava"]}
    assert {"7", "9"} < set(load_dataset(tmp_path / "out", "train").corpus.ids)


def test_a_verb_without_the_flags_names_the_one_that_has_them(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", UNCLEAR[0][0])
    with pytest.raises(InputError, match=r"--corpus FILE .* \(flags of `embedtune data convert`\)$"):
        load_dataset(source, "train")


def test_check_warns_of_texts_that_look_like_ids(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", *({"query": f"what is {n}", "number": f"1016{n}"} for n in range(4)))
    convert(source, tmp_path / "out", columns=Columns(positive="number"))
    (fault,) = check(tmp_path / "out").faults
    assert (fault.severity, fault.kind, fault.count) == ("warning", "documents like ids", 1)
    assert "4 of the first 4 texts look like ids or URLs, such as '10160'" in fault.where[0]


UNCLEAR = [
    ({"qid": 0, "query": "why", "url": "http://a.b/1", "answer_pids": [1, 2]}, "no column is named as positives are"),
    (
        {"query": "why", "reasoning": "one must think of it", "id": "0", "gold_answer": "because it is so"},
        "no column is named as positives are",
    ),
    ({"id": "5", "question": "why", "context": "a text", "answer": "so"}, "'context' and 'answer' may both be meant"),
    ({"a": "first text of words", "b": "second text of words"}, "no column is named as queries and positives are"),
    ({"query": "why", "kind": "web"}, "no column is named as positives are"),
    ({"query": "why", "document": "D1017"}, "'document' looks like ids or URLs, not like texts"),
    ({"query": "why", "answer": "so", "score": 0.5}, "'score' holds more than 1 and 0 (0.5)"),
]


@pytest.mark.parametrize(("row", "problem"), UNCLEAR)
def test_what_is_unclear_is_asked_for_in_one_line_with_the_first_row(
    tmp_path: Path, row: dict[str, Any], problem: str
) -> None:
    source = write(tmp_path / "a.jsonl", row)
    with pytest.raises(InputError) as caught:
        convert(source, tmp_path / "out")
    message = str(caught.value)
    assert message.startswith(f"{source}: {problem}; the first row is {next(iter(row))}=")
    assert "-column" in message.partition("the first row is")[2]
    assert "\n" not in message
    assert not (tmp_path / "out").exists()


def test_a_file_without_names_of_columns_is_told(tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_text("how do plants take up iron,roots release acids\nwhat flows,rivers do\n")
    expected = (
        r"no column is named as queries and positives are \(the first line names the columns; here it looks like a"
    )
    with pytest.raises(InputError, match=expected):
        convert(source, tmp_path / "out")


def test_a_file_of_bad_lines_alone_is_told_with_the_first(tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_text("query,answer\na,b,c\n")
    with pytest.raises(InputError, match=r"a\.csv: no rows; bad lines left out: 1, the first .*a\.csv:2: expected 2"):
        convert(source, tmp_path / "out", skip_bad=3)


def test_ids_alone_are_asked_for_with_their_files(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", {"query_id": "q1", "corpus_id": "d1", "score": "1"})
    with pytest.raises(InputError, match=r"--corpus FILE names the documents and --query-file FILE the queries$"):
        convert(source, tmp_path / "out")
    dashes = write(tmp_path / "b.csv", {"query-id": "q1", "corpus-id": "d1", "score": "1"})
    with pytest.raises(InputError, match=r"judgements alone, .* with --corpus FILE and --query-file FILE"):
        convert(dashes, tmp_path / "out")


def warnings(converted: Converted) -> list[str]:
    return [note.removeprefix("warning: ") for note in converted.notes if note.startswith("warning: ")]


def test_ids_that_were_asked_for_as_texts_are_a_warning(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", *({"query": f"what is {n}", "number": f"1016{n}"} for n in range(4)))
    converted = convert(source, tmp_path / "out", columns=Columns(positive="number"))
    assert warnings(converted) == [
        "4 of 4 documents look like ids or URLs, such as '10160'; --corpus names their texts"
    ]


def test_one_query_in_half_of_the_pairs_is_a_warning(tmp_path: Path) -> None:
    rows = [{"query": "q" if n < 10 else f"q {n}", "answer": f"text {n}"} for n in range(20)]
    converted = convert(write(tmp_path / "a.csv", *rows), tmp_path / "out")
    (text,) = warnings(converted)
    assert text.startswith("10 of the 20 judgements in 'train' are of one query, ")
    rows = [{"query": f"q {n}", "answer": "text" if n < 10 else f"text {n}"} for n in range(20)]
    (text,) = warnings(convert(write(tmp_path / "b.csv", *rows), tmp_path / "b"))
    assert text.startswith("10 of the 20 judgements in 'train' are of one document, ")
    assert warnings(convert(write(tmp_path / "c.csv", *rows[1:19]), tmp_path / "c")) == []


def test_an_empty_cell_costs_its_row_alone(tmp_path: Path) -> None:
    rows = [{"query": f"q {n}", "answer": "" if n in (1, 3) else f"text {n}"} for n in range(5)]
    source = write(tmp_path / "a.tsv", *rows)
    with pytest.raises(InputError, match=r"a\.tsv:3: 'answer' is empty; every line needs one \(`embedtune data conv"):
        convert(source, tmp_path / "out")
    converted = convert(source, tmp_path / "out", skip_bad=2)
    assert [line.partition(": 'answer'")[0] for line in converted.left_out] == [f"{source}:3", f"{source}:5"]
    assert converted.queries == 3
    with pytest.raises(InputError, match=r"a\.tsv:5: .*; bad lines left out before: 1, .*; allow more with "):
        convert(source, tmp_path / "b", skip_bad=1)


@pytest.mark.parametrize(
    ("columns", "files", "message"),
    [
        (Columns(), TextFiles(columns=TextColumns(id="x")), "--id-column and --text-column go with --corpus"),
        (Columns(labels=Labels(negative_threshold=1)), TextFiles(), "--negative-threshold goes with --label-threshold"),
        (Columns(labels=Labels(negative=("0",))), TextFiles(), "--negative-label goes with --positive-label"),
        (Columns(labels=Labels(threshold=1)), TextFiles(), "no column is named as labels are"),
        (Columns(labels=Labels(threshold=1, positive=("1",))), TextFiles(), "exclude each other"),
        (Columns(ignored=("x",)), TextFiles(), "unknown column 'x'"),
    ],
)
def test_flags_without_effect_are_refused(tmp_path: Path, columns: Columns, files: TextFiles, message: str) -> None:
    source = write(tmp_path / "a.csv", {"query": "q", "answer": "a b"})
    with pytest.raises(InputError, match=message):
        convert(source, tmp_path / "out", columns=columns, files=files)


def test_the_command_reads_ids_and_says_what_it_drops(tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    articles = write(tmp_path / "articles.jsonl", *ARTICLES)
    rows = [{"question": "what flows", "article_no": "007"}, {"question": "what is red", "article_no": "12"}]
    pairs = write(tmp_path / "pairs.csv", *rows)
    command = [
        "data",
        "convert",
        pairs,
        "--corpus",
        articles,
        "--output",
        tmp_path / "out",
        "--skip-bad",
        "5",
        "--json",
    ]
    result = run_cli(*command)
    assert result.exit_code == 0
    line = f"{pairs}:3: 'article_no' names '12', which is not among the 3 document ids, such as '007'"
    assert f"left out: {line}\n" in result.stderr
    assert json.loads(result.stdout) == {
        "folder": str(tmp_path / "out"),
        "documents": 3,
        "queries": 1,
        "judgements": {"train": 1},
        "negatives": 0,
        "notes": [f"{articles}: columns not used: author"],
        "left_out": [line],
    }


def test_ids_with_blanks_fractions_and_lists_that_hold_an_absent_one(tmp_path: Path) -> None:
    (tmp_path / "articles.csv").write_text(
        "article_no, title, body\n 7, Rivers, They flow to the sea.\n 8, Stone,Grey.\n"
    )
    (tmp_path / "a.csv").write_text(
        "query_id,question,article_no\n q1 ,what flows,7.0\nq2,what is grey,8\nq3,why,7; 9\n"
    )
    convert(tmp_path / "a.csv", tmp_path / "out", files=TextFiles(corpora=(tmp_path / "articles.csv",)), skip_bad=1)
    assert load_dataset(tmp_path / "out", "train").qrels == {"q1": {"7": 1}, "q2": {"8": 1}}
    with pytest.raises(InputError, match=r"a\.csv:4: 'article_no' names '9', which is not among the 2 document ids"):
        convert(tmp_path / "a.csv", tmp_path / "b", files=TextFiles(corpora=(tmp_path / "articles.csv",)))


def test_an_absent_id_among_negatives_does_not_drop_their_column(tmp_path: Path) -> None:
    files = TextFiles(corpora=(write(tmp_path / "articles.jsonl", *ARTICLES),))
    row = {"question": "what flows", "positive_id": "007", "negative_ids": "8 99"}
    source = write(tmp_path / "a.csv", row)
    with pytest.raises(InputError, match=r"a\.csv:2: 'negative_ids' names '99', which is not among the 3 document ids"):
        convert(source, tmp_path / "out", files=files)
    source = write(tmp_path / "b.csv", row | {"negative_ids": "x y"})
    with pytest.raises(
        InputError, match=r"'negative_ids' holds none of .*; leave it out with --ignore-column negative_ids$"
    ):
        convert(source, tmp_path / "out", files=files)
    convert(source, tmp_path / "out", columns=Columns(ignored=("negative_ids",)), files=files)
    assert judged(tmp_path / "out")[0] == {"what flows": {"Rivers They flow down to the sea.": 1}}


def test_ids_of_negatives_are_no_texts(tmp_path: Path) -> None:
    row = {"query": "what flows", "positive": "rivers", "negative": "a stone", "negative_id": "D17", "neg_ids": ["D9"]}
    convert(write(tmp_path / "a.jsonl", row), tmp_path / "out")
    assert judged(tmp_path / "out") == ({"what flows": {"rivers": 1}}, {"what flows": ["a stone"]})
    source = write(tmp_path / "b.jsonl", {"query": "what flows", "positive": "rivers", "negative": "D17"})
    with pytest.raises(InputError, match=r"'negative' looks like ids or URLs, .*--ignore-column negative, or take"):
        convert(source, tmp_path / "b")
    convert(source, tmp_path / "b", columns=Columns(negatives=("negative",)))
    assert judged(tmp_path / "b")[1] == {"what flows": ["D17"]}


@pytest.mark.parametrize("content", ["number,text\n1,one\n1,two\n", "1\tone river flows\n2\ttwo stones are hard\n"])
def test_a_file_that_pairs_name_by_ids_has_ids(tmp_path: Path, content: str) -> None:
    name = "a.csv" if "," in content else "a.tsv"
    (tmp_path / name).write_text(content)
    (tmp_path / "q.csv").write_text("query,id\nwhat,1\nwho,2\n")
    named = {"texts": ("text",)} if "," in content else {"texts": ("one river flows",)}
    files = TextFiles(corpora=(tmp_path / name,), columns=TextColumns(**named))
    with pytest.raises(InputError, match=rf"{name}: no column is named as ids are .*; name it with --id-column$"):
        convert(tmp_path / "q.csv", tmp_path / "out", files=files)
    files = TextFiles(corpora=(write(tmp_path / "c.csv", *ARTICLES),), queries=tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}: no column is named as (ids|texts) are .*first line"):
        convert(write(tmp_path / "p.csv", {"query_id": "1", "article_no": "8"}), tmp_path / "out", files=files)


def test_a_column_of_splits_keeps_test_rows_out_of_training(tmp_path: Path) -> None:
    rows = [
        {"split": split, "query": f"what is {split}", "answer": f"it is {split}"} for split in ("train", "dev", "test")
    ]
    source = write(tmp_path / "a.tsv", *rows)
    converted = convert(source, tmp_path / "out")
    assert (
        f"{source}: each row goes to the split in its 'split'; --ignore-column split puts all into one"
        in converted.notes
    )
    for split in ("train", "dev", "test"):
        assert judged(tmp_path / "out", split)[0] == {f"what is {split}": {f"it is {split}": 1}}
    assert len(load_dataset(source, "test").qrels) == 1
    convert(source, tmp_path / "one", columns=Columns(ignored=("split",)))
    assert len(judged(tmp_path / "one")[0]) == 3
    convert(write(tmp_path / "b.tsv", *(row | {"split": "a b"} for row in rows)), tmp_path / "b")
    assert len(judged(tmp_path / "b")[0]) == 3
    with pytest.raises(InputError, match=r"c\.jsonl:3: 'split' is 'None', none of train, training, dev"):
        convert(write(tmp_path / "c.jsonl", *rows[:2], {"query": "what", "answer": "so"}), tmp_path / "c")


@pytest.mark.parametrize("absent", [float("nan"), None])
@pytest.mark.parametrize("labels", [Labels(), Labels(positive=("1",)), Labels(threshold=1)])
def test_an_absent_label_makes_no_negative(tmp_path: Path, absent: float | None, labels: Labels) -> None:
    rows = [{"query": "q", "answer": f"text {n}", "label": label} for n, label in enumerate((1.0, 0.0, absent))]
    source = write(tmp_path / "a.parquet", *rows)
    converted = convert(source, tmp_path / "out", columns=Columns(labels=labels))
    assert judged(tmp_path / "out") == ({"q": {"text 0": 1}}, {"q": ["text 1"]})
    assert f"{source}: 1 pairs have a label in 'label' that makes them neither positive nor negative; left out" in (
        converted.notes
    )


def test_scores_with_decimal_commas(tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_text("sentence1;sentence2;score\na plane starts;it flies;4,75\na plane starts;it is red;0,5\n")
    convert(source, tmp_path / "out", columns=Columns(labels=Labels(threshold=4)))
    assert judged(tmp_path / "out") == ({"a plane starts": {"it flies": 4}}, {"a plane starts": ["it is red"]})
    source.write_text("sentence1;sentence2;score\na plane starts;it flies;5,000\n")
    with pytest.raises(InputError, match=r"a\.csv:2: expected a number as label, .* such as 4 or 0\.5; got '5,000'"):
        convert(source, tmp_path / "b", columns=Columns(labels=Labels(threshold=4)))


def test_lists_as_numpy_prints_them(tmp_path: Path) -> None:
    """`Dataset.to_csv` writes lists so."""
    source = tmp_path / "a.csv"
    source.write_text('query,document,labels\nwhat flows,"[\'a ""river""\' ""it\'s lava""\n \'stone\']",[1 1 0]\n')
    convert(source, tmp_path / "out")
    flows = {'a "river"': 1, "it's lava": 1}
    assert judged(tmp_path / "out") == ({"what flows": flows}, {"what flows": ["stone"]})
    source.write_text("query,positive,negatives,scores\nwhat flows,rivers,['stone' 'lava'],[0.5 -1.  2.5e-1]\n")
    convert(source, tmp_path / "b")
    assert judged(tmp_path / "b")[1] == {"what flows": ["stone", "lava"]}
    assert sorted(next(iter(read_run(tmp_path / "b/negatives/teacher.run").values())).values()) == [-1.0, 0.25, 0.5]


def test_a_column_for_two_purposes_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", {"query": "what flows", "positive": "rivers"})
    with pytest.raises(InputError, match=r"column 'query' is named for two purposes"):
        convert(source, tmp_path / "out", columns=Columns(query="query", positive="query"))


def test_instructions_of_queries_are_kept(tmp_path: Path) -> None:
    rows = [{"instruction": one, "query": f"q {one}", "positive": f"p {one}"} for one in ("find rivers", "")]
    convert(write(tmp_path / "a.csv", *rows), tmp_path / "out")
    assert [item.instruction for item in load_dataset(tmp_path / "out", "train").queries] == ["find rivers", None]
    alpaca = write(tmp_path / "b.jsonl", {"instruction": "name a river in France", "answer": "the Rhone"})
    convert(alpaca, tmp_path / "b", columns=Columns(query="instruction"))
    assert judged(tmp_path / "b")[0] == {"name a river in France": {"the Rhone": 1}}


def test_files_of_documents_with_columns_of_their_own(tmp_path: Path) -> None:
    """A flag counts in the files that have its column."""
    first = write(tmp_path / "a.csv", {"doc": "a1", "note": "none", "full": "a river flows"})
    second = write(tmp_path / "b.jsonl", {"id": "b1", "text": "a stone is grey"})
    pairs = write(tmp_path / "q.csv", {"query": "what flows", "id": "a1"}, {"query": "what is grey", "id": "b1"})
    files = TextFiles(corpora=(first, second), columns=TextColumns(id="doc", texts=("full",)))
    convert(pairs, tmp_path / "out", files=files)
    assert judged(tmp_path / "out")[0] == {"what flows": {"a river flows": 1}, "what is grey": {"a stone is grey": 1}}
    files = TextFiles(corpora=(first, second), columns=TextColumns(id="docs"))
    with pytest.raises(InputError, match=r"a\.csv: unknown column 'docs'"):
        convert(pairs, tmp_path / "b", files=files)
