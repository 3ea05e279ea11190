"""The untouched all-MiniLM-L6-v2 scores on real sets as three evaluators agreed. Minutes: run with -m slow."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedtune.data.dataset import load_dataset
from embedtune.evaluate.retrieval import evaluate, evaluate_run
from embedtune.models.encoder import load_encoder

REFERENCE = {
    "cranfield": {"nDCG@10": 0.3953211, "R@10": 0.4136458, "R@100": 0.7755663, "RR@10": 0.5346049, "AP@100": 0.3165818},
    "scifact": {"nDCG@10": 0.6450817, "R@10": 0.7833333, "R@100": 0.9250000, "RR@10": 0.6047249, "AP@100": 0.6030741},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_reference_measures(shared: Path, minilm: Path, tmp_path: Path, name: str) -> None:
    import pytrec_eval

    dataset = load_dataset(shared / name)
    found = evaluate(load_encoder(str(minilm)), dataset, measures=list(REFERENCE[name]), output=tmp_path)
    assert found.measures == pytest.approx(REFERENCE[name], abs=0.0005)
    again = evaluate_run(tmp_path / name / "run.trec", dataset, measures=list(REFERENCE[name]))
    assert again.measures == pytest.approx(found.measures, abs=1e-9)
    by_trec = pytrec_eval.RelevanceEvaluator(dataset.qrels, {"ndcg_cut.10", "recall.100"}).evaluate(again.run)
    for measure, theirs in (("nDCG@10", "ndcg_cut_10"), ("R@100", "recall_100")):
        mean = sum(values[theirs] for values in by_trec.values()) / len(dataset.qrels)
        assert mean == pytest.approx(found.measures[measure], abs=1e-6)
