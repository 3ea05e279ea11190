import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from embedtune.data.dataset import load_dataset
from embedtune.data.relevance import is_self_retrieval
from embedtune.data.trec import read_run, write_run
from embedtune.errors import InputError
from embedtune.evaluate.measures import mean, per_query
from embedtune.evaluate.results import distinct, prepare, remove_others, write
from embedtune.evaluate.retrieval import Retrieval, evaluate, evaluate_run
from embedtune.types import Dataset, Item, Qrels

WORDS = ["river", "engine", "music", "garden", "planet", "bread"]


class WordCounts:
    """An encoder of one dimension a word: scores can be worked out by hand."""

    name = "models/word counts"
    similarity = "cosine"
    device = "cpu"
    fingerprint = "f00d"
    dimension = len(WORDS)
    max_length = None
    passages = None

    def __init__(self) -> None:
        self.encoded: list[tuple[str, list[str]]] = []

    def split(self, corpus: Sequence[Item]) -> Sequence[Item]:
        return corpus

    def encode(self, items: Sequence[Item], role: str, *, on_progress: object = None) -> np.ndarray:
        self.encoded.append((role, [item.content for item in items]))
        counts = [[item.content.split().count(word) for word in WORDS] for item in items]
        return np.array(counts, dtype=np.float32).reshape(len(counts), len(WORDS))


@dataclass
class Listed:
    """Items in memory."""

    items: list[Item]

    @property
    def ids(self) -> list[str]:
        return [item.id for item in self.items]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self.ids

    def __getitem__(self, item_id: str) -> Item:
        return self.items[self.ids.index(item_id)]


def dataset(qrels: Qrels, folder: str = "data/made", split: str = "test") -> Dataset:
    corpus = [
        Item(id="d1", text="river"),
        Item(id="d2", title="river", text="engine"),
        Item(id="d3", text="engine"),
        Item(id="d4", text=""),
        Item(id="d5", text="river river"),
        Item(id="q1", text="river"),
    ]
    queries = [Item(id="q1", text="river"), Item(id="q2", text="engine"), Item(id="q3", text="music")]
    return Dataset(
        folder=Path(folder),
        name=Path(folder).name,
        split=split,
        corpus=Listed(corpus),
        queries=Listed(queries),
        qrels=qrels,
        fingerprint="da7a",
    )


KEPT = Retrieval(ignore_identical_ids=False)  # the query q1 is a document too
QRELS = {"q1": {"d2": 2, "d1": 1}, "q2": {"d3": 1}}


def test_by_hand() -> None:
    encoder = WordCounts()
    found = evaluate(encoder, dataset(QRELS), measures="nDCG@10 R@2 RR@10 AP", retrieval=KEPT)
    # q1 "river": q1, d5 and d1 tie at 1 and stand by id from high to low, then d2 ("river engine"), then the rest.
    assert list(found.run["q1"]) == ["q1", "d5", "d1", "d2", "d4", "d3"]
    assert list(found.run["q1"].values()) == pytest.approx([1, 1, 1, math.sqrt(0.5), 0, 0])
    assert found.per_query["RR@10"] == {"q1": 1 / 3, "q2": 1}
    assert found.per_query["R@2"] == {"q1": 0, "q2": 1}
    assert found.per_query["AP"]["q1"] == pytest.approx((1 / 3 + 2 / 4) / 2)
    ndcg = (1 / math.log2(4) + 2 / math.log2(5)) / (2 + 1 / math.log2(3))
    assert found.measures["nDCG@10"] == pytest.approx((ndcg + 1) / 2, abs=1e-12)
    assert (found.queries, found.model, found.split) == (2, "models/word counts", "test")
    assert found.fingerprints == {"data": "da7a", "model": "f00d"}
    # Only the judged queries, and the title before the text.
    assert encoder.encoded[0] == ("query", ["river", "engine"])
    assert encoder.encoded[1][1][1] == "river engine"


def test_a_query_finds_itself_unless_that_is_removed() -> None:
    retrieval = Retrieval(depth=3, ignore_identical_ids=False)
    kept = evaluate(WordCounts(), dataset(QRELS), measures="RR@1", retrieval=retrieval)
    assert list(kept.run["q1"]) == ["q1", "d5", "d1"]
    removed = evaluate(WordCounts(), dataset(QRELS), measures="RR@1", retrieval=Retrieval(depth=3))
    assert list(removed.run["q1"]) == ["d5", "d1", "d2"]
    assert len(removed.run["q2"]) == 3
    assert removed.protocol == {"depth": 3, "ignore_identical_ids": True, "dimensions": 6}


def other_texts(data: Dataset, text: str, title: str = "") -> Dataset:
    """The dataset with another text of the document that has a query's id."""
    corpus = [replace(item, text=text, title=title) if item.id == "q1" else item for item in data.corpus]
    return replace(data, corpus=Listed(corpus))


def test_self_retrieval_is_known_by_name_and_by_texts() -> None:
    names = {"data/arguana": True, "data/ArguAna": True, "data/NanoArguAna": True, "beir-quora": True,
             "scifact": False, "fiqa": False, "arguana-notes": False}  # fmt: skip
    strangers = {name: other_texts(dataset(QRELS, name), "engine") for name in names}
    assert {name: is_self_retrieval(data) for name, data in strangers.items()} == names
    assert is_self_retrieval(dataset(QRELS))
    assert is_self_retrieval(other_texts(dataset(QRELS), "river", title="engine music"))
    assert not is_self_retrieval(dataset({**QRELS, "q1": {"q1": 1}}))  # its own positive: it is asked for
    assert not is_self_retrieval(dataset({"q2": {"d3": 1}}))


def test_documents_that_the_data_excludes_are_never_ranked() -> None:
    data = replace(dataset(QRELS), excluded={"q1": frozenset({"d5"})})
    measured = evaluate(WordCounts(), data, measures="RR@1", retrieval=Retrieval(depth=3, ignore_identical_ids=False))
    assert list(measured.run["q1"]) == ["q1", "d1", "d2"]
    run = {"q1": {"d5": 3.0, "d1": 2.0}, "q2": {"d5": 1.0}}
    assert evaluate_run(run, data).run == {"q1": {"d1": 2.0}, "q2": {"d5": 1.0}}


def test_a_run_follows_the_protocol_of_a_model() -> None:
    run = {"q1": {"q1": 3.0, "d2": 2.0, "d1": 1.0}, "q2": {"d3": 1.0}}
    measured = evaluate_run(run, dataset(QRELS), measures="nDCG@10")
    assert (measured.measures, measured.protocol) == ({"nDCG@10": 1.0}, {"ignore_identical_ids": True})
    kept = evaluate_run(run, dataset(QRELS), measures="RR@10", ignore_identical_ids=False)
    assert (kept.per_query["RR@10"]["q1"], kept.protocol) == (0.5, {"ignore_identical_ids": False})


def test_depth_reaches_the_deepest_measure() -> None:
    assert len(evaluate(WordCounts(), dataset(QRELS), measures="R@4", retrieval=Retrieval(depth=2)).run["q1"]) == 4


def test_truncated_dimensions() -> None:
    found = evaluate(
        WordCounts(), dataset(QRELS), measures="RR", retrieval=Retrieval(truncate_dim=1, ignore_identical_ids=False)
    )
    assert list(found.run["q1"])[:3] == ["q1", "d5", "d2"]  # "engine" is cut off: d2 is as good as d1
    assert set(found.run["q2"].values()) == {0.0}
    for dimensions in (0, 7):
        with pytest.raises(InputError, match=f"cannot truncate to {dimensions} dimensions: models/word counts has 6"):
            evaluate(WordCounts(), dataset(QRELS), retrieval=Retrieval(truncate_dim=dimensions))


def test_files(tmp_path: Path) -> None:
    found = evaluate(
        WordCounts(), dataset(QRELS, split="dev"), measures=["nDCG@10", "R@2"], output=tmp_path, retrieval=KEPT
    )
    folder = tmp_path / "made-dev"
    assert sorted(file.name for file in folder.iterdir()) == [
        ".embedtune.json",
        "measures.json",
        "per-query.jsonl",
        "run.trec",
    ]
    written = json.loads((folder / "measures.json").read_text())
    assert written == {
        "dataset": "made",
        "split": "dev",
        "model": "models/word counts",
        "folder": str(Path("data/made").resolve()),
        "fingerprints": {"data": "da7a", "model": "f00d"},
        "queries": 2,
        "measures": found.measures,
        "protocol": {"depth": 1000, "ignore_identical_ids": False, "dimensions": 6},
    }
    lines = [json.loads(line) for line in (folder / "per-query.jsonl").read_text().splitlines()]
    assert lines[0]["first_positive"] == {"doc_id": "d1", "rank": 3, "score": 1.0}
    assert [line["query_id"] for line in lines] == ["q1", "q2"]
    assert lines[0]["measures"] == {name: values["q1"] for name, values in found.per_query.items()}
    assert (folder / "run.trec").read_text().splitlines()[0] == "q1 Q0 q1 1 1.0 word_counts"
    assert read_run(folder / "run.trec") == found.run


def test_a_query_that_finds_no_positive_says_so(tmp_path: Path) -> None:
    write(evaluate(WordCounts(), dataset({"q1": {"d3": 1}}), measures="R@1", retrieval=Retrieval(depth=1)), tmp_path)
    assert json.loads((tmp_path / "made" / "per-query.jsonl").read_text())["first_positive"] is None


def test_labels() -> None:
    sets = [dataset(QRELS, "/a/x/scifact"), dataset(QRELS, "/b/x/scifact"), dataset(QRELS, "/a/nq"),
            dataset(QRELS, "/a/nq", "dev"), dataset(QRELS, "/c/baseline")]  # fmt: skip
    assert [d.label for d in distinct(sets)] == ["a-x-scifact", "b-x-scifact", "nq", "nq-dev", "c-baseline"]
    with pytest.raises(InputError, match=r"dataset /a/nq \(split test\) is given twice"):
        distinct([dataset(QRELS, "/a/nq"), dataset(QRELS, "/a/nq")])


def test_output_is_refused_or_cleaned(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    prepare(tmp_path, overwrite=False)
    for output in (tmp_path, tmp_path / "baseline"):
        evaluate(WordCounts(), dataset(QRELS), output=output)
    with pytest.raises(InputError, match=r"holds results already \(baseline/made\); choose another --output, or"):
        prepare(tmp_path, overwrite=False)
    prepare(tmp_path, overwrite=True)
    remove_others(tmp_path, [tmp_path / "other"])
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(InputError, match=r"mine\.txt: expected a folder to write to, found a file"):
        prepare(tmp_path / "mine.txt", overwrite=False)


def test_a_run_is_measured(tmp_path: Path) -> None:
    found = evaluate(WordCounts(), dataset(QRELS), measures="nDCG@10 AP RR@10 R@2")
    write_run(tmp_path / "made.run", found.run, "test")
    again = evaluate_run(tmp_path / "made.run", dataset(QRELS), measures="nDCG@10 AP RR@10 R@2")
    assert again.measures == pytest.approx(found.measures, abs=1e-12)
    assert again.model == str(tmp_path / "made.run")
    assert set(again.fingerprints) == {"data", "run"}
    assert evaluate_run({"q1": {"d2": 1.0}, "q3": {"d1": 1.0}}, dataset(QRELS), measures="RR").measures == {"RR": 0.5}


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"q1": {"d1": 1.0}, "q8": {}, "q9": {}}, "run: 2 queries are not in data/made, the first 'q8'; was the run"),
        ({"q1": {"d7": 1.0, "d1": 1.0}}, "run: 1 documents are not in data/made, the first 'd7'; was the run made"),
        ({"q3": {"d1": 1.0}}, "run: none of its 1 queries is judged in split 'test' of data/made"),
    ],
)
def test_a_foreign_run_is_refused(run: dict[str, dict[str, float]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate_run(run, dataset(QRELS))


def test_a_run_is_measured_by_the_first_process_alone(
    tiny_dataset: Path, tmp_path: Path, run_cli: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "made.run", {"q0": {"d0": 1.0}}, "test")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    done = run_cli("eval", "--run", tmp_path / "made.run", "--data", tiny_dataset, "--output", tmp_path / "out")
    assert (done.exit_code, done.stdout) == (0, "")
    assert not (tmp_path / "out").exists()


def test_from_python(tiny_model: Path, tiny_dataset: Path) -> None:
    from embedtune import evaluate_model, load_encoder

    found = evaluate_model(load_encoder(tiny_model), load_dataset(tiny_dataset))
    assert list(found.measures) == ["nDCG@10", "R@10", "R@100", "RR@10", "AP@100"]
    assert "run" not in repr(found)


def test_eval_command(tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: Callable[..., object]) -> None:
    output = tmp_path / "out"
    done = run_cli("eval", tiny_model, "--data", tiny_dataset, "--data", f"{tiny_dataset}:train", "--output", output)
    assert done.exit_code == 0, done.stderr
    header, test, train = [line.split("\t") for line in done.stdout.splitlines()]
    assert header == ["dataset", "queries", "nDCG@10", "R@10", "R@100", "RR@10", "AP@100"]
    assert (test[:2], train[:2]) == (["tiny", "10"], ["tiny-train", "20"])
    written = json.loads((output / "tiny" / "measures.json").read_text())
    assert [float(value) for value in test[2:]] == pytest.approx(list(written["measures"].values()), abs=1e-6)
    qrels, run = load_dataset(tiny_dataset).qrels, read_run(output / "tiny" / "run.trec")
    assert mean(per_query(list(written["measures"]), qrels, run)) == pytest.approx(written["measures"], abs=1e-9)

    again = run_cli("eval", "--run", output / "tiny" / "run.trec", "--data", tiny_dataset, "--json")
    assert json.loads(again.stdout) == [{"dataset": "tiny", "queries": 10, **written["measures"]}]


def test_eval_command_beside_a_baseline(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: Callable[..., object]
) -> None:
    options = ["--data", tiny_dataset, "--measures", "nDCG@10", "--baseline", tiny_model, "--truncate-dim", "16"]
    done = run_cli("eval", tiny_model, *options, "--output", tmp_path)
    assert done.exit_code == 0, done.stderr
    header, row = [line.split("\t") for line in done.stdout.splitlines()]
    assert header == ["dataset", "queries", "measure", "baseline", "model", "difference"]
    assert row[3] == row[4]
    assert float(row[5]) == 0
    assert (tmp_path / "baseline" / "tiny" / "measures.json").exists()
    refused = run_cli("eval", tiny_model, *options, "--output", tmp_path)
    assert refused.exit_code == 2
    assert "holds results already" in refused.stderr
    assert run_cli("eval", tiny_model, *options, "--output", tmp_path, "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{model}"], "no dataset to measure on; name one with --data DIR or --data DIR:split"),
        (["--data", "{data}"], "expected a model or --run FILE, and not both"),
        (
            ["{model}", "--data", "{data}", "--measures", "nDGC@10"],
            "unknown measure 'nDGC@10': did you mean 'nDCG@10'?",
        ),
        (["./nowhere", "--data", "{data}"], "model ./nowhere: no such folder"),
        (["{model}", "--data", "{data}", "--baseline", "./nowhere"], "model ./nowhere: no such folder"),
        (
            ["--run", "x.run", "--data", "{data}", "--max-length", "9"],
            "--max-length has no effect with --run, which needs no model",
        ),
        (["--run", "x.run", "--data", "{data}"], "x.run: no such file"),
    ],
)
def test_eval_command_refuses(
    arguments: list[str], message: str, tiny_model: Path, tiny_dataset: Path, run_cli: Callable[..., object]
) -> None:
    done = run_cli("eval", *(argument.format(model=tiny_model, data=tiny_dataset) for argument in arguments))
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {message}")
    assert len(done.stderr.splitlines()) == 1
