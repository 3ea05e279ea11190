"""A mended folder has no error, keeps what had none, and the folder it is made from stays as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from embedtune.data.check import check
from embedtune.data.dataset import load_dataset
from embedtune.data.mend import mend, mending_of
from embedtune.errors import InputError

MakeFolder = Callable[..., Path]


@pytest.fixture
def broken(make_folder: MakeFolder) -> Path:
    folder = make_folder(
        corpus=(
            b'{"_id": "d1", "title": "Bread", "text": "is baked", "metadata": {"kept": 1}}',
            b'{"_id": "d2", "text": "caf\xe9"}',
            b'{"_id": "d1", "text": "again"}',
            b"",
            b'{"_id": "d4", "text": "BREAD  is baked"}',
            b'{"_id": "d5", "text": " "}',
            b'{"_id": "d6", "text": "Rivers flow"}',
            b'{"_id": "d7", "image": "images/none.png"}',
        ),
        queries=(
            b'{"_id": "q1", "text": "what"}',
            b'{"_id": "q2", "text": "WHAT "}',
            b'{"_id": "q3", "text": "where"}',
        ),
        qrels={
            "train": "q1\td4\t1\nq3\td6\t1\n",
            "test": "q2\td1\t1\nq2\td4\t2\nq2\td5\t1\nq2\td99\t1\nq9\td1\t1\nq2\td6\tx\n",
        },
    )
    (folder / "negatives").mkdir()
    (folder / "negatives" / "given.run").write_text("q2 Q0 d6 1 2.0 given\nq2 Q0 d5 2 1.0 given\n")
    (folder / "excluded.tsv").write_text("query-id\tcorpus-id\nq2\td4\nq2\td5\n")
    return folder


def test_a_mended_folder_has_no_error(broken: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in broken.rglob("*") if path.is_file()}
    report = check(broken)
    assert report.errors > 0
    mended = mend(report, tmp_path / "mended")
    assert {path: path.read_bytes() for path in broken.rglob("*") if path.is_file()} == before
    again = check(tmp_path / "mended")
    assert (mended.errors, [fault.kind for fault in again.faults]) == (0, [fault.kind for fault in mended.faults])
    test, train = load_dataset(tmp_path / "mended", "test"), load_dataset(tmp_path / "mended", "train")
    assert list(test.corpus.ids) == ["d1", "d6"]
    assert list(test.queries.ids) == ["q1", "q3"]
    assert test.qrels == {"q1": {"d1": 2}}  # d4 is d1, q2 is q1, and the higher relevance stays
    assert train.qrels == {"q3": {"d6": 1}}  # q1 is a query of test
    assert (tmp_path / "mended/negatives/given.run").read_text() == "q1 Q0 d6 1 2.0 given\n"
    assert (tmp_path / "mended/excluded.tsv").read_text() == "query-id\tcorpus-id\nq1\td1\n"
    first = (broken / "corpus.jsonl").read_bytes().splitlines()[0]
    assert (tmp_path / "mended/corpus.jsonl").read_bytes().splitlines()[0] == first


def test_what_cannot_be_mended_is_said_and_nothing_is_written(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder(qrels={"test": "q1\td99\t1\n"})
    with pytest.raises(InputError, match=r"made: cannot be mended: .*qrels: no <split>\.tsv"):
        mend(check(folder), tmp_path / "mended")
    assert not (tmp_path / "mended").exists()
    with pytest.raises(InputError, match="lies inside"):
        mend(check(folder), folder / "mended")
    with pytest.raises(InputError, match="exists already"):
        mend(check(folder), tmp_path)


def test_every_fault_that_is_an_error_is_mended_or_said_to_stay(broken: Path) -> None:
    kinds = {fault.kind: mending_of(fault.kind) for fault in check(broken).faults}
    assert kinds["encoding"] == "the line is left out"
    assert kinds["equal queries"] == "the first stays and gets the judgements of all"
    assert mending_of("damaged text") == "stays as it is"


def test_the_command_shows_and_writes(broken: Path, tmp_path: Path, run_cli: Callable[..., object]) -> None:
    result = run_cli("data", "check", broken, "--fix")
    assert result.exit_code == 1
    assert "severity\tfault\tcount\twhere\tmending" in result.stdout
    assert result.stdout.count("the line is left out") == 2
    result = run_cli("data", "check", broken, "--fix", "--output", tmp_path / "mended", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["faults"][0]["mending"]
    assert f"written: {tmp_path / 'mended'} (documents 2, queries 2" in result.stderr
    result = run_cli("data", "check", broken, "--output", tmp_path / "other")
    assert (result.exit_code, "--output has no effect without --fix" in result.stderr) == (2, True)


def test_an_equal_document_does_not_lose_its_positive(make_folder: MakeFolder, tmp_path: Path) -> None:
    """The copy that is judged 0 stands first."""
    corpus = (b'{"_id": "d1", "text": "bread"}', b'{"_id": "d2", "text": "Bread"}', b'{"_id": "d3", "text": "stone"}')
    folder = make_folder(corpus=corpus, qrels={"test": "q1\td1\t0\nq1\td2\t2\nq1\td2\t3\nq1\td3\t0\n"})
    (folder / "negatives").mkdir()
    (folder / "negatives/teacher.run").write_text("q1 Q0 d2 1 0.9 teacher\n")
    mend(check(folder), tmp_path / "mended")
    assert load_dataset(tmp_path / "mended", "test").qrels == {"q1": {"d1": 2, "d3": 0}}
    assert (tmp_path / "mended/negatives/teacher.run").read_text() == "q1 Q0 d1 1 0.9 teacher\n"


def test_faults_of_excluded_documents_are_found_and_mended(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder(qrels={"test": "q1\td1\t1\n"})
    (folder / "excluded.tsv").write_text("query-id\tcorpus-id\nq1\td1\nq1\td99\nq1 d2 x\n")
    faults = {fault.kind: fault for fault in check(folder).faults if fault.file == "excluded.tsv"}
    assert {kind: (fault.severity, fault.where[0].split(": ")[0]) for kind, fault in faults.items()} == {
        "malformed line": ("error", f"{folder / 'excluded.tsv'}:4"),
        "absent excluded": ("warning", f"{folder / 'excluded.tsv'}:3"),
        "excluded positive": ("warning", f"{folder / 'excluded.tsv'}:2"),
    }
    mend(check(folder), tmp_path / "mended")
    assert (tmp_path / "mended/excluded.tsv").read_text() == "query-id\tcorpus-id\nq1\td1\n"
