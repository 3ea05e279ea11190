"""A cross-encoder scores the pairs of many queries together, in the precision of the encoder that it teaches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scoring_process
import torch
from tiny_models import write_cross_encoder
from training_process import launch

from embedtune.data.dataset import load_dataset
from embedtune.models import scorers
from embedtune.models.scorers import CrossEncoderScores
from embedtune.types import Dataset


@pytest.fixture(scope="module")
def cross(bare_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cross_encoder(tmp_path_factory.mktemp("cross"), bare_checkpoint)


@pytest.fixture(scope="module")
def data(tiny_dataset: Path) -> Dataset:
    return load_dataset(tiny_dataset, "train")


def pairs_of(data: Dataset) -> dict[str, list[str]]:
    doc_ids = list(data.corpus.ids)
    return {query_id: doc_ids[number : number + 6] for number, query_id in enumerate(data.qrels)}


def test_pairs_of_many_queries_are_scored_in_few_calls(
    data: Dataset, cross: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer, pairs = CrossEncoderScores(str(cross), data, "cpu"), pairs_of(data)
    alone = {query_id: scorer(query_id, doc_ids) for query_id, doc_ids in pairs.items()}
    calls: list[int] = []
    predict = scorer._model.predict

    def noted(texts: list[Any], **options: Any) -> Any:
        calls.append(len(texts))
        return predict(texts, **options)

    monkeypatch.setattr(scorer._model, "predict", noted)
    monkeypatch.setattr(scorers, "PAIRS", 50)
    known = scorer.of_pairs(pairs)
    for query_id, doc_ids in pairs.items():
        np.testing.assert_allclose(known(query_id, doc_ids), alone[query_id], rtol=1e-5, atol=1e-6)
    assert len(pairs) == 20
    assert calls == [54, 54, 12]  # groups end with the query that fills them
    later = scorer.of_pairs(pairs)
    last = list(pairs)[-1]
    assert (later(last, pairs[last]) == known(last, pairs[last])).all()  # as where an interrupted mining goes on
    assert calls == [54, 54, 12, 12]


def test_half_precision_rounds_layers_and_not_the_head(data: Dataset, cross: Path) -> None:
    pairs = pairs_of(data)
    whole = CrossEncoderScores(str(cross), data, "cpu")
    half = CrossEncoderScores(str(cross), data, "cpu", precision="bf16")
    dtypes: dict[str, torch.dtype] = {}
    for name, part in half._model.named_modules():
        if isinstance(part, torch.nn.Linear):
            part.register_forward_hook(lambda _, __, out, name=name: dtypes.update({name: out.dtype}))
    expected, scores = whole.score(pairs), half.score(pairs)
    heads = [name for name, dtype in dtypes.items() if dtype == torch.float32]
    assert [name.rpartition(".")[2] for name in heads] == ["classifier"]
    assert len(dtypes) > 3
    for query_id, values in scores.items():
        np.testing.assert_allclose(values, expected[query_id], atol=0.02)
    assert any((values != expected[query_id]).any() for query_id, values in scores.items())
    assert half.fingerprint != whole.fingerprint


def test_scores_of_another_kind_of_device_have_another_key(
    data: Dataset, cross: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = CrossEncoderScores(str(cross), data, "cpu"), CrossEncoderScores(str(cross), data, "cpu")
    expected = here.fingerprint
    monkeypatch.setattr(type(there._model), "device", torch.device("cuda"))
    assert there.fingerprint != expected


def test_two_processes_share_the_pairs_and_write_what_one_writes(
    tiny_model: Path, tiny_dataset: Path, cross: Path, tmp_path: Path
) -> None:
    for count in (1, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        cache = str(tmp_path / f"cache-{count}")
        arguments = (folder, tiny_model, tiny_dataset, cross)
        launch(count, scoring_process.__file__, *arguments, EMBEDTUNE_CACHE=cache)
    names = ["mined.json", "mined.jsonl", "mined.run"]
    assert all((tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes() for name in names)
    first, second = ((tmp_path / "2" / f"{name}.txt").read_text().split() for name in ("first", "second"))
    assert sorted([*first, *second]) == sorted((tmp_path / "1" / "first.txt").read_text().split())
    assert '"precision": "fp32"' in (tmp_path / "1" / "mined.json").read_text()
