"""Other formats to a dataset folder: each by a hand-worked file, and each fault with its line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedtune.data.check import check
from embedtune.data.convert import Converted, convert
from embedtune.data.dataset import load_dataset
from embedtune.data.pairs import Columns
from embedtune.data.trec import read_run
from embedtune.errors import InputError

Contents = tuple[dict[str, set[str]], dict[str, list[str]]]


def contents(folder: Path, split: str = "train") -> Contents:
    """query text -> texts of its positives, and query text -> texts of its given negatives, best first."""
    dataset = load_dataset(folder, split)
    text = {item.id: item.content for item in dataset.corpus}
    query = {item.id: item.content for item in dataset.queries}
    positives = {query[q]: {text[d] for d in judged} for q, judged in dataset.qrels.items()}
    given = folder / "negatives" / "given.run"
    run = read_run(given) if given.exists() else {}
    negatives = {query[q]: [text[d] for d in sorted(scores, key=lambda d: -scores[d])] for q, scores in run.items()}
    return positives, negatives


def lines(path: Path, *values: object) -> Path:
    path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values), encoding="utf-8")
    return path


def test_triplets_in_csv(tmp_path: Path) -> None:
    source = tmp_path / "triplets.csv"
    source.write_bytes(
        "\ufeffquery,positive,negative,negative_1,source\r\n"
        'what is baked,"bread, ""fresh""\nand warm",stone,,web\r\n'
        "what flows,rivers,stone,lava,web\r\n"
        "what is baked,cake,rivers,,web\r\n"
        "what is molten,lava,stone,lava,web\r\n".encode()
    )
    converted = convert(source, tmp_path / "out")
    assert contents(tmp_path / "out") == (
        {"what is baked": {'bread, "fresh"\nand warm', "cake"}, "what flows": {"rivers"}, "what is molten": {"lava"}},
        {"what is baked": ["stone", "rivers"], "what flows": ["stone", "lava"], "what is molten": ["stone"]},
    )
    assert converted == Converted(
        folder=tmp_path / "out",
        documents=5,
        queries=3,
        judgements={"train": 4},
        negatives=5,
        notes=(
            f"{source}: columns not used: source",
            "1 given negatives are positives of the same query; left out",
        ),
    )
    assert check(tmp_path / "out").faults == []


def test_pairs_in_parquet_and_json_lines_are_the_same_folder(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    rows = [
        {"query": "what is baked", "document": ["bread", "cake"], "negative": ["stone"]},
        {"query": "what flows", "document": ["rivers"], "negative": []},
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    convert(lines(tmp_path / "pairs.jsonl", *rows), tmp_path / "a", split="dev")
    convert(tmp_path / "pairs.parquet", tmp_path / "b", split="dev")
    expected = ({"what is baked": {"bread", "cake"}, "what flows": {"rivers"}}, {"what is baked": ["stone"]})
    assert contents(tmp_path / "a", "dev") == contents(tmp_path / "b", "dev") == expected
    for file in ("corpus.jsonl", "queries.jsonl", "qrels/dev.tsv", "negatives/given.run"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_columns_that_are_named(tmp_path: Path) -> None:
    source = lines(tmp_path / "a.jsonl", {"id": 1, "answer": "rivers", "question": "what flows", "bad": ["lava"]})
    columns = Columns(query="question", positive="answer", negatives=("bad",))
    assert convert(source, tmp_path / "out", columns=columns).notes == (f"{source}: columns not used: id",)
    assert contents(tmp_path / "out") == ({"what flows": {"rivers"}}, {"what flows": ["lava"]})


def test_flagembedding(tmp_path: Path) -> None:
    source = lines(
        tmp_path / "flag.jsonl",
        {"query": "what flows", "pos": ["rivers", "lava"], "neg": ["stone", "bread"], "prompt": "find things"},
        {"query": "what is baked", "pos": ["bread"], "neg": []},
    )
    convert(source, tmp_path / "out")
    positives = {"what flows": {"rivers", "lava"}, "what is baked": {"bread"}}
    assert contents(tmp_path / "out") == (positives, {"what flows": ["stone", "bread"]})
    assert next(iter(load_dataset(tmp_path / "out", "train").queries)).instruction == "find things"


def test_tevatron_keeps_its_ids(tmp_path: Path) -> None:
    rivers, stone = {"docid": "d1", "title": "Rivers", "text": "flow"}, {"docid": 7, "text": "stone"}
    source = lines(
        tmp_path / "tevatron.jsonl",
        {"query_id": "q1", "query": "what flows", "positive_passages": [rivers], "negative_passages": [stone]},
        {"query_id": "q2", "query": "what is hard", "positive_passages": [stone], "negative_passages": []},
    )
    convert(source, tmp_path / "out")
    dataset = load_dataset(tmp_path / "out", "train")
    assert dataset.qrels == {"q1": {"d1": 1}, "q2": {"7": 1}}
    assert (dataset.corpus["d1"].title, dataset.corpus["d1"].text) == ("Rivers", "flow")
    assert read_run(tmp_path / "out" / "negatives" / "given.run") == {"q1": {"7": 1.0}}


def test_the_same_source_gives_the_same_ids(tmp_path: Path) -> None:
    first = lines(tmp_path / "a.jsonl", {"query": "q", "positive": "x"}, {"query": "r", "positive": "y"})
    second = lines(tmp_path / "b.jsonl", {"query": "r", "positive": "y"}, {"query": "q", "positive": "x"})
    convert(first, tmp_path / "first")
    convert(second, tmp_path / "second")
    assert load_dataset(tmp_path / "first", "train").qrels == load_dataset(tmp_path / "second", "train").qrels


def test_a_million_characters_in_a_cell(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("query,positive\nq," + "x" * 1_000_000 + "\n")
    convert(tmp_path / "a.csv", tmp_path / "out")
    assert contents(tmp_path / "out")[0] == {"q": {"x" * 1_000_000}}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"query,positive\na,b\nc,\xff\n", "a.csv:3: not valid UTF-8 (byte 0xff at column 3)"),
        ("a.csv", b"query,positive\na,b\nc\n", "a.csv:3: expected 2 columns (query, positive), got 1"),
        ("a.csv", b'query,positive\na,"b"c\n', "a.csv:2: not valid CSV: "),
        ("a.csv", b'query,positive\na,"b\n', "a.csv:2: a quote opens in this row and nothing closes it"),
        ("a.csv", b"query,positive,query\n", "a.csv:1: column 'query' is named twice"),
        ("a.csv", b"query,positive\na,b\n ,b\n", "a.csv:3: 'query' is empty; every line needs one"),
        ("a.csv", b"query,positive\na,b\na,\n", "a.csv:3: 'positive' is empty; every line needs one"),
        ("a.csv", b"query,positive\n", "a.csv: no rows"),
        ("a.csv", b"", "a.csv: no rows"),
        (
            "a.csv",
            b"only,number\na,1\n",
            "a.csv: no column is named as queries and positives are; the first row is only='a', number='1'; name ",
        ),
        ("a.jsonl", b'{"query": "a", "positive": "b"}\n{"query":', "a.jsonl:2: not valid JSON: Expecting value"),
        ("a.jsonl", b'{"query": "a", "positive": 1}', "a.jsonl: 'positive' looks like ids or URLs, not like texts; "),
        ("a.jsonl", b'{"query": "a", "positive": {}}', "a.jsonl:1: 'positive' must be text or a list of texts, got {}"),
        ("a.jsonl", b'{"query": ["a", "b"], "positive": "c"}', "a.jsonl:1: 'query' must be one text, got a list of 2"),
        ("a.jsonl", b'{"_id": "d1", "text": "c"}', "a.jsonl:1: a corpus or queries file; name the dataset folder that"),
        ("a.jsonl", b'{"query": "a", "pos": []}', "a.jsonl:1: 'pos' is empty; every line needs one"),
        ("a.jsonl", b'{"query": "a", "positive_passages": []}', "a.jsonl:1: 'positive_passages' is empty; every line"),
        (
            "a.jsonl",
            b'{"query": "a", "positive_passages": [{"docid": "d 1", "text": "b"}]}',
            "a.jsonl:1: \"docid\": id 'd 1' has white space in it",
        ),
        (
            "a.jsonl",
            b'{"query": "a", "positive_passages": [{"docid": 1, "text": "b"}, {"docid": 1, "text": "c"}]}',
            "a.jsonl:1: id '1' has other content than at",
        ),
        ("a.parquet", b"not parquet", "a.parquet: cannot be read as Parquet: "),
        ("a.txt", b"a b", "a.txt: unknown kind of file; known are .jsonl, .ndjson, .json, .csv, .tsv, .parquet, each "),
    ],
)
def test_a_fault_is_told_and_nothing_is_written(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        convert(tmp_path / name, tmp_path / "out")
    assert str(caught.value).startswith(f"{tmp_path}/{message}")
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_what_is_asked_for_and_not_there(tmp_path: Path) -> None:
    source = lines(tmp_path / "a.jsonl", {"question": "q", "answer": "x", "query": "r"})
    with pytest.raises(InputError, match=r"a\.jsonl: unknown column 'answr': did you mean 'answer'\?$"):
        convert(source, tmp_path / "out", columns=Columns(positive="answr"))
    named = r"no column is named as positives are; the first row is question='q', other='x'; name it with --positive-c"
    with pytest.raises(InputError, match=named):
        convert(lines(tmp_path / "b.jsonl", {"question": "q", "other": "x"}), tmp_path / "out")
    with pytest.raises(InputError, match=r"split '\.\./up': expected letters"):
        convert(source, tmp_path / "out", split="../up")
    with pytest.raises(InputError, match=r"none\.csv: no such file or folder$"):
        convert(tmp_path / "none.csv", tmp_path / "out")


def test_an_output_that_exists_is_kept(tmp_path: Path) -> None:
    source = lines(tmp_path / "a.jsonl", {"query": "q", "positive": "x"})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    with pytest.raises(
        InputError, match="out: exists already and is no earlier result of this command; choose another --output"
    ):
        convert(source, tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["precious"]


def test_the_command_asks_for_columns_and_takes_them(tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    source = lines(tmp_path / "a.jsonl", {"frage": "what flows", "antwort": "rivers", "bad": "lava", "worse": "stone"})
    result = run_cli("data", "convert", source, "--output", tmp_path / "a", "--split", "dev")
    assert (result.exit_code, result.stderr) == (
        2,
        f"error: {source}: no column is named as queries and positives are; the first row is frage='what flows', "
        "antwort='rivers', bad='lava', worse='stone'; name it with --query-column and --positive-column\n",
    )
    named = ["--query-column", "frage", "--positive-column", "antwort"]
    negatives = ["--negative-column", "worse", "--negative-column", "bad"]
    result = run_cli("data", "convert", source, "-o", tmp_path / "b", "--split", "dev", *named, *negatives)
    assert result.stdout.splitlines()[1:] == ["documents\t3", "queries\t1", "dev: judgements\t1", "negatives\t2"]
    assert contents(tmp_path / "b", "dev") == ({"what flows": {"rivers"}}, {"what flows": ["stone", "lava"]})
    result = run_cli("data", "convert", source, "--output", tmp_path / "b")
    assert (result.exit_code, result.stderr) == (
        2, f"error: {tmp_path / 'b'}: exists already; choose another --output, or replace it with --overwrite\n"
    )  # fmt: skip
