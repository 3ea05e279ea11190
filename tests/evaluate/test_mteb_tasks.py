"""mteb's evaluator beside ours on the same BEIR folder, its files, and what is said where it cannot run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedtune.data.dataset import load_dataset
from embedtune.errors import InputError
from embedtune.evaluate import mteb_tasks
from embedtune.evaluate.compare import compare
from embedtune.evaluate.measures import from_mteb, mteb_name
from embedtune.evaluate.mteb_tasks import evaluate_tasks, home_of, tasks_of
from embedtune.evaluate.retrieval import evaluate
from embedtune.models.encoder import load_encoder
from embedtune.recipe import Model

MEASURES = ["nDCG@1", "nDCG@10", "nDCG@100", "R@10", "R@100", "RR@10", "AP@100", "P@5", "Success@5"]
pytestmark = pytest.mark.filterwarnings("ignore")  # mteb's own and its libraries'


def test_names_there_and_back() -> None:
    assert [mteb_name(measure) for measure in ("nDCG@10", "AP", "RR@5")] == ["ndcg_at_10", "map", "mrr_at_5"]
    assert all(from_mteb(mteb_name(measure)) == measure for measure in MEASURES)
    assert from_mteb("nauc_ndcg_at_10_max") is None
    assert from_mteb("main_score") is None


def test_without_mteb_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mteb_tasks, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"--mteb needs mteb; try: pip install 'embedtune\[mteb\]'"):
        tasks_of("SciFact")


def test_results_go_to_the_run_folder_or_where_they_are_sent(tmp_path: Path) -> None:
    (tmp_path / "run" / "model").mkdir(parents=True)
    with pytest.raises(InputError, match="is not in a run folder, where results would go; name a folder with --output"):
        home_of(str(tmp_path / "run" / "model"))
    (tmp_path / "run" / "recipe.yaml").touch()
    assert home_of(str(tmp_path / "run" / "model")) == tmp_path / "run" / "mteb"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--data", "x"], "--data has no effect with --mteb, whose tasks bring their own data and rules"),
        (["--baseline", "x"], "--baseline has no effect with --mteb"),
        (["--precision", "bf16"], "--precision has no effect with --mteb"),
    ],
)
def test_options_without_effect_are_refused(option: list[str], message: str, run_cli: Callable[..., Any]) -> None:
    result = run_cli("eval", "some-model", "--mteb", "SciFact", *option)
    assert result.exit_code == 2
    assert message in result.stderr


def local_task(folder: Path, name: str = "Local") -> Any:
    """A dataset folder as a retrieval task of mteb's: a title and a text a document, as BEIR's loaders give it."""
    pytest.importorskip("mteb", reason="pip install 'embedtune[mteb]'")
    from datasets import Dataset
    from mteb import TaskMetadata
    from mteb.abstasks import AbsTaskRetrieval

    dataset = load_dataset(folder)
    absent = ("reference", "date", "domains", "task_subtypes", "license", "annotations_creators", "dialect",
              "sample_creation", "bibtex_citation")  # fmt: skip

    class Local(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=name,
            dataset={"path": "local/folder", "revision": dataset.fingerprint},
            description="a dataset folder",
            type="Retrieval",
            category="t2t",
            modalities=["text"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
            **dict.fromkeys(absent),
        )

        def load_data(self, num_proc: int | None = None, **_: Any) -> None:
            corpus = [{"id": item.id, "title": item.title, "text": item.text} for item in dataset.corpus]
            queries = [{"id": query_id, "text": dataset.queries[query_id].text} for query_id in dataset.qrels]
            split = {"corpus": Dataset.from_list(corpus), "queries": Dataset.from_list(queries),
                     "relevant_docs": dataset.qrels, "top_ranked": None}  # fmt: skip
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return Local()


def assert_agreement(model: Model, folder: Path, output: Path) -> None:
    encoder = load_encoder(model)
    (score,) = evaluate_tasks(encoder, [local_task(folder)], output, measures=MEASURES)
    (file,) = output.glob("results/*/*/Local.json")
    theirs = json.loads(file.read_text())["scores"]["test"][0]
    ours = evaluate(encoder, load_dataset(folder), measures=MEASURES).measures
    for measure in MEASURES:
        assert theirs[mteb_name(measure)] == pytest.approx(ours[measure], abs=1e-4), measure
    assert score.value == pytest.approx(ours["nDCG@10"], abs=1e-4)
    filed = json.loads((output / "Local" / "measures.json").read_text())["measures"]
    assert filed == pytest.approx(ours, abs=1e-4)


def test_both_evaluators_agree_on_a_made_folder(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    assert_agreement(Model(name=str(tiny_model)), tiny_dataset, tmp_path / "out")


@pytest.mark.slow
def test_both_evaluators_agree_on_cranfield(minilm: Path, shared: Path, tmp_path: Path) -> None:
    assert_agreement(Model(name=str(minilm), max_length=64), shared / "cranfield", tmp_path / "out")


def test_its_files_can_be_compared_and_nothing_is_computed_twice(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = local_task(tiny_dataset)
    encoder = load_encoder(str(tiny_model))
    (score,) = evaluate_tasks(encoder, [task], tmp_path / "one")
    file = tmp_path / "one" / "results" / "local__tiny" / encoder.identity / "Local.json"
    assert file.exists()
    evaluated = sorted(path.name for path in (tmp_path / "one" / "Local").iterdir())
    assert evaluated == [".embedtune.json", "measures.json", "per-query.jsonl", "run.trec"]
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    found = compare(tmp_path / "one", [tmp_path / "two"], measures="nDCG@10").comparisons
    assert [(c.dataset, c.queries, c.difference, c.p) for c in found] == [("Local", 10, 0.0, 1.0)]
    shutil.rmtree(tmp_path / "two" / "Local")  # as mteb alone would leave it
    (means,) = compare(file, [tmp_path / "two"], measures="nDCG@10").comparisons
    assert (means.difference, means.p) == (0.0, None)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(type(encoder.model), "encode", refuse)
    (again,) = evaluate_tasks(encoder, [task], tmp_path / "one")
    assert again == score
    assert (tmp_path / "one" / "Local" / "run.trec").exists()


def test_more_dimensions_than_the_model_has_are_refused(tiny_model: Path, tmp_path: Path, run_cli: Any) -> None:
    pytest.importorskip("mteb", reason="pip install 'embedtune[mteb]'")
    result = run_cli("eval", tiny_model, "--mteb", "SciFact", "--truncate-dim", "64", "--output", tmp_path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == f"error: cannot truncate to 64 dimensions: {tiny_model} has 32"


def test_names_and_the_hub(tiny_model: Path, tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    pytest.importorskip("mteb", reason="pip install 'embedtune[mteb]'")
    result = run_cli("eval", tiny_model, "--mteb", "SciFacts", "--output", tmp_path)
    assert result.exit_code == 2
    assert "unknown mteb task or benchmark 'SciFacts': did you mean 'SciFact'?" in result.stderr
    assert {task.metadata.name for task in tasks_of("MTEB(eng, v2)")} >= {"ArguAna", "STS12"}
    offline = run_cli("eval", tiny_model, "--mteb", "SciFact", "--output", tmp_path)
    assert offline.exit_code == 2
    message = "SciFact: its data, mteb/scifact of the Hugging Face hub, cannot be loaded while offline"
    assert message in offline.stderr
