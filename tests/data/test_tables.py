"""Rows of every kind of file, in every dialect of CSV, plain and compressed; bad lines counted."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedtune.data.tables import BadLines, Dialect, dialect_of, rows_of
from embedtune.errors import InputError

ROWS = [
    {"id": "007", "query": "what, then; flows", "answer": 'rivers "flow"'},
    {"id": "8", "query": "x", "answer": "y"},
]


def as_csv(delimiter: str) -> bytes:
    import csv
    import io

    text = io.StringIO()
    writer = csv.DictWriter(text, ROWS[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def as_parquet() -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(ROWS), sink)
    return bytes(sink.getvalue())


FILES = {
    ".jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    ".json": json.dumps(ROWS, indent=1).encode(),
    ".csv": as_csv(","),
    ".tsv": as_csv("\t"),
    ".parquet": as_parquet(),
}


@pytest.mark.parametrize("pack", [None, gzip, bz2, lzma], ids=["plain", "gz", "bz2", "xz"])
@pytest.mark.parametrize("suffix", FILES)
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, suffix: str, pack: Any) -> None:
    packed = {None: "", gzip: ".gz", bz2: ".bz2", lzma: ".xz"}[pack]
    path = tmp_path / f"rows{suffix}{packed}"
    path.write_bytes(pack.compress(FILES[suffix]) if pack else FILES[suffix])
    assert [values for _, values in rows_of(path)] == ROWS


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", as_csv(";")),
        ("a.csv", as_csv("\t")),
        ("a.csv", as_csv("|")),
        ("a.tsv", as_csv(",")),
        ("a.CSV", b"\xef\xbb\xbf" + as_csv(";")),
        ("a.csv", b"sep=;\r\n" + as_csv(";")),
        ("a.csv", b"\n\n" + as_csv(";").replace(b"\r\n", b"\n")),
        ("a.json", FILES[".jsonl"]),
        ("a.json", json.dumps({"data": ROWS}).encode()),
        ("a.json", json.dumps({name: {str(n): row[name] for n, row in enumerate(ROWS)} for name in ROWS[0]}).encode()),
        ("a.tsv", b'id\tquery\tanswer\n007\twhat, then; flows\trivers "flow"\n8\tx\ty\n'),
    ],
)
def test_dialects_are_seen_in_the_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert [values for _, values in rows_of(tmp_path / name)] == ROWS


def test_a_delimiter_within_texts_does_not_decide(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question;answer\nWhat, then, flows?;Rivers, as a rule\nAnd, say, lava?;It, too, flows\n")
    assert dialect_of(path) == Dialect(";")
    path.write_text('question,answer\n"a; b; c","d; e"\n"f; g; h","i; j"\n')
    assert dialect_of(path) == Dialect(",")
    path.write_text('question,answer\n"one\nof many\nlines","d"\n"f","i"\n')
    assert dialect_of(path) == Dialect(",")


def test_a_quote_at_the_start_of_a_tab_separated_cell_is_text(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('query\tanswer\n"Hello" said who\tthe man\n"Is it\tyes\n')
    assert [tuple(values.values()) for _, values in rows_of(path)] == [
        ('"Hello" said who', "the man"),
        ('"Is it', "yes"),
    ]
    path.write_text('query\tanswer\n"with\ta tab"\t"and ""quotes"""\nx\ty\n')
    assert [tuple(values.values()) for _, values in rows_of(path)] == [("with\ta tab", 'and "quotes"'), ("x", "y")]


def test_row_numbers_without_a_name_are_a_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",query,answer\n0,q,a\n")
    assert [values for _, values in rows_of(tmp_path / "a.csv")] == [{"column 1": "0", "query": "q", "answer": "a"}]


def test_bad_lines_are_left_out_and_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'query,answer\na,b\nc\nd,"e"f\ng,\xff\nh,i\n')
    bad = BadLines(3)
    assert [values["query"] for _, values in rows_of(path, bad)] == ["a", "h"]
    assert [str(fault).partition(": ")[0] for fault in bad.faults] == [f"{path}:{line}" for line in (3, 4, 5)]
    with pytest.raises(InputError, match=r"a\.csv:5: not valid UTF-8.*; bad lines left out before: 2, the first "):
        list(rows_of(path, BadLines(2)))
    with pytest.raises(InputError, match=r"a\.csv:3: expected 2 columns .* \(`embedtune data convert --skip-bad N`"):
        list(rows_of(path, BadLines()))


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_bad_lines_of_json(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text('{"a": 1}\n[2]\n{"a": 3}\n' if suffix == ".jsonl" else '[{"a": 1}, [2], {"a": 3}]')
    bad = BadLines(1)
    assert [values for _, values in rows_of(path, bad)] == [{"a": 1}, {"a": 3}]
    assert len(bad.faults) == 1


def cut(content: bytes) -> bytes:
    return gzip.compress(content)[:-9]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"plain text", "cannot be read: Not a gzipped file"),
        (cut(FILES[".csv"] * 50), "cannot be read: Compressed file ended before"),
    ],
)
def test_a_damaged_archive_is_told(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.csv.gz").write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(rows_of(tmp_path / "a.csv.gz"))


def test_an_archive_of_one_endless_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedtune.data.jsonl.LONGEST_LINE", 1000)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"x" * 5000))
    with pytest.raises(InputError, match=r"a\.jsonl\.gz:1: a line of 1,000 bytes or more; unpack the file"):
        list(rows_of(tmp_path / "a.jsonl.gz"))


def test_a_folder_of_compressed_judgements_is_read(make_folder: Callable[..., Path]) -> None:
    from embedtune.data.trec import read_qrels

    path = make_folder() / "qrels" / "test.tsv"
    packed = path.with_suffix(".tsv.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_qrels(packed) == {"q1": {"d1": 1}, "q2": {"d2": 1}}


def test_a_quote_that_nothing_closes_does_not_swallow_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('query,positive\na,b\nc,"d\ne,f\ng,h\n')
    faults = BadLines(5)
    with pytest.raises(
        InputError, match=r"a\.csv:3: a quote opens in this row and nothing closes it up to the end, line 5; "
    ):
        list(rows_of(path, faults))
    path.write_text('query,positive\na,b\nc,"d\ne,f"x\ng,h\n')
    assert [values["query"] for _, values in rows_of(path, faults)] == ["a", "g"]
    assert str(faults.faults[0]).startswith(f"{path}:3-4: not valid CSV: ")
