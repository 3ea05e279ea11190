"""Hugging Face datasets saved on disk; the hub's answers are stood in for, since tests are offline."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedtune.data import huggingface
from embedtune.data.convert import convert
from embedtune.data.dataset import load_dataset
from embedtune.data.trec import read_run
from embedtune.errors import InputError

datasets = pytest.importorskip("datasets")

CORPUS = [{"_id": "d1", "title": "Rivers", "text": "flow"}, {"_id": "d2", "title": None, "text": "stone"}]
QUERIES = [{"_id": "q1", "text": "what flows"}, {"_id": "q2", "text": "what is hard"}]
QRELS = [{"query-id": "q1", "corpus-id": "d1", "score": 2.0}, {"query-id": "q2", "corpus-id": "d2", "score": 1.0}]


def table(rows: list[dict[str, object]]) -> object:
    return datasets.Dataset.from_list(rows)


def test_a_table_is_the_split_that_is_asked_for(tmp_path: Path) -> None:
    rows = [{"query": "what flows", "positive": "rivers", "negative": "stone"}]
    table(rows).save_to_disk(tmp_path / "pairs.v2")
    dataset = load_dataset(f"{tmp_path / 'pairs.v2'}:dev")
    assert (dataset.name, dataset.split, len(dataset.corpus)) == ("pairs.v2", "dev", 2)
    assert load_dataset(tmp_path / "pairs.v2", "dev").folder == dataset.folder
    assert list(read_run(dataset.folder / "negatives" / "given.run")) == list(dataset.qrels)


def test_splits_keep_their_names(tmp_path: Path) -> None:
    parts = {
        "train": table([{"query": "what flows", "pos": ["rivers"], "neg": ["stone"]}]),
        "validation": table([{"query": "what is hard", "pos": ["stone"], "neg": ["rivers"]}]),
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "flag")
    converted = convert(tmp_path / "flag", tmp_path / "out", split="ignored")
    assert converted.judgements == {"train": 1, "validation": 1}
    assert (converted.documents, converted.queries, converted.negatives) == (2, 2, 2)
    assert len(load_dataset(tmp_path / "out", "validation").qrels) == 1
    with pytest.raises(InputError, match=r"flag: no split 'test'; it has train, validation$"):
        load_dataset(tmp_path / "flag")


def test_a_retrieval_set_keeps_ids_and_grades(tmp_path: Path) -> None:
    parts = {"corpus": table(CORPUS), "queries": table(QUERIES), "test": table(QRELS)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "beir")
    dataset = load_dataset(tmp_path / "beir")
    assert dataset.qrels == {"q1": {"d1": 2}, "q2": {"d2": 1}}
    assert [item.content for item in dataset.corpus] == ["Rivers flow", "stone"]


def test_class_labels_are_their_names(tmp_path: Path) -> None:
    names = datasets.ClassLabel(names=["entailment", "neutral", "contradiction"])
    rows = {"premise": ["a man runs"] * 4, "hypothesis": ["he moves", "he is fast", "he sleeps", "?"]}
    table = datasets.Dataset.from_dict(
        {**rows, "label": [0, 1, 2, -1]},
        features=datasets.Features({name: datasets.Value("string") for name in rows} | {"label": names}),
    )
    table.save_to_disk(tmp_path / "nli")
    converted = convert(tmp_path / "nli", tmp_path / "out")
    dataset = load_dataset(tmp_path / "out", "train")
    assert [dataset.corpus[doc_id].text for judged in dataset.qrels.values() for doc_id in judged] == ["he moves"]
    assert converted.negatives == 1
    assert converted.notes == (
        f"{tmp_path / 'nli'} (train): 2 pairs have a label in 'label' that makes them neither positive nor negative; "
        "left out",
    )


def test_the_row_of_a_fault_is_told(tmp_path: Path) -> None:
    table([{"query": "a", "positive": "b"}, {"query": "c", "positive": None}]).save_to_disk(tmp_path / "pairs")
    with pytest.raises(InputError, match=r"pairs \(train\): row 2: 'positive' is empty; every line needs one "):
        convert(tmp_path / "pairs", tmp_path / "out")


@pytest.mark.parametrize("score", [0.5, float("nan"), float("inf"), "two", None])
def test_a_score_that_is_no_whole_number_is_refused(tmp_path: Path, score: object) -> None:
    parts = {"corpus": table(CORPUS), "queries": table(QUERIES), "test": table([{**QRELS[0], "score": score}])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "beir")
    with pytest.raises(InputError, match=r'beir \(test\): row 1: expected "query-id", "corpus-id" and a whole "score"'):
        convert(tmp_path / "beir", tmp_path / "out")


def test_a_damaged_folder(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_info.json").write_text("{}")
    with pytest.raises(InputError, match="saved: cannot be read as a saved dataset: "):
        convert(tmp_path / "saved", tmp_path / "out")


def test_hub_names() -> None:
    assert huggingface._parts("hf://owner/name@main") == ("owner/name", "", "main")
    assert huggingface._parts("hf://owner/name/triplet@v1.0") == ("owner/name", "triplet", "v1.0")
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert huggingface.pinned(f"hf://owner/name@{commit}") == f"hf://owner/name/@{commit}"
    for name in ("hf://owner/name", "hf://name@main", "hf://owner/name@"):
        with pytest.raises(InputError, match="expected hf://owner/name@revision"):
            huggingface._parts(name)


def test_offline_is_said_in_one_line(tmp_path: Path) -> None:
    for ask in (
        lambda: load_dataset("hf://owner/name@main", "train"),
        lambda: convert("hf://owner/name@main", tmp_path / "out"),
    ):
        with pytest.raises(InputError) as caught:
            ask()
        assert str(caught.value).startswith("hf://owner/name@main: cannot be loaded from the hub (")
        assert str(caught.value).endswith("offline, save it elsewhere with save_to_disk and name that folder")
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_retrieval_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configurations = {
        "corpus": {"corpus": table(CORPUS)},
        "queries": {"queries": table(QUERIES)},
        "default": {"train": table(QRELS[:1]), "test": table(QRELS)},
    }
    asked = []

    def load(name: str, config: str | None, revision: str) -> dict[str, object]:
        asked.append((name, config, revision))
        return configurations[config or "default"]

    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name, revision: list(configurations))
    monkeypatch.setattr(datasets, "load_dataset", load)
    converted = convert("hf://owner/name@main", tmp_path / "out")
    assert converted.judgements == {"train": 1, "test": 2}
    assert load_dataset(tmp_path / "out").qrels == {"q1": {"d1": 2}, "q2": {"d2": 1}}
    assert asked == [("owner/name", config, "main") for config in configurations]


def test_the_splits_of_a_hub_set_may_be_datasets_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [{"query-id": "q1", "corpus-id": "d1"}]
    rows = {"corpus": CORPUS, "queries": QUERIES, "qrels": pairs, "bm25": [{"query-id": "q1", "corpus-ids": ["d1"]}]}
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name, revision: list(rows))
    splits = ("NanoNQ", "NanoFEVER")
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name, config, revision: {split: table(rows[config]) for split in splits}
    )
    converted = convert("hf://owner/NanoBEIR-en@main", tmp_path / "out", split="NanoNQ")
    assert (converted.judgements, converted.documents) == ({"NanoNQ": 1}, 2)
    with pytest.raises(InputError, match=r"its parts are datasets of their own \(NanoFEVER, NanoNQ\); name one"):
        convert("hf://owner/NanoBEIR-en@main", tmp_path / "train")
