"""Splits by query: seeded, whole, and without a test document among the training positives."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedtune.data.dataset import load_dataset, splits_of
from embedtune.data.split import connected, split_folder, split_qrels
from embedtune.data.trec import read_qrels
from embedtune.errors import InputError

NAMES = st.integers(0, 12).map(str)
QRELS = st.dictionaries(NAMES, st.dictionaries(NAMES, st.integers(0, 1), min_size=1, max_size=3), min_size=1)


def connected_by_force(qrels: dict[str, dict[str, int]]) -> list[list[str]]:
    """Joins any two groups that share a positive until no two do."""
    groups = [([q], {d for d, relevance in judged.items() if relevance > 0}) for q, judged in qrels.items()]
    joined = True
    while joined:
        joined = False
        for i in range(len(groups)):
            for j in range(i + 1, len(groups)):
                if groups[i][1] & groups[j][1]:
                    groups[i] = (groups[i][0] + groups[j][0], groups[i][1] | groups[j][1])
                    del groups[j]
                    joined = True
                    break
            if joined:
                break
    return sorted(sorted(queries) for queries, _ in groups)


@given(qrels=QRELS)
def test_queries_that_share_a_positive_are_one_group(qrels: dict[str, dict[str, int]]) -> None:
    assert groups_of(qrels) == connected_by_force(qrels)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_long_chain_of_shared_positives_is_one_group(seed: int) -> None:
    names = [f"q{row:04}" for row in range(3000)]
    random.Random(seed).shuffle(names)
    chain = {name: {f"d{place}": 1, f"d{place + 1}": 1} for place, name in enumerate(names)}
    apart = names.pop(1500)
    del chain[apart]
    assert groups_of(chain) == sorted([sorted(names[:1500]), sorted(names[1500:])])
    assert groups_of(dict(sorted(chain.items()))) == groups_of(chain)


def groups_of(qrels: dict[str, dict[str, int]]) -> list[list[str]]:
    query_ids, groups = sorted(qrels), {}
    for query_id, group in zip(query_ids, connected(qrels, query_ids).tolist(), strict=True):
        groups.setdefault(query_ids[group], []).append(query_id)
    assert all(first == group[0] for first, group in groups.items())
    return list(groups.values())


def made(queries: int) -> dict[str, dict[str, int]]:
    """Every third query shares its positive with the one before; all judge d0 as not relevant."""
    return {f"q{n}": {"d0": 0, f"d{n - (n % 3 == 2)}x": 1} for n in range(queries)}


def positives_of(qrels: dict[str, dict[str, int]]) -> list[str]:
    return [doc_id for judged in qrels.values() for doc_id, relevance in judged.items() if relevance > 0]


def test_parts_are_whole_and_share_no_positive() -> None:
    qrels = made(100)
    parts = split_qrels(qrels, {"test": 0.2, "validation": 0.1}, seed=3)
    assert {name: len(part) for name, part in parts.items()} == {"train": 70, "test": 20, "validation": 10}
    assert {q: judged for part in parts.values() for q, judged in part.items()} == qrels
    positives = [set(positives_of(part)) for part in parts.values()]
    assert sum(map(len, positives)) == len(set().union(*positives))


def test_the_seed_decides_and_the_order_does_not() -> None:
    qrels = made(100)
    shares = {"test": 0.2}
    assert split_qrels(qrels, shares) == split_qrels(dict(reversed(qrels.items())), shares)
    assert split_qrels(qrels, shares, seed=0) != split_qrels(qrels, shares, seed=1)
    assert list(split_qrels({"q2": {"d2": 1}, "q1": {"d1": 1}}, {"test": 0.5})["test"]) == ["q1"]


def test_overlap_where_it_is_allowed() -> None:
    qrels = {f"q{n}": {"d": 1} for n in range(10)}
    advice = (
        r"one group of 10 of the 10 queries shares positives; ask for less, or allow overlap \(`embedtune data split"
    )
    with pytest.raises(InputError, match="test would have 0 queries instead of 2: " + advice):
        split_qrels(qrels, {"test": 0.2})
    parts = split_qrels(qrels, {"test": 0.2}, allow_overlap=True)
    assert (len(parts["train"]), len(parts["test"])) == (8, 2)


@pytest.mark.parametrize("shares", [{}, {"test": 0.0}, {"test": -0.1}, {"test": 0.7, "validation": 0.3}])
def test_shares_that_leave_no_rest(shares: dict[str, float]) -> None:
    with pytest.raises(InputError, match="shares must be above 0 and leave a rest for 'train'; got "):
        split_qrels(made(10), shares)


def test_too_few_queries() -> None:
    with pytest.raises(InputError, match="train would have no queries: 2 are too few for these shares"):
        split_qrels(made(2), {"test": 0.4, "validation": 0.4}, allow_overlap=True)


def test_a_folder_is_copied_with_what_belongs_to_it(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_folder(
        corpus=tuple(b'{"_id": "d%d", "text": "a", "image": "images/%d.png"}' % (n, n % 2) for n in range(10)),
        queries=tuple(b'{"_id": "q%d", "text": "b"}' % n for n in range(10)),
        qrels={"train": "".join(f"q{n}\td{n}\t1\n" for n in range(8)), "seen": "q8\td8\t1\nq9\td9\t1\n"},
    )
    for name in (
        "images/0.png",
        "images/1.png",
        "images/unused.png",
        "negatives/given.run",
        "i2t/corpus.jsonl",
        ".lock",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(name.encode())
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    output = tmp_path / "out"
    parts = split_folder(folder, output, {"test": 0.25})
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    assert sorted(str(file.relative_to(output)) for file in output.rglob("*") if file.is_file()) == [
        ".embedtune.json",
        "corpus.jsonl",
        "images/0.png",
        "images/1.png",
        "negatives/given.run",
        "qrels/seen.tsv",
        "qrels/test.tsv",
        "qrels/train.tsv",
        "queries.jsonl",
    ]
    assert load_dataset(output, "test").qrels == parts["test"]
    assert load_dataset(output, "train").qrels == parts["train"]
    assert (len(parts["test"]), len(parts["train"])) == (2, 6)
    assert (output / "qrels" / "seen.tsv").read_bytes() == (folder / "qrels" / "seen.tsv").read_bytes()


def test_nothing_is_replaced(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_folder()
    for output, shares, source, message in (
        (tmp_path / "out", {"test": 0.5}, "test", f"{folder}: has a split 'test' already; it would be replaced"),
        (tmp_path / "out", {"dev": 0.5}, "tset", f"{folder}: unknown split 'tset': did you mean 'test'?"),
        (folder, {"dev": 0.5}, "test", f"{folder}: exists already and holds a dataset; choose another --output"),
        (folder / "in", {"dev": 0.5}, "test", f"{folder / 'in'}: lies inside {folder}; choose a folder beside it"),
    ):
        with pytest.raises(InputError) as caught:
            split_folder(folder, output, shares, source=source)
        assert str(caught.value) == message
    with pytest.raises(InputError, match="none: no such folder"):
        split_folder(tmp_path / "none", tmp_path / "out", {"test": 0.5})


def test_the_command_writes_beside_the_folder(make_folder: Callable[..., Path], run_cli: Callable[..., object]) -> None:
    folder = make_folder(
        queries=tuple(b'{"_id": "q%d"}' % n for n in range(10)),
        qrels={"all": "".join(f"q{n}\td{1 + n % 2}\t{int(n < 2)}\n" for n in range(10))},
    )
    command = ["data", "split", folder, "--test", "0.2", "--validation", "0.1", "--source", "all"]
    result = run_cli(*command)
    assert result.exit_code == 0, result.stderr
    rows = ["split\tqueries\tjudgements", "all\t7\t7", "test\t2\t2", "validation\t1\t1"]
    assert result.stdout.splitlines() == rows
    output = folder.with_name("made-split")
    near = "note: queries that are nearly equal may be in different splits; find them: embedtune data check "
    assert result.stderr.splitlines()[-2:] == [f"{near}{output}", f"written: {output}"]  # after small splits' warnings
    assert splits_of(output) == ["all", "test", "validation"]
    assert splits_of(folder) == ["all"]
    assert run_cli(*command).exit_code == 2
    result = run_cli("data", "split", folder, "--source", "all", "-o", folder.with_name("none"))
    assert (result.exit_code, result.stderr) == (
        2, "error: shares must be above 0 and leave a rest for 'all'; got none\n"
    )  # fmt: skip


def test_scifact_splits_without_leaking(shared: Path) -> None:
    qrels = read_qrels(shared / "scifact" / "qrels" / "train.tsv")
    parts = split_qrels(qrels, {"test": 0.2, "validation": 0.1})
    assert {name: len(part) for name, part in parts.items()} == {"train": 566, "test": 162, "validation": 81}
    assert not set(positives_of(parts["test"])) & set(positives_of(parts["train"]))
    plain = split_qrels(qrels, {"test": 0.2, "validation": 0.1}, allow_overlap=True)
    assert set(positives_of(plain["test"])) & set(positives_of(plain["train"]))
