"""Each miner against brute force or a case worked by hand (methods.md B9, B10, B11, B14)."""

from __future__ import annotations

import builtins
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_dataset

from embedtune import methods
from embedtune.data.dataset import load_dataset, subset
from embedtune.errors import InputError
from embedtune.methods.mining.enterprise import fit, select
from embedtune.methods.mining.union import share
from embedtune.models.encoder import Encoder, load_encoder
from embedtune.models.similarity import as_scored
from embedtune.types import Dataset, Run


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> Encoder:
    return load_encoder(str(tiny_model))


@pytest.fixture(scope="module")
def data(tiny_dataset: Path) -> Dataset:
    return load_dataset(tiny_dataset, "train")


def mined(name: str, data: Dataset, encoder: Encoder, **options: Any) -> dict[str, Run]:
    found: dict[str, Run] = methods.bind("mining", name, options)(data, encoder)
    return found


def made(folder: Path, corpus: dict[str, str], queries: dict[str, str], qrels: dict[str, list[str]]) -> Dataset:
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", corpus), ("queries", queries)):
        lines = [json.dumps({"_id": item_id, "text": text}) + "\n" for item_id, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    rows = [f"{query_id}\t{doc_id}\t1\n" for query_id, found in qrels.items() for doc_id in found]
    (folder / "qrels" / "train.tsv").write_text("".join(rows))
    return load_dataset(folder, "train")


def similarities(data: Dataset, encoder: Encoder) -> np.ndarray[Any, Any]:
    queries = as_scored(encoder.encode([data.queries[q] for q in data.qrels], "query"), encoder.similarity)
    documents = as_scored(encoder.encode(list(data.corpus), "document"), encoder.similarity)
    return queries.astype(np.float64) @ documents.T.astype(np.float64)


@pytest.mark.parametrize(("first", "depth"), [(1, 7), (4, 9), (1, 500)])
def test_dense_finds_what_brute_force_finds(data: Dataset, encoder: Encoder, first: int, depth: int) -> None:
    (run,) = mined("dense", data, encoder, depth=depth, first=first).values()
    assert set(run) == set(data.qrels)
    scores = similarities(data, encoder)
    for row, (query_id, judged) in enumerate(data.qrels.items()):
        others = [
            (scores[row, column], doc_id) for column, doc_id in enumerate(data.corpus.ids) if doc_id not in judged
        ]
        expected = sorted(others, reverse=True)[first - 1 : depth]
        assert list(run[query_id]) == [doc_id for _, doc_id in expected]
        assert list(run[query_id].values()) == pytest.approx([score for score, _ in expected], abs=1e-5)


def test_dense_with_another_model_says_so(data: Dataset, encoder: Encoder, tiny_model: Path) -> None:
    found = mined("dense", data, encoder, model=str(tiny_model), depth=3)
    assert list(found) == [f"dense:{tiny_model}"]
    assert found[f"dense:{tiny_model}"] == mined("dense", data, encoder, depth=3)["dense"]


@pytest.mark.parametrize("name", ["dense", "bm25"])
def test_an_empty_window_of_ranks_is_refused(name: str, data: Dataset, encoder: Encoder) -> None:
    with pytest.raises(InputError, match=rf"^mining\.{name}: expected 1 <= first <= depth, got first 5, depth 4$"):
        mined(name, data, encoder, first=5, depth=4)


def test_random_depends_on_seed_and_query_alone(data: Dataset, encoder: Encoder) -> None:
    run = mined("random", data, encoder, depth=10)["random"]
    assert run == mined("random", data, encoder, depth=10)["random"]
    assert run != mined("random", data, encoder, depth=10, seed=1)["random"]
    some = list(data.qrels)[3:5]
    assert mined("random", subset(data, some), encoder, depth=10)["random"] == {q: run[q] for q in some}
    for query_id, scores in run.items():
        assert len(scores) == 10
        assert not scores.keys() & data.qrels[query_id].keys()
    everything = mined("random", data, encoder, depth=1000)["random"]
    assert all(len(everything[q]) == len(data.corpus) - len(data.qrels[q]) for q in everything)


def test_a_run_is_taken_as_it_is(data: Dataset, encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "given.run"
    first, other = list(data.qrels)[:2]
    path.write_text(f"{first} Q0 d7 1 2.5 x\n{first} Q0 d8 2 1.5 x\n{other} Q0 d9 1 1 x\n")
    assert mined("run", subset(data, [first]), encoder, path=str(path)) == {"run": {first: {"d7": 2.5, "d8": 1.5}}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nobody d7 1.0", "1 unknown query ids, first 'nobody', in "),
        ("q1 nowhere 1.0", "1 unknown document ids, first 'nowhere', in "),
        ("q1 d7 nan", "score must be a finite number, got 'nan'"),
    ],
)
def test_a_run_of_something_else_is_refused(
    data: Dataset, encoder: Encoder, tmp_path: Path, line: str, message: str
) -> None:
    path = tmp_path / "given.run"
    path.write_text(line + "\n")
    with pytest.raises(InputError, match=message):
        mined("run", data, encoder, path=str(path))


WORDS = {"a": "red fox", "b": "red red red dog", "c": "red fox dog cat", "d": "blue bird"}


def test_bm25_at_k1_0_is_the_sum_of_idfs(tmp_path: Path, encoder: Encoder) -> None:
    pytest.importorskip("bm25s")
    data = made(tmp_path, WORDS | {"p": "zebra"}, {"q": "red fox"}, {"q": ["p"]})
    run = mined("bm25", data, encoder, k1=0.0, b=0.0)["bm25"]

    def idf(documents: int) -> float:
        return math.log(1 + (5 - documents + 0.5) / (documents + 0.5))

    expected = {"c": idf(3) + idf(2), "a": idf(3) + idf(2), "b": idf(3)}
    assert list(run["q"]) == list(expected)  # equal scores: the larger id first; d shares no word
    assert run["q"] == pytest.approx(expected, rel=1e-5)


def test_bm25_is_the_formula(tmp_path: Path, encoder: Encoder) -> None:
    pytest.importorskip("bm25s")
    data = made(tmp_path, WORDS, {"q": "red dog", "r": "unheard"}, {"q": ["a"], "r": ["d"]})
    run = mined("bm25", data, encoder, k1=1.2, b=0.75, depth=2)["bm25"]
    length = {doc_id: len(text.split()) for doc_id, text in WORDS.items()}
    mean = sum(length.values()) / 4

    def part(word: str, doc_id: str) -> float:
        documents = sum(word in text.split() for text in WORDS.values())
        times = WORDS[doc_id].split().count(word)
        idf = math.log(1 + (4 - documents + 0.5) / (documents + 0.5))
        return idf * times / (times + 1.2 * (1 - 0.75 + 0.75 * length[doc_id] / mean))

    assert run["q"] == pytest.approx({d: part("red", d) + part("dog", d) for d in ("b", "c")}, rel=1e-5)
    assert run["r"] == {}


def test_the_index_of_bm25_is_made_once_for_all_that_search_a_corpus(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    bm25s = pytest.importorskip("bm25s")
    data = made(tmp_path, WORDS | {"e": "green tree"}, {"q": "red dog"}, {"q": ["a"]})
    indexed, whole = [], bm25s.BM25.index

    def noted(self: Any, *arguments: Any, **options: Any) -> Any:
        indexed.append(self.k1)
        return whole(self, *arguments, **options)

    monkeypatch.setattr(bm25s.BM25, "index", noted)
    first = mined("bm25", data, encoder, k1=1.3)
    assert mined("bm25", data, encoder, k1=1.3, depth=3) == first
    mined("bm25", data, encoder, k1=1.4)
    assert indexed == [1.3, 1.4]


def test_bm25_without_its_library_says_how_to_get_it(
    data: Dataset, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str, *arguments: Any) -> Any:
        if name == "bm25s":
            raise ImportError(name)
        return real(name, *arguments)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(InputError, match=r"^mining\.bm25: needs bm25s; try: pip install 'embedtune\[bm25\]'$"):
        mined("bm25", data, encoder)


def test_a_union_of_one_retriever_with_itself_is_that_retriever(data: Dataset, encoder: Encoder) -> None:
    alone = mined("dense", data, encoder, depth=6)["dense"]
    source = {"name": "dense", "depth": 6}
    joined = mined("union", data, encoder, sources=[source, source])
    assert list(joined) == ["dense", "dense-2"]
    assert {q: joined["dense"][q] | joined["dense-2"][q] for q in alone} == alone


def test_sources_take_turns_until_their_quotas(data: Dataset, encoder: Encoder) -> None:
    assert share([2, None], [["a", "b", "c"], ["a", "d", "b", "e", "f"]]) == [["a", "b"], ["d", "e", "f"]]
    assert share([None, None], [[], ["a"]]) == [[], ["a"]]
    sources = [{"name": "dense", "quota": 3}, {"name": "random", "depth": 20, "quota": 2}]
    found = mined("union", data, encoder, sources=sources)
    assert all(len(ranked) == 3 for ranked in found["dense"].values())
    assert all(len(ranked) == 2 for ranked in found["random"].values())
    assert not any(found["dense"][q].keys() & found["random"][q].keys() for q in data.qrels)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], r"^mining\.union\.sources: expected at least one"),
        ([{"depth": 3}], r"^mining\.union\.sources\.0: expected \{name: MINER"),
        (
            [{"name": "dense", "quota": 0}],
            r"^mining\.union\.sources\.0\.quota: expected a whole number above 0, got 0$",
        ),
        (
            [{"name": "dense", "dept": 3}],
            r"mining\.dense\.dept: unknown option of dense 'dept': did you mean 'depth'\?$",
        ),
    ],
)
def test_a_wrong_union_is_refused(data: Dataset, encoder: Encoder, sources: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        mined("union", data, encoder, sources=sources)


def test_a_chain_of_links_gives_the_chain(data: Dataset, encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "links.tsv"
    path.write_text("".join(f"{a}\t{b}\n" for a, b in [("d1", "d50"), ("d50", "d51"), ("d51", "d52"), ("d52", "d53")]))
    chain = subset(data, ["q1"])  # whose positive is d1
    assert list(mined("links", chain, encoder, path=str(path))["links"]["q1"]) == ["d50", "d51"]
    assert list(mined("links", chain, encoder, path=str(path), hops=4)["links"]["q1"]) == ["d50", "d51", "d52", "d53"]
    assert mined("links", subset(data, ["q2"]), encoder, path=str(path))["links"] == {"q2": {}}


def test_a_walk_goes_where_it_is_similar(data: Dataset, encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "links.tsv"
    near = [f"d{n}" for n in range(40, 50)]
    path.write_text("".join(f"d1\t{doc_id}\n" for doc_id in near))
    options = {"path": str(path), "steps": 0, "extra": 2}
    walk = list(mined("links", subset(data, ["q1"]), encoder, **options)["links"]["q1"])
    row = similarities(subset(data, ["q1"]), encoder)[0]
    assert walk[:3] == sorted(near, key=lambda doc_id: -row[data.corpus.row(doc_id)])[:3]
    assert len(set(walk)) == 5
    again = list(mined("links", subset(data, ["q1"]), encoder, **options)["links"]["q1"])
    assert again == walk


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("d1 d2\n", r"links\.tsv:1: expected `doc_id<TAB>doc_id`, got 1 columns$"),
        ("d1\tnowhere\n", r"links\.tsv: 1 unknown document ids, first 'nowhere', in "),
    ],
)
def test_wrong_links_are_refused(data: Dataset, encoder: Encoder, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "links.tsv").write_text(text)
    with pytest.raises(InputError, match=message):
        mined("links", data, encoder, path=str(tmp_path / "links.tsv"))


def test_enterprise_selection_by_hand() -> None:
    to_query, positive = np.array([0.2, 0.25, 0.28, 0.35], np.float32), np.array([0.3], np.float32)
    to_positive = np.array([[0.1], [0.4], [0.5], [0.9]], np.float32)
    assert select(to_query, positive, to_positive).tolist() == [1, 2]  # the first is nearer to the positive


def test_pca_keeps_the_share_of_variance_asked_for() -> None:
    rows = np.random.default_rng(0).normal(size=(400, 5)) @ np.diag([3.0, 2.0, 1.0, 0.5, 0.1])
    blocks = [rows[:100].astype(np.float32), rows[100:].astype(np.float32)]
    mean, components = fit(lambda: iter(blocks), 0.95)
    values = np.linalg.eigvalsh(np.cov(rows.T))[::-1]
    kept = int(np.argmax(np.cumsum(values) / values.sum() >= 0.95)) + 1
    assert components.shape == (5, kept)
    assert mean == pytest.approx(rows.mean(axis=0), abs=1e-5)
    assert np.var((rows - mean) @ components, axis=0) == pytest.approx(values[:kept], rel=0.02)


def test_enterprise_finds_what_its_conditions_say(data: Dataset, encoder: Encoder, tiny_model: Path) -> None:
    shuffled = dict(zip(data.qrels, [*list(data.qrels.values())[7:], *data.qrels.values()], strict=False))
    data = dataclasses.replace(data, qrels=shuffled)  # in the made data queries lie next to their positives
    options = {"variance": 1.0, "depth": 5, "models": [str(tiny_model)]}
    run = mined("enterprise", data, encoder, **options)["enterprise"]
    documents = as_scored(encoder.encode(data.corpus, "document"), "cosine").astype(np.float64)
    queries = as_scored(encoder.encode([data.queries[q] for q in data.qrels], "query"), "cosine").astype(np.float64)
    mean = documents.mean(axis=0)  # two equal encoders side by side: the distances of one
    d, q = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (documents - mean, queries - mean))
    for row, (query_id, judged) in enumerate(data.qrels.items()):
        positives = [data.corpus.row(doc_id) for doc_id in judged]
        to_query = 1 - d @ q[row]
        meets = (to_query < to_query[positives].min()) & (to_query[:, None] < 1 - d @ d[positives].T).all(axis=1)
        expected = sorted(np.flatnonzero(meets), key=lambda place: to_query[place])[:5]
        assert list(run[query_id]) == [data.corpus.ids[place] for place in expected]
    assert any(run.values())


def test_wrong_enterprise_options_are_refused(data: Dataset, encoder: Encoder) -> None:
    with pytest.raises(InputError, match=r"^mining\.enterprise: expected 0 < variance <= 1 and depth >= 1$"):
        mined("enterprise", data, encoder, variance=0.0)


def test_a_folder_of_pairs_can_be_mined(tmp_path: Path, encoder: Encoder) -> None:
    data = load_dataset(write_dataset(tmp_path / "small", documents=12, queries=6), "train")
    assert all(len(ranked) <= 12 for ranked in mined("dense", data, encoder)["dense"].values())
