"""Loading one split of a dataset folder, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from embedtune.data.dataset import load_dataset, load_training, source_of, subset
from embedtune.data.relevance import Relevance
from embedtune.errors import InputError
from embedtune.evaluate.retrieval import evaluate_run
from embedtune.recipe import Data

MakeFolder = Callable[..., Path]
HEADER = "query-id\tcorpus-id\tscore\n"


def test_a_folder_is_loaded_by_split(make_folder: MakeFolder) -> None:
    train = HEADER + "q2\td2\t2\nq2\td1\t0\n"
    folder = make_folder(qrels={"test": HEADER + "q1\td1\t1\n", "train": train})
    dataset = load_dataset(folder)
    assert (dataset.name, dataset.split, dataset.label, dataset.folder) == ("made", "test", "made", folder)
    assert dataset.qrels == {"q1": {"d1": 1}}
    assert list(dataset.queries.ids) == ["q1", "q2"]
    assert dataset.corpus["d1"].content == "Bread is baked"
    assert load_dataset(f"{folder}:train").qrels == {"q2": {"d2": 2, "d1": 0}}
    assert load_dataset(folder, "train").label == "made-train"
    assert load_dataset(f"{folder}:train", "train").split == "train"


def test_a_query_without_positive_stays(make_folder: MakeFolder) -> None:
    folder = make_folder(qrels={"test": HEADER + "q1\td1\t1\nq2\td2\t0\n"})
    assert load_dataset(folder).qrels == {"q1": {"d1": 1}, "q2": {"d2": 0}}


def test_a_query_and_a_document_may_have_the_same_id(make_folder: MakeFolder) -> None:
    folder = make_folder(
        corpus=(b'{"_id": 1, "text": "a document"}',),
        queries=(b'{"_id": "1", "text": "a query"}',),
        qrels={"test": "1\t1\t1\n"},
    )
    dataset = load_dataset(folder)
    assert (dataset.corpus["1"].text, dataset.queries["1"].text) == ("a document", "a query")


def test_the_fingerprint_is_of_the_content(make_folder: MakeFolder) -> None:
    first = load_dataset(make_folder())
    same = load_dataset(make_folder(qrels={"test": "q2 0 d2 1\nq1 0 d1 1\n"}, name="same"))
    other_qrels = load_dataset(make_folder(qrels={"test": HEADER + "q1\td1\t1\nq2\td2\t2\n"}, name="qrels"))
    other_text = load_dataset(make_folder(queries=(b'{"_id": "q1"}', b'{"_id": "q2"}'), name="text"))
    assert first.fingerprint == same.fingerprint
    assert len({first.fingerprint, other_qrels.fingerprint, other_text.fingerprint}) == 3


def test_a_subset_judges_fewer_queries(make_folder: MakeFolder) -> None:
    dataset = load_dataset(make_folder())
    part = subset(dataset, ["q2"])
    assert part.qrels == {"q2": {"d2": 1}}
    assert part.corpus is dataset.corpus
    assert part.fingerprint != dataset.fingerprint
    assert subset(dataset, ["q2", "q1"]).fingerprint == dataset.fingerprint


def refusal(name: str | Path, split: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        load_dataset(name, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_not_there_is_named_with_the_nearest(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder(qrels={"test": "q1\td1\t1\n", "train": "q2\td2\t1\n"})
    assert refusal(tmp_path / "mde") == f"{tmp_path / 'mde'}: no such file or folder; did you mean 'made'?"
    expected = "expected a folder with corpus.jsonl, queries.jsonl and qrels/<split>.tsv"
    assert refusal(tmp_path / "no" / "such") == f"{tmp_path / 'no' / 'such'}: no such file or folder; {expected}"
    assert refusal(folder, "tset") == f"{folder}: no split 'tset'; it has test, train; did you mean 'test'?"
    assert refusal(f"{folder}:zz") == f"{folder}: no split 'zz'; it has test, train"
    message = f"{folder}:train: names the split 'train', but 'test' is asked for; name one of them"
    assert refusal(f"{folder}:train", "test") == message
    (folder / "queries.jsonl").unlink()
    assert refusal(folder) == f"{folder / 'queries.jsonl'}: no such file"


def test_a_folder_without_splits(make_folder: MakeFolder) -> None:
    folder = make_folder(qrels={})
    assert refusal(folder) == f"{folder}: no splits; expected judgements in {folder / 'qrels'}/<split>.tsv"


def test_a_folder_that_is_no_dataset(tmp_path: Path) -> None:
    message = f"{tmp_path}: neither a dataset folder (no corpus.jsonl) nor a Hugging Face dataset saved on disk"
    assert refusal(tmp_path).startswith(f"{message}, nor the files of BEIR, mteb, NanoBEIR, BRIGHT, CoIR, LoTTE")


def test_an_empty_corpus_and_no_queries(make_folder: MakeFolder) -> None:
    folder = make_folder(corpus=(b"",))
    assert refusal(folder) == f"{folder / 'corpus.jsonl'}: no documents"
    folder = make_folder(queries=(), name="silent")
    assert refusal(folder) == f"{folder / 'queries.jsonl'}: no queries"


def test_judgements_of_absent_ids(make_folder: MakeFolder) -> None:
    folder = make_folder(qrels={"test": HEADER + "q1\td1\t1\nq1\td7\t0\nq2\td8\t1\nq2\td7\t1\n"})
    path = folder / "qrels" / "test.tsv"
    advice = f"run `embedtune data check {folder}`"
    message = f"{path}: 2 judged documents are not in corpus.jsonl, the first 'd7'; {advice}; to go on as BEIR"
    assert refusal(folder).startswith(message)
    folder = make_folder(qrels={"test": "d1\td1\t1\n"}, name="queries")
    assert "1 judged queries are not in queries.jsonl, the first 'd1'" in refusal(folder)


def test_judgements_of_absent_documents_count_as_never_retrieved(make_folder: MakeFolder) -> None:
    folder = make_folder(qrels={"test": HEADER + "q1\td1\t1\nq1\td7\t1\nq2\td8\t1\n"})
    dataset = load_dataset(f"incomplete:{folder}")
    assert (dataset.qrels, dataset.name) == ({"q1": {"d1": 1, "d7": 1}, "q2": {"d8": 1}}, folder.name)
    measured = evaluate_run({"q1": {"d1": 1.0}, "q2": {"d1": 1.0}}, dataset, measures="R@10")
    assert measured.per_query["R@10"] == {"q1": 0.5, "q2": 0.0}
    assert load_dataset(source_of(dataset)).qrels == dataset.qrels
    trained = load_training(Data(train=f"incomplete:{folder}", split="test"))
    assert trained.qrels == {"q1": {"d1": 1}}
    assert load_dataset(f"reversed:incomplete:{folder}").qrels == {"d1": {"q1": 1}}
    assert Relevance(dataset).forbidden("q1", ["d1", "d2"]) == [True, False]
    queries = make_folder(qrels={"test": HEADER + "d1\td1\t1\n"}, name="queries")
    assert "1 judged queries are not in queries.jsonl, the first 'd1'" in refusal(f"incomplete:{queries}")


def test_a_split_without_positive(make_folder: MakeFolder) -> None:
    folder = make_folder(qrels={"test": HEADER + "q1\td1\t0\n"})
    assert refusal(folder) == f"{folder / 'qrels' / 'test.tsv'}: no positive; every split needs judgements above 0"


def test_invalid_utf8_on_line_3(make_folder: MakeFolder) -> None:
    folder = make_folder(corpus=(b'{"_id": "d1"}', b'{"_id": "d2"}', b'{"_id": "d3", "text": "\xff"}'))
    assert refusal(folder).startswith(f"{folder / 'corpus.jsonl'}:3: not valid UTF-8")


def test_a_file_of_pairs_is_converted_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("question,answer,by\nwhat is baked,bread,me\nwhat flows,rivers,me\n")
    dataset = load_dataset(path, "train")
    assert (dataset.name, dataset.split, len(dataset.corpus), len(dataset.qrels)) == ("pairs", "train", 2, 2)
    assert dataset.folder.parent == Path(os.environ["EMBEDTUNE_CACHE"]) / "datasets"
    assert caplog.messages == [f"{path}: columns not used: by"]
    before = (dataset.folder / "corpus.jsonl").stat().st_mtime_ns
    assert load_dataset(f"{path}:train").folder == dataset.folder
    assert (dataset.folder / "corpus.jsonl").stat().st_mtime_ns == before
    path.write_text("question,answer\nwhat is baked,bread\nwhat flows,lava\n")
    assert load_dataset(path, "train").folder != dataset.folder


def test_processes_that_load_at_once_convert_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("question,answer,by\n" + "".join(f"query {n},text {n},me\n" for n in range(300)))
    with ThreadPoolExecutor(4) as pool:
        folders = {dataset.folder for dataset in pool.map(load_dataset, [f"{path}:train"] * 4)}
    assert len(folders) == 1
    assert len(caplog.messages) == 1


def test_the_real_sets_load(shared: Path) -> None:
    sizes = {
        "scifact": (5183, 1109, 300, 339),
        "scifact:train": (5183, 1109, 809, 919),
        "cranfield": (1400, 225, 225, 1612),
        "dbpedia-5k": (5000, 50, 40, 880),
        "emoji-noto/i2t": (2292, 1348, 348, 586),
    }
    for name, expected in sizes.items():
        dataset = load_dataset(f"{shared}/{name}")
        positives = sum(relevance > 0 for judged in dataset.qrels.values() for relevance in judged.values())
        assert (len(dataset.corpus), len(dataset.queries), len(dataset.qrels), positives) == expected
    assert next(iter(dataset.queries)).image == shared / "emoji-noto/i2t/images/0023-fe0f-20e3.png"
