"""Runs and qrels: round trips, the order of ties, and the line of every fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedtune.data.trec import judgements, read_qrels, read_run, write_qrels, write_run
from embedtune.errors import InputError

# Anything that is not a blank or a control character, other kinds of spaces and line ends included.
IDS = st.text(st.characters(exclude_categories=["Cs"], min_codepoint=0x21, exclude_characters="\x7f"), min_size=1)
SCORES = st.floats(allow_nan=False, allow_infinity=False)
RUNS = st.dictionaries(IDS, st.dictionaries(IDS, SCORES, min_size=1, max_size=5), max_size=5)
QRELS = st.dictionaries(IDS, st.dictionaries(IDS, st.integers(-2, 5), min_size=1, max_size=5), max_size=5)
ROUND_TRIP = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)


@ROUND_TRIP
@given(run=RUNS)
def test_a_run_reads_back_as_written(tmp_path: Path, run: dict[str, dict[str, float]]) -> None:
    write_run(tmp_path / "a.run", run, "a tag")
    assert read_run(tmp_path / "a.run") == run


@ROUND_TRIP
@given(qrels=QRELS)
def test_qrels_read_back_as_written(tmp_path: Path, qrels: dict[str, dict[str, int]]) -> None:
    write_qrels(tmp_path / "test.tsv", qrels)
    assert read_qrels(tmp_path / "test.tsv") == qrels


def test_a_run_is_written_as_trec_eval_orders_it(tmp_path: Path) -> None:
    tenth = np.float32(0.1)
    write_run(tmp_path / "a.run", {"q1": {"d1": 1.0, "d10": float(tenth), "d9": float(tenth), "d2": 1.0}}, "my model")
    assert (tmp_path / "a.run").read_text().splitlines() == [
        "q1 Q0 d2 1 1.0 my_model",
        "q1 Q0 d1 2 1.0 my_model",
        "q1 Q0 d9 3 0.10000000149011612 my_model",
        "q1 Q0 d10 4 0.10000000149011612 my_model",
    ]
    assert np.float32(read_run(tmp_path / "a.run")["q1"]["d9"]) == tenth


@pytest.mark.parametrize(
    "text",
    ["q1 Q0 d1 0 2.5 x\nq1\tQ0\td2\t1\t-1e-3\tx\n", "q1 d1 2.5\r\n\r\nq1  d2  -0.001\r\n"],
    ids=["6 columns from rank 0", "3 columns"],
)
def test_both_forms_of_a_run_are_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.run").write_text(text)
    assert read_run(tmp_path / "a.run") == {"q1": {"d1": 2.5, "d2": -0.001}}


@pytest.mark.parametrize(
    "text",
    [
        "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t-1\n",
        "query_id corpus_id score\nq1 d1 2\nq1 d2 -1",
        "q1\td1\t2\nq1\td2\t-1\n",
        "q1 0 d1 2\nq1 0 d2 -1\nq1 0 d1 2\n",
    ],
    ids=["BEIR", "BEIR with blanks", "3 columns", "TREC"],
)
def test_every_form_of_qrels_is_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "test.tsv").write_text(text)
    assert read_qrels(tmp_path / "test.tsv") == {"q1": {"d1": 2, "d2": -1}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"q1 d1 nan", "score must be a finite number, got 'nan'"),
        (b"q1 d1 inf", "score must be a finite number, got 'inf'"),
        (b"q1 Q0 d1 1 high x", "score must be a finite number, got 'high'"),
        (b"q1 Q0 d1 first 1.0 x", "rank must be a whole number, got 'first'"),
        (b"q0 d0 0.5", "document 'd0' is given twice for query 'q0'"),
        (b"q1 d1", "expected 6 columns `query Q0 document rank score tag` or 3 columns `query document score`, got 2"),
        (b"q1 d\xff 1", "not valid UTF-8 (byte 0xff at column 5); save the file as UTF-8"),
    ],
)
def test_a_fault_of_a_run_is_told_with_its_line(tmp_path: Path, line: bytes, message: str) -> None:
    (tmp_path / "a.run").write_bytes(b"q0 d0 1\n" + line + b"\n")
    with pytest.raises(InputError) as caught:
        read_run(tmp_path / "a.run")
    assert str(caught.value) == f"{tmp_path / 'a.run'}:2: {message}"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1 d1 1.5", "relevance must be a whole number, got '1.5'"),
        ("q1 d1", "expected 3 columns `query-id corpus-id score`, got 2"),
        ("q1 0 d1 1", "expected 3 columns `query-id corpus-id score`, got 4"),
        ("q0 d0 0", "document 'd0' is judged 1 and 0 for query 'q0'"),
    ],
)
def test_a_fault_of_qrels_is_told_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "test.tsv").write_text(f"query-id corpus-id score\nq0 d0 1\n{line}\n")
    with pytest.raises(InputError) as caught:
        read_qrels(tmp_path / "test.tsv")
    assert str(caught.value) == f"{tmp_path / 'test.tsv'}:3: {message}"


def test_another_header_is_not_taken_for_one(tmp_path: Path) -> None:
    (tmp_path / "test.tsv").write_text("query\tdoc\trelevance\nq1\td1\t1\n")
    with pytest.raises(InputError, match=r"test\.tsv:1: relevance must be a whole number, got 'relevance'"):
        read_qrels(tmp_path / "test.tsv")


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the score of document 'd1' for query 'q1' is nan: not a number"):
        write_run(tmp_path / "a.run", {"q1": {"d1": float("nan")}}, "x")
    with pytest.raises(InputError, match="id 'd 1' has white space"):
        write_run(tmp_path / "a.run", {"q1": {"d 1": 1.0}}, "x")
    with pytest.raises(InputError, match="id 'd 1' has white space"):
        write_qrels(tmp_path / "test.tsv", {"q1": {"d 1": 1}})
    assert list(tmp_path.iterdir()) == []


def test_the_real_qrels_round_trip(shared: Path, tmp_path: Path) -> None:
    for name in ("scifact", "cranfield", "dbpedia-5k"):
        qrels = read_qrels(shared / name / "qrels" / "test.tsv")
        write_qrels(tmp_path / f"{name}.tsv", qrels)
        assert read_qrels(tmp_path / f"{name}.tsv") == qrels


@pytest.mark.parametrize(
    ("lines", "is_refused"),
    [
        (["q1 a 1 0.1", "q1 b 2 0.1", "q1 c 3 0.4"], True),
        (["q1 a 1 1", "q1 b 2 2", "q2 a 1 1", "q2 b 2 2", "q3 a 1 3", "q3 b 2 2"], True),
        (["q1 b 2 2", "q2 b 2 2", "q1 a 1 1", "q2 a 1 1"], True),  # in no order
        (["q1 a 1 1", "q1 b 2 2", "q2 a 1 2", "q2 b 2 1"], False),  # not for most queries
        (["q1 a 1 1", "q1 b 2 1", "q2 a 1 1"], False),  # one value
        (["q1 a 0 1", "q1 b 0 2"], False),  # ranks that are not filled in
        (["q1 a 1 1", "q1 b 2 2", "q1 c 3 1.5"], False),
        (["q1 a 1 0.9", "q1 b 2 0.1"], False),
    ],
)
def test_scores_that_rise_with_the_rank_are_refused(tmp_path: Path, lines: list[str], is_refused: bool) -> None:
    rows = [line.split() for line in lines]
    (tmp_path / "a.run").write_text("".join(f"{q} Q0 {d} {rank} {score} x\n" for q, d, rank, score in rows))
    if not is_refused:
        assert read_run(tmp_path / "a.run")
        return
    with pytest.raises(InputError, match=r"a\.run: column 5 rises with the rank: a distance or a rank stands where a"):
        read_run(tmp_path / "a.run")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("blank", ["", "\n", " \t\n"])
@pytest.mark.parametrize(
    "line", ["q9\td9\t2", "  q9   d9\t 2  ", "q9 d9 2", "q\u00a09\td\u20289\t2", "\ufeffq9\td9\t2"]
)
def test_lines_read_together_are_those_read_one_by_one(tmp_path: Path, line: str, blank: str, end: str) -> None:
    lines = [f"q{row}\td{row}\t{row % 3 - 1}\n" for row in range(9)] + [f"{line}\n{blank}", "q10\td10\t+1\n"]
    together, alone = tmp_path / "together.tsv", []
    header = "query-id\tcorpus-id\tscore\n"
    together.write_bytes((header + "".join(lines)).replace("\n", end).encode())
    for row, text in enumerate(lines):
        (tmp_path / "one.tsv").write_bytes(text.replace("\n", end).encode())
        alone += [(row + 2 + (row == 10 and bool(blank)), *judged[1:]) for judged in judgements(tmp_path / "one.tsv")]
    assert list(judgements(together)) == alone
    assert len(alone) == 11
    without_end = together.with_name("without-end.tsv")
    without_end.write_bytes(together.read_bytes().rstrip(b"\r\n"))
    assert list(judgements(without_end)) == alone
