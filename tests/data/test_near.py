"""Near-duplicates between train and test: found with their similarity, and not looked for without a word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from embedtune.data import near
from embedtune.data.check import check
from embedtune.data.dataset import load_dataset
from embedtune.data.mend import mend
from embedtune.errors import InputError

MakeFolder = Callable[..., Path]


@pytest.fixture
def leaking(make_folder: MakeFolder) -> Path:
    return make_folder(
        corpus=(
            b'{"_id": "d1", "text": "How long do lithium batteries last in winter?"}',
            b'{"_id": "d2", "text": "no"}',
        ),
        queries=(
            b'{"_id": "t1", "text": "how long do lithium batteries last in winter"}',
            b'{"_id": "t2", "text": "what flows"}',
            b'{"_id": "n1", "text": "how long do lithium batteries  last in Winter"}',
            b'{"_id": "n2", "text": "how long does bread dough have to rest"}',
        ),
        qrels={"train": "n1\td1\t1\nn2\td2\t1\n", "test": "t1\td2\t1\nt2\td2\t1\n"},
    )


def test_the_similarity_is_the_share_of_common_characters_in_a_row() -> None:
    pytest.importorskip("datasketch", reason="pip install 'embedtune[near-duplicates]'")
    others = {"a": "abcdefghijklmnopqrsX", "b": "Abcdefghijklmnopqrstu", "c": "zzzz", "d": ""}
    # 17 pieces of 4 characters: 16 are also those of "a", which has 17; all 17 are those of "b", which has 18.
    assert near.near({"q": "abcdefghijklmnopqrst", "r": ""}, others, 0.8) == [
        near.Near(item_id="q", other_id="b", similarity=pytest.approx(17 / 18))
    ]
    assert near.near({"q": "abcdefghijklmnopqrst"}, others, 0.95) == []
    with pytest.raises(InputError, match=r"expected a similarity from 0\.6 to 1, got 0\.5"):
        near.near({}, {}, 0.5)


def test_a_query_that_is_nearly_one_of_train_is_a_warning(leaking: Path, tmp_path: Path) -> None:
    pytest.importorskip("datasketch", reason="pip install 'embedtune[near-duplicates]'")
    report = check(leaking)
    found = {fault.kind: fault.where for fault in report.faults if fault.kind.startswith("near-duplicate")}
    assert found["near-duplicate of a query"][0].startswith("query 't1' is nearly train's query 'n1' (1.00): 'how long")
    assert found["near-duplicate of a positive"][0].startswith("query 't1' is nearly train's positive 'd1' (0.98): ")
    assert [len(where) for where in found.values()] == [1, 1]
    mend(report, tmp_path / "mended")
    assert load_dataset(tmp_path / "mended", "train").qrels == {"n2": {"d2": 1}}


def test_texts_that_are_not_compared_are_said(leaking: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "MOST", 5)
    assert check(leaking).notes == [
        "test: near-duplicates in train were not looked for (6 texts; then --similarity 0.8)"
    ]


def test_scifact_has_the_near_duplicates_that_comparing_all_pairs_finds(shared: Path) -> None:
    pytest.importorskip("datasketch", reason="pip install 'embedtune[near-duplicates]'")
    (found,) = [fault for fault in check(shared / "scifact-mini").faults if fault.kind.startswith("near-duplicate")]
    test, train = load_dataset(shared / "scifact-mini", "test"), load_dataset(shared / "scifact-mini", "train")

    def pieces(text: str) -> set[str]:
        folded = " ".join(text.lower().split())
        return {folded[at : at + 4] for at in range(len(folded) - 3)}

    known = [pieces(train.queries[query_id].content) for query_id in train.qrels]
    asked = [pieces(test.queries[query_id].content) for query_id in test.qrels]
    expected = sum(any(len(one & other) >= 0.8 * len(one | other) for other in known) for one in asked)
    assert (found.kind, found.count) == ("near-duplicate of a query", expected)
    assert expected == 59
