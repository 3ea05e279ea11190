"""Items of one file: what they hold, and the line that every fault is told with."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from pathlib import Path

import pytest

from embedtune.data.jsonl import JsonLines, parse_item, read_texts
from embedtune.errors import InputError
from embedtune.types import Item


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def test_items_are_read_by_id_and_in_order(tmp_path: Path) -> None:
    path = write(
        tmp_path / "corpus.jsonl",
        '{"_id": "ä1", "title": "Bröt", "text": "gebacken\u2028warm"}'.encode(),
        b"",
        b'{"_id": 7, "text": null, "image": "images/./7.png", "instruction": "find it", "metadata": {"a": 1}}\r',
        b'{"_id": "x", "text": "a\\ud83d\\ude00"}',
    )
    items = JsonLines(path)
    first = Item(id="ä1", title="Bröt", text="gebacken\u2028warm")
    second = Item(id="7", image=tmp_path / "images/7.png", instruction="find it")
    third = Item(id="x", text="a😀")
    assert list(items) == [first, second, third]
    assert [items["x"], items["ä1"], items["7"]] == [third, first, second]
    assert list(items.ids) == ["ä1", "7", "x"]
    assert len(items) == 3
    assert [items.row(item_id) for item_id in items.ids] == [0, 1, 2]
    assert "7" in items
    assert 7 not in items
    assert "y" not in items
    without = JsonLines(write(tmp_path / "texts.jsonl", b'{"_id": "x", "text": "a"}'))
    assert without.fingerprint == hashlib.sha256(without.path.read_bytes()).hexdigest()
    assert first.content == "Bröt gebacken\u2028warm"


def test_a_byte_order_mark_is_not_part_of_the_first_line(tmp_path: Path) -> None:
    items = JsonLines(write(tmp_path / "corpus.jsonl", b'\xef\xbb\xbf{"_id": "d1", "text": "a"}'))
    assert items["d1"].text == "a"


def test_a_text_of_a_million_characters_passes(tmp_path: Path) -> None:
    text = "é" * 1_000_000
    lines = [json.dumps({"_id": name, "text": text}, ensure_ascii=False).encode() for name in ("d1", "d2")]
    items = JsonLines(write(tmp_path / "corpus.jsonl", *lines))
    assert items["d2"].text == text


def test_texts_are_not_held_in_memory(tmp_path: Path) -> None:
    line = b'{"_id": "%d", "text": "' + b"x" * 10_000 + b'"}'
    path = write(tmp_path / "corpus.jsonl", *(line % n for n in range(2000)))
    tracemalloc.start()
    items = JsonLines(path)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(items) == 2000
    assert peak < path.stat().st_size / 10, (held, peak)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"_id": "d3", "text": "caf\xe9"}', "not valid UTF-8 (byte 0xe9 at column 27); save the file as UTF-8"),
        (b'{"_id": "d3", "text": "a"', "not valid JSON: Expecting ',' delimiter (column 26)"),
        pytest.param(b"[" * 200_000, "not valid JSON: nested too deeply", id="nested"),
        pytest.param(b"9" * 5000, "not valid JSON: Exceeds the limit (4300 digits)", id="digits"),
        (b'["d3", "a"]', 'expected a JSON object, got ["d3", "a"]'),
        (b'{"text": "a"}', 'no "_id"; every line needs one'),
        (b'{"_id": null, "text": "a"}', 'no "_id"; every line needs one'),
        (b'{"_id": "", "text": "a"}', '"_id": an id must not be empty'),
        (b'{"_id": "d 3", "text": "a"}', "id 'd 3' has white space in it, which TREC files cannot hold"),
        (b'{"_id": true, "text": "a"}', '"_id" must be a string, got true'),
        (b'{"_id": 1.5, "text": "a"}', '"_id" must be a string, got 1.5'),
        (b'{"_id": "d3", "text": ["a"]}', '"text" must be a string, got ["a"]'),
        (b'{"_id": "d3", "made": "yes"}', '"made" must be true or false, got "yes"'),
        (b'{"_id": "d3", "text": "a\\ud83d"}', "half of a surrogate pair (\\ud800 to \\udfff) stands alone"),
        (b'{"_id": "d3", "image": "../secret.png"}', "got '../secret.png'"),
        (b'{"_id": "d3", "image": "a/../../secret.png"}', "got 'a/../../secret.png'"),
        (b'{"_id": "d3", "image": "/etc/passwd"}', "got '/etc/passwd'"),
        (b'{"_id": "d3", "image": "a/.."}', '"image" must be a path inside'),
        (b'{"_id": "d1", "text": "b"}', "_id 'd1' is also on line 1"),
    ],
)
def test_a_fault_is_told_with_its_line(tmp_path: Path, line: bytes, message: str) -> None:
    path = write(tmp_path / "corpus.jsonl", b'{"_id": "d1", "text": "a"}', b"", line)
    with pytest.raises(InputError) as caught:
        JsonLines(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"corpus\.jsonl: no such file$"):
        JsonLines(tmp_path / "corpus.jsonl")


def test_a_file_that_changes_while_in_use_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "corpus.jsonl", b'{"_id": "d1", "text": "a"}', b'{"_id": "d2", "text": "b"}')
    items = JsonLines(path)
    write(path, b'{"_id": "d2", "text": "b"}')
    with pytest.raises(InputError, match=r"changed while it was in use \('d2' has moved\)"):
        items["d2"]
    with pytest.raises(InputError, match=r"changed while it was in use \('d1' has moved\)"):
        list(items)


@pytest.mark.parametrize(
    "line",
    [
        b'{"_id": "d1", "title": "T", "text": "a", "instruction": "i", "made": true, "metadata": {"a": [1, NaN]}}\r\n',
        b'{"_id": 12345678901234567890123, "title": null, "text": ""}\n',
        '{"_id": "ä", "text": "\\u00e9 \\ud83d\\ude00\u2028", "_id": "b"}\n'.encode(),
        b'{"_id": -0, "text": "a", "made": false, "image": null}',
    ],
)
def test_lines_read_together_are_the_items_read_one_by_one(line: bytes) -> None:
    texts = read_texts([line])
    assert texts is not None
    item = parse_item(line, "", Path())
    assert (texts.ids, texts.contents) == ([item.id], [item.content])


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"\xef\xbb\xbf{}",
        b'{"_id": "d", "text": "\xff"}',
        b'{"_id": "d", "m": "\xed\xa0\x80"}',
        b'{"_id": "d", "m": "\\ud800"}',
        b'{"_id": "d", "m": 01}',
        b'{"_id": "d", "m": "\x01"}',
        b'{"_id": "d", "m": ' + b"9" * 5000 + b"}",
        b'{"_id": "d", "m": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"_id": "d"}{"_id": "e"}',
        b'["_id"]',
        b'{"_id": 1.0}',
        b'{"_id": true}',
        b'{"_id": ""}',
        b'{"_id": null}',
        b'{"_id": "a\x7f"}',
        b'{"_id": "d", "title": 1}',
        b'{"_id": "d", "made": null}',
        b'{"_id": "d", "image": "a.png"}',
        b'{"_id": "c"}',
    ],
)
def test_a_line_that_is_no_plain_text_is_read_by_itself(line: bytes) -> None:
    assert read_texts([b'{"_id": "c"}']) is not None
    assert read_texts([b'{"_id": "c"}', line]) is None


def test_a_fault_far_into_a_file_is_told_with_its_line(tmp_path: Path) -> None:
    lines = [b'{"_id": "d%d", "text": "%s"}' % (n, b"x" * 100) for n in range(10_000)]
    path = write(tmp_path / "corpus.jsonl", *lines, b'{"_id": "d5000", "text": "again"}')
    with pytest.raises(InputError, match=r"corpus.jsonl:10001: _id 'd5000' is also on line 5001$"):
        JsonLines(path)
    items = JsonLines(write(path, *lines))
    assert [items[item_id].id for item_id in ("d0", "d4999", "d9999")] == ["d0", "d4999", "d9999"]
    assert items.ids[7777] == "d7777"
