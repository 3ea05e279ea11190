"""Data as strangers have it, made of what every Python brings: its functions, its reference and HTTP's status codes."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable
from http import HTTPStatus
from pathlib import Path
from pydoc_data.topics import topics

from embedtune.demo.python_functions import make_functions

LONGEST = 600  # characters of an article: short texts, so that the day takes a minute
FEWEST_WORDS = 15  # of a paragraph of the reference
PARAGRAPHS = 3  # of a topic


def write_help_desk(folder: Path, articles: int = 160) -> None:
    """articles.csv, questions.csv (semicolons, article numbers, three bad lines) and statuses.csv (pairs of texts)."""
    make_functions(folder / "functions", documents=3 * articles)
    documents = {item["_id"]: item for item in _lines(folder / "functions" / "corpus.jsonl")}
    queries = {item["_id"]: item["text"] for item in _lines(folder / "functions" / "queries.jsonl")}
    judged = [
        line.split("\t")[:2]
        for split in ("train", "test")
        for line in (folder / "functions" / "qrels" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()[1:]
    ]
    short = [(queries[query_id], documents[doc_id]) for query_id, doc_id in judged]
    short = [(query, item) for query, item in short if len(item["text"]) <= LONGEST and ";" not in query][:articles]
    numbers = {item["_id"]: f"{number:05d}" for number, (_, item) in enumerate(short, start=1)}
    rows = [
        [numbers[item["_id"]], item["title"], item["text"], f"https://docs.python.org/3/library/{item['_id']}.html"]
        for _, item in short
    ]
    _write(folder / "articles.csv", ",", [["article_no", "heading", "body", "url"], *rows])
    asked = [[query, numbers[item["_id"]]] for query, item in short]
    asked[2:2] = [["how do I read a file line by line", ""], ["which function sorts a list", "99999"], ["see above"]]
    _write(folder / "questions.csv", ";", [["question", "article_no"], *asked])
    statuses = [[status.description, f"{status.value} {status.phrase}"] for status in HTTPStatus if status.description]
    _write(folder / "statuses.csv", ",", [["question", "answer"], *statuses])


def write_reference(folder: Path) -> None:
    """A BEIR folder of Python's language reference: a topic's title asks for its first paragraphs."""
    corpus, queries, qrels = [], [], []
    for name, text in sorted(topics.items()):
        title, *rest = [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text.strip())]
        title = re.sub(r"[*=-]{3,}.*", "", title).strip()
        prose = [paragraph for paragraph in rest if len(paragraph.split()) >= FEWEST_WORDS][:PARAGRAPHS]
        ids = [f"{name}-{number}" for number in range(len(prose))]
        corpus += [{"_id": doc_id, "text": paragraph} for doc_id, paragraph in zip(ids, prose, strict=True)]
        queries += [{"_id": name, "text": title}] if prose else []
        qrels += [[name, doc_id, "1"] for doc_id in ids]
    (folder / "qrels").mkdir(parents=True)
    for file, items in (("corpus", corpus), ("queries", queries)):
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    tested = {query["_id"] for query in queries[::3]}
    for split in ("train", "test"):
        rows = [row for row in qrels if (row[0] in tested) == (split == "test")]
        _write(folder / "qrels" / f"{split}.tsv", "\t", [["query-id", "corpus-id", "score"], *rows])


def _lines(path: Path) -> Iterable[dict[str, str]]:
    return map(json.loads, path.read_text(encoding="utf-8").splitlines())


def _write(path: Path, delimiter: str, rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)
