"""Long documents as passages: where they are cut, their ids, and the cache of the spans."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from embedtune.data.jsonl import JsonLines
from embedtune.data.mixture import JoinedItems
from embedtune.data.passages import (
    PassageItems,
    Splitter,
    documents_of,
    is_split,
    passages_of,
    siblings,
    split,
    windows,
)
from embedtune.data.relevance import Relevance
from embedtune.types import Dataset


def offsets(texts: list[str]) -> list[list[tuple[int, int]]]:
    """Tokens of at most four letters, so that longer words have several."""
    return [[match.span() for match in re.finditer(r"\w{1,4}|[^\w\s]", text)] for text in texts]


def splitter(tokens: int = 16, stride: int = 4) -> Splitter:
    return Splitter(tokens=tokens, stride=stride, offsets=offsets, tokenizer="four letters")


def corpus(path: Path, documents: dict[str, tuple[str, str]]) -> JsonLines:
    lines = [json.dumps({"_id": d, "title": title, "text": text}) for d, (title, text) in documents.items()]
    path.write_text("\n".join(lines) + "\n")
    return JsonLines(path)


def numbered(count: int) -> str:
    return " ".join(f"w{number}" for number in range(count))


@pytest.fixture
def documents(tmp_path: Path) -> JsonLines:
    return corpus(
        tmp_path / "corpus.jsonl",
        {"a#1": ("Short", "one two"), "long": ("The title", numbered(40)), "empty": ("t " * 40, "")},
    )


def test_windows_share_the_stride_and_cover_the_text() -> None:
    text = numbered(30)
    spans = windows(text, offsets([text])[0], 10, 3)
    words = [text[start:end].split() for start, end in spans]
    assert words == [
        [f"w{n}" for n in range(10)],
        [f"w{n}" for n in range(7, 17)],
        [f"w{n}" for n in range(14, 24)],
        [f"w{n}" for n in range(21, 30)],
    ]
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)


def test_windows_begin_and_end_between_words_and_go_on_in_a_text_without_blanks() -> None:
    text = " ".join(["abcdefgh"] * 20)  # two tokens a word
    for start, end in windows(text, offsets([text])[0], 9, 3):
        assert set(text[start:end].split()) == {"abcdefgh"}
    endless = "x" * 400  # 100 tokens, no blank
    spans = windows(endless, offsets([endless])[0], 10, 9)
    assert all(end - start <= 40 for start, end in spans)
    assert [start for start, _ in spans] == sorted({start for start, _ in spans})
    assert spans[-1][1] == 400


def test_no_passage_is_longer_than_asked_and_each_begins_with_the_title(documents: JsonLines) -> None:
    passages = split(documents, splitter())
    assert isinstance(passages, PassageItems)
    assert list(passages.ids) == ["a#1#0", "long#0", "long#1", "long#2", "long#3", "empty#0"]
    listed = list(passages)
    assert [item.id for item in listed] == list(passages.ids)
    assert listed == [passages[item_id] for item_id in passages.ids]
    assert [passages.row(item_id) for item_id in passages.ids] == list(range(6))
    assert listed[0].content == "Short one two"
    for item in listed[1:5]:
        assert item.title == "The title"
        assert len(offsets([item.content])[0]) <= 16
    for item, (start, end) in zip(listed, passages.spans.tolist(), strict=True):
        assert item.text == documents[item.id.rpartition("#")[0]].text[start:end]
    assert " ".join(listed[1].text.split() + listed[2].text.split()[4:]).startswith(numbered(20))
    assert ("long#3" in passages, "long#4" in passages, "long" in passages, "no#0" in passages) == (True, *[False] * 3)


def test_a_long_title_is_cut_in_passages_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    items = corpus(tmp_path / "c.jsonl", {"d": (" ".join("abcdefghijkl"), numbered(40))})
    passages = list(split(items, splitter()))
    assert {item.title for item in passages} == {"a b c d e f"}  # (16 - 4) / 2 tokens
    assert "cut: 1 titles" in caplog.text


def test_spans_are_computed_once_for_a_corpus_a_tokenizer_and_a_setting(documents: JsonLines) -> None:
    first = split(documents, splitter())

    def refuse(texts: object) -> list[list[tuple[int, int]]]:
        raise AssertionError("split again")

    kept = Splitter(tokens=16, stride=4, offsets=refuse, tokenizer="four letters")
    assert list(split(documents, kept)) == list(first)
    assert split(documents, kept).fingerprint == first.fingerprint
    for other in ({"tokens": 17}, {"stride": 5}, {"tokenizer": "another"}):
        changed = Splitter(**{"tokens": 16, "stride": 4, "offsets": offsets, "tokenizer": "four letters", **other})
        assert split(documents, changed).fingerprint != first.fingerprint


def test_rows_lead_back_to_documents_also_in_a_mixture(tmp_path: Path, documents: JsonLines) -> None:
    other = corpus(tmp_path / "other.jsonl", {"x": ("", "word"), "y": ("", numbered(30))})
    mixture = split(JoinedItems({"one": documents, "two": other}), splitter())
    assert is_split(mixture)
    doc_ids, owners = documents_of(mixture)
    assert doc_ids == ["one/a#1", "one/long", "one/empty", "two/x", "two/y"]
    assert [doc_ids[number] for number in owners] == [item_id.rpartition("#")[0] for item_id in mixture.ids]
    assert passages_of(mixture, "two/x") == ["two/x#0"]
    assert siblings(mixture, "one/long#2") == ["one/long#0", "one/long#1", "one/long#2", "one/long#3"]
    assert passages_of(documents, "long") == ["long"]
    assert documents_of(documents)[1] is None


def test_no_passage_of_a_positive_may_be_a_negative(documents: JsonLines, tmp_path: Path) -> None:
    passages = split(documents, splitter())
    queries = corpus(tmp_path / "queries.jsonl", {"q": ("", "what is w9")})
    dataset = Dataset(
        folder=tmp_path,
        name="d",
        split="train",
        corpus=passages,
        queries=queries,
        qrels={"q": {"long#1": 1}},
        fingerprint="f",
    )
    relevance = Relevance(dataset)
    assert relevance.forbidden("q", list(passages.ids)) == [False, True, True, True, True, False]
    assert relevance.positives["q"] == {"long#1"}
    assert relevance.judged_positive("q") == {"long#0", "long#1", "long#2", "long#3"}


def test_owners_ascend(documents: JsonLines) -> None:
    _, owners = documents_of(split(documents, splitter()))
    assert owners.dtype == np.int64
    assert owners.tolist() == [0, 1, 1, 1, 1, 2]
