"""All faults of a folder at once: a folder with one of each, and the real sets' own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from embedtune.data.check import FolderCheck, check
from embedtune.data.dataset import load_dataset
from embedtune.errors import InputError

MakeFolder = Callable[..., Path]


def found(report: FolderCheck) -> dict[tuple[str, str, str], list[str]]:
    """(severity, kind, file) -> places, without the folder's path."""
    prefix = f"{report.folder}/"
    return {
        (fault.severity, fault.kind, fault.file): [place.replace(prefix, "") for place in fault.where]
        for fault in report.faults
    }


@pytest.fixture
def broken(make_folder: MakeFolder) -> Path:
    return make_folder(
        corpus=(
            b'{"_id": "d1", "title": "Bread", "text": "is baked"}',
            b'{"_id": "d2", "text": "caf\xe9"}',
            b'{"_id": "d3", "text": "unfinished',
            b'{"text": "no id"}',
            b'{"_id": "d1", "text": "again"}',
            b'{"_id": "d4", "text": "BREAD  is\\tbaked"}',
            b'{"_id": "d5", "text": " "}',
            b'{"_id": "d6", "text": 5}',
            b'{"_id": "d7", "text": "na\xef\xbf\xbdve"}',
            b'{"_id": "d8", "image": "images/none.png"}',
            b'{"_id": "d9", "image": "../up.png"}',
            b'{"_id": "d10", "text": "unfinished too',
        ),
        queries=(
            b'{"_id": "q1", "text": "what"}',
            b'{"_id": "q2", "text": ""}',
            b'{"_id": "q3", "text": "where"}',
            b'{"_id": "q4", "text": "spare"}',
        ),
        qrels={
            "train": "q1\td1\t1\nq3\td4\t1\n",
            "test": "q1\td1\t1\nq2\td7\t0\nq2\td99\t1\nq2\td99\t1\nq8\td1\tx\nq9\td1\t1\nq2\td7\t2\nq3\td7\t0\n",
        },
    )


def test_every_fault_is_found_at_once(broken: Path) -> None:
    report = check(broken)
    assert found(report) == {
        ("error", "encoding", "corpus.jsonl"): [
            "corpus.jsonl:2: not valid UTF-8 (byte 0xe9 at column 27); save the file as UTF-8"
        ],
        ("error", "malformed line", "corpus.jsonl"): [
            "corpus.jsonl:3: not valid JSON: Unterminated string starting at (column 23)",
            "corpus.jsonl:12: not valid JSON: Unterminated string starting at (column 24)",
        ],
        ("error", "missing id", "corpus.jsonl"): ['corpus.jsonl:4: no "_id"; every line needs one'],
        ("error", "duplicate id", "corpus.jsonl"): ["corpus.jsonl:5: _id 'd1' is also on line 1"],
        ("error", "wrong type", "corpus.jsonl"): ['corpus.jsonl:8: "text" must be a string, got 5'],
        ("error", "image outside", "corpus.jsonl"): [
            f"corpus.jsonl:11: \"image\" must be a path inside {broken}, got '../up.png'"
        ],
        ("error", "missing image", "corpus.jsonl"): ["corpus.jsonl:10: 'd8' names images/none.png, which is absent"],
        ("error", "malformed line", "qrels/test.tsv"): ["qrels/test.tsv:5: relevance must be a whole number, got 'x'"],
        ("error", "contradiction", "qrels/test.tsv"): [
            "qrels/test.tsv:7: document 'd7' is judged 0 and 2 for query 'q2'"
        ],
        ("error", "absent query", "qrels/test.tsv"): ["qrels/test.tsv:6: query 'q9' is not in queries.jsonl"],
        ("error", "absent document", "qrels/test.tsv"): ["qrels/test.tsv:3: document 'd99' is not in corpus.jsonl"],
        ("error", "query in two splits", "qrels/test.tsv"): [
            "query 'q1' is judged in train as well",
            "query 'q3' is judged in train as well",
        ],
        ("warning", "empty documents", "corpus.jsonl"): ["corpus.jsonl:7: 'd5' has no text and no image"],
        ("warning", "equal documents", "corpus.jsonl"): ["corpus.jsonl:6: 'd4' is the same as 'd1'"],
        ("warning", "damaged text", "corpus.jsonl"): [
            "corpus.jsonl:9: 'd7' holds U+FFFD, left by an earlier decoding error"
        ],
        ("warning", "empty queries", "queries.jsonl"): ["queries.jsonl:2: 'q2' has no text and no image"],
        ("warning", "query without judgement", "queries.jsonl"): ["query 'q4' is in no split"],
        ("warning", "judged twice", "qrels/test.tsv"): [
            "qrels/test.tsv:4: document 'd99' is judged again for query 'q2'"
        ],
        ("warning", "query without positive", "qrels/test.tsv"): ["query 'q3' has no positive"],
        ("warning", "positive in two splits", "qrels/test.tsv"): ["document 'd1' is a positive of train as well"],
    }
    assert report.errors == 14
    assert report.counts == {
        "documents": 5,
        "images": 1,
        "queries": 4,
        "test: queries": 4,
        "test: judgements": 5,
        "test: positives": 3,
        "train: queries": 2,
        "train: judgements": 2,
        "train: positives": 2,
    }


def test_a_folder_without_fault(make_folder: MakeFolder) -> None:
    report = check(make_folder())
    assert report.faults == []
    assert report.errors == 0


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"corpus": ()}, "no documents"),
        ({"queries": ()}, "no queries"),
        ({"qrels": {}}, "no judgements"),
        ({"qrels": {"test": "q1\td1\t0\n"}}, "no positive"),
        ({"qrels": {"test": ""}}, "no positive"),
    ],
)
def test_what_loading_refuses_is_an_error(make_folder: MakeFolder, change: dict[str, object], kind: str) -> None:
    folder = make_folder(**change)
    assert kind in [fault.kind for fault in check(folder).faults if fault.severity == "error"]
    with pytest.raises(InputError):
        load_dataset(folder)


def test_a_missing_file_does_not_hide_other_faults(make_folder: MakeFolder) -> None:
    folder = make_folder(queries=(b"{",))
    (folder / "corpus.jsonl").unlink()
    kinds = [fault.kind for fault in check(folder).faults]
    assert kinds == ["missing file", "malformed line", "no queries", "absent query", "absent document"]


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none: no such folder; expected corpus\.jsonl, queries\.jsonl and"):
        check(tmp_path / "none")


def test_the_command_counts_names_and_ends_with_1(
    broken: Path, make_folder: MakeFolder, run_cli: Callable[..., object]
) -> None:
    result = run_cli("data", "check", broken)
    assert result.exit_code == 1
    assert "documents\t5" in result.stdout
    assert f"error\tencoding\t1\t{broken}/corpus.jsonl:2: not valid UTF-8" in result.stdout
    assert result.stderr.endswith(f"missed: {broken}: 14 errors\n")
    result = run_cli("data", "check", broken, "--json")
    report = json.loads(result.stdout)
    assert report["counts"]["documents"] == 5
    assert report["faults"][0]["severity"] == "error"
    assert sum(fault["count"] for fault in report["faults"] if fault["severity"] == "error") == 14
    only_warnings = make_folder(corpus=(b'{"_id": "d1", "text": "a"}', b'{"_id": "d2"}'), name="warned")
    result = run_cli("data", "check", only_warnings)
    assert (result.exit_code, "warning\tempty documents\t1" in result.stdout) == (0, True)


def test_the_real_sets_have_warnings_only(shared: Path) -> None:
    counted = {
        "scifact": {"damaged text": 6, "equal queries": 4, "positive in two splits": 181},
        "cranfield": {"empty documents": 2},
        "dbpedia-5k": {"query without judgement": 10},
        "scifact-mini": {"damaged text": 1, "equal queries": 4, "positive in two splits": 181},
    }
    for name, warnings in counted.items():
        report = check(shared / name)
        assert report.errors == 0
        assert {f.kind: f.count for f in report.faults if not f.kind.startswith("near-duplicate")} == warnings


def test_texts_as_html_writes_them_are_a_warning(make_folder: MakeFolder) -> None:
    corpus = (b'{"_id": "d1", "text": "Tom &amp; Jerry"}', b'{"_id": "d2", "text": "R&D; a & b"}')
    faults = {fault.kind: fault for fault in check(make_folder(corpus=corpus)).faults}
    assert faults["HTML entities"].where[0].endswith("corpus.jsonl:1: 'd1' holds '&amp;', as HTML writes it")
    assert (faults["HTML entities"].severity, faults["HTML entities"].count) == ("warning", 1)


def test_every_case_of_a_character_is_the_same_text(make_folder: MakeFolder) -> None:
    folding = [c for c in map(chr, range(0x110000)) if not 0xD800 <= ord(c) < 0xE000 and c.casefold() != c]
    pairs = [(f"{row} a{c}\u2003b", f"{row}  a{c.casefold()} b\n") for row, c in enumerate(folding)]
    texts = [text for pair in pairs for text in pair]
    lines = [json.dumps({"_id": f"d{row}", "text": text}).encode() for row, text in enumerate(texts)]
    report = check(
        make_folder(
            corpus=(b'{"_id": "d1000000", "text": "b a0"}', b'{"_id": "d2000000", "text": "a0 b"}', *lines),
            qrels={"test": "q1\td0\t1\n"},
        )
    )
    equal = [fault for fault in report.faults if fault.kind == "equal documents"]
    assert [fault.count for fault in equal] == [len(folding)]


def test_an_id_of_a_line_far_above_is_repeated_and_its_line_is_no_item(make_folder: MakeFolder) -> None:
    lines = [json.dumps({"_id": f"d{row}", "text": f"{row} " + "x" * 200}).encode() for row in range(5000)]
    repeated = [
        b'{"_id": "d7", "text": ""}',
        b'{"_id": "d8", "text": "\xef\xbf\xbd"}',
        b'{"_id": 9.0}',
        b'{"_id": "d7"}',
    ]
    report = check(make_folder(corpus=(*lines, *repeated), qrels={"test": "q1\td0\t1\n"}))
    assert report.counts["documents"] == 5000
    found = {
        fault.kind: [sentence.partition("corpus.jsonl:")[2] for sentence in fault.where] for fault in report.faults
    }
    assert {kind: where for kind, where in found.items() if kind not in ("query without judgement",)} == {
        "duplicate id": [
            "5001: _id 'd7' is also on line 8",
            "5002: _id 'd8' is also on line 9",
            "5004: _id 'd7' is also on line 8",
        ],
        "wrong type": ['5003: "_id" must be a string, got 9.0'],
    }
