"""Documents split into passages, from evaluation to the index: each document by its best passage, known by its id."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TOPICS, WORDS
from mining_jobs import mine

from embedtune.data.dataset import load_dataset
from embedtune.data.passages import number_in
from embedtune.data.trec import read_run
from embedtune.errors import InputError
from embedtune.evaluate.retrieval import evaluate
from embedtune.models.encoder import Encoder, load_encoder
from embedtune.models.similarity import as_scored
from embedtune.negatives.evidence import read_evidence
from embedtune.negatives.passages import in_passages
from embedtune.recipe import Chosen, Model, Negatives, Passages, check_recipe
from embedtune.search.build import IndexSource, add_documents, build, read_source
from embedtune.search.folder import find, open_index
from embedtune.train.preflight import preflight
from embedtune.train.run import train
from embedtune.types import Dataset

SPLIT = Passages(tokens=16, stride=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of one to six facts; a query asks for one of them. The last document is the longest."""
    root = tmp_path_factory.mktemp("long")
    generator = np.random.default_rng(0)
    facts = [" ".join(["the", *generator.choice(WORDS, 6), TOPICS[n % 10], "is", str(n)]) for n in range(60)]
    documents, rows = [], iter(range(60))
    for number in range(20):
        chosen = [next(rows) for _ in range(1 + number % 5)]
        documents.append((f"d{number}", chosen))
    with (root / "corpus.jsonl").open("w") as file:
        for doc_id, chosen in documents:
            text = " ".join(facts[row] for row in chosen) if doc_id != "d19" else " ".join(facts[:40])
            file.write(json.dumps({"_id": doc_id, "title": TOPICS[int(doc_id[1:]) % 10], "text": text}) + "\n")
    (root / "qrels").mkdir()
    with (root / "queries.jsonl").open("w") as file:
        for doc_id, chosen in documents:
            file.write(json.dumps({"_id": f"q-{doc_id}", "text": "what " + facts[chosen[-1]]}) + "\n")
    for split, part in (("train", documents[:14]), ("test", documents[14:])):
        lines = [f"q-{doc_id}\t{doc_id}\t1\n" for doc_id, _ in part]
        (root / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return root


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> Encoder:
    return load_encoder(Model(name=str(tiny_model), passages=SPLIT))


def brute_force(encoder: Encoder, dataset: Dataset) -> dict[str, dict[str, tuple[float, int]]]:
    """query -> document -> its best passage's score and number, in float64 over the passages one by one."""
    passages = list(encoder.split(dataset.corpus))
    rows = as_scored(encoder.encode(passages, "document"), encoder.similarity)
    best: dict[str, dict[str, tuple[float, int]]] = {}
    for query_id in dataset.qrels:
        query = as_scored(encoder.encode([dataset.queries[query_id]], "query"), encoder.similarity)[0]
        of_query = best.setdefault(query_id, {})
        for item, score in zip(passages, (rows @ query).tolist(), strict=True):
            doc_id, number = item.id.rpartition("#")[0], number_in(item.id)
            if doc_id not in of_query or score > of_query[doc_id][0] + 1e-7:
                of_query[doc_id] = (score, number)
    return best


def test_eval_ranks_each_document_once_by_its_best_passage(encoder: Encoder, folder: Path, tmp_path: Path) -> None:
    dataset = load_dataset(folder)
    evaluation = evaluate(encoder, dataset, output=tmp_path)
    for query_id, of_query in brute_force(encoder, dataset).items():
        assert evaluation.run[query_id] == pytest.approx({d: score for d, (score, _) in of_query.items()}, abs=1e-6)
    protocol = json.loads((tmp_path / "long0" / "measures.json").read_text())["protocol"]
    assert (protocol["passage_tokens"], protocol["passage_stride"]) == (16, 4)


@pytest.mark.parametrize("rescore", [None, "float32"])
@pytest.mark.parametrize("quantize", ["float16", "int8", "binary"])
def test_stored_vectors_rank_documents_by_their_best_passage(
    quantize: Any, rescore: Any, encoder: Encoder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedtune.evaluate.retrieval import Retrieval

    monkeypatch.setattr("embedtune.search.vectors.CANDIDATES", 8)  # d19 alone has more passages
    dataset = load_dataset(folder)
    evaluation = evaluate(encoder, dataset, retrieval=Retrieval(depth=10, quantize=quantize, rescore=rescore))
    if rescore is None and quantize == "binary":
        assert all(len(ranking) == 20 for ranking in evaluation.run.values())
        return
    whole = evaluate(encoder, dataset).run
    for query_id, ranking in evaluation.run.items():
        assert len(ranking) == 20  # R@100 looks deeper than the depth
        error = 1e-5 if rescore else 0.02
        assert ranking == pytest.approx(whole[query_id], abs=error)


def test_compare_says_that_one_of_two_results_is_of_passages(
    tiny_model: Path, folder: Path, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    for name, flags in (("whole", ()), ("split", ("--passages", 16, "--stride", 4))):
        options = ["--data", folder, "--output", tmp_path / name, *flags]
        assert run_cli("eval", tiny_model, *options).exit_code == 0
    compared = run_cli("compare", tmp_path / "whole", tmp_path / "split")
    assert "DIFFERENT SETTINGS: passage_tokens is none and 16, which" in compared.stderr
    assert "DIFFERENT SETTINGS: passage_stride is none and 4, which" in compared.stderr


def test_a_positive_is_trained_on_as_the_passage_that_scores_best(encoder: Encoder, folder: Path) -> None:
    dataset = load_dataset(folder, "train")
    split, best = in_passages(dataset, encoder), brute_force(encoder, dataset)
    assert split.fingerprint != dataset.fingerprint
    for query_id, judged in split.qrels.items():
        doc_id = query_id.removeprefix("q-")
        assert judged == {f"{doc_id}#{best[query_id][doc_id][1]}": 1}
    assert len({number_in(item_id) for judged in split.qrels.values() for item_id in judged}) > 1
    whole = load_encoder(encoder.name)
    assert in_passages(dataset, whole) is dataset


def test_mined_documents_are_named_with_the_passage_that_scores_best(
    encoder: Encoder, folder: Path, tmp_path: Path
) -> None:
    dataset = load_dataset(folder, "train")
    best = brute_force(encoder, dataset)
    negatives = Negatives(mining=[Chosen(name="dense", options={"depth": 7})])
    mine(dataset, encoder, negatives, tmp_path / "m.run", passages=in_passages(dataset, encoder))
    by_query: dict[str, list[str]] = {}
    for one in read_evidence(tmp_path / "m.jsonl"):
        by_query.setdefault(one.query_id, []).append(one.doc_id)
        score, number = best[one.query_id][one.doc_id]
        assert one.passage == number
        assert one.score == pytest.approx(score, abs=1e-6)
        assert one.positive_score == pytest.approx(best[one.query_id][one.positive_id][0], abs=1e-6)
    for query_id, doc_ids in by_query.items():
        positive = query_id.removeprefix("q-")
        ranked = sorted(best[query_id], key=lambda doc_id: -best[query_id][doc_id][0])
        assert doc_ids == [doc_id for doc_id in ranked if doc_id != positive][:7]
    assert {d for ranked in read_run(tmp_path / "m.run").values() for d in ranked} <= set(dataset.corpus.ids)
    summary = json.loads((tmp_path / "m.json").read_text())
    assert summary["passages"] == {"tokens": 16, "stride": 4}


def recipe_of(model: Path, folder: Path, **changes: Any) -> Any:
    return check_recipe(
        {
            "version": 1,
            "model": {"name": str(model), "passages": {"tokens": 16, "stride": 4}},
            "data": {"train": str(folder), "validation": 0.2},
            "negatives": {"mining": [{"name": "dense", "depth": 6}], "sampling": {"name": "top", "count": 2}},
            "train": {"batch_size": 4, "max_steps": 3, "precision": "fp32", "learning_rate": 1e-3},
            "evaluate": {"in_domain": [str(folder)]},
        }
        | changes
    )


def test_a_recipe_mines_validates_trains_and_evaluates_by_passages(
    tiny_model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedtune.train import loop

    batches: list[Any] = []
    lay_out = loop.lay_out
    monkeypatch.setattr(loop, "lay_out", lambda *a, **k: batches.append(lay_out(*a, **k)) or batches[-1])
    run = train(recipe_of(tiny_model, folder), tmp_path / "run")
    assert batches
    for batch in batches:
        assert all("#" in item_id for item_id in batch.doc_ids)
        documents = [item_id.rpartition("#")[0] for item_id in batch.doc_ids]
        for row, query_id in enumerate(batch.query_ids):
            own = [document == query_id.removeprefix("q-") for document in documents]
            assert batch.positive[row].sum() == 1
            assert not (batch.candidate[row].numpy() & np.array(own)).any()
            assert batch.candidate[row].numpy()[~np.array(own)].all()
    for name in ("evaluation", "evaluation-base"):
        protocol = json.loads((run.folder / name / "long0" / "measures.json").read_text())["protocol"]
        assert protocol["passage_tokens"] == 16
    base = evaluate(load_encoder(Model(name=str(tiny_model), passages=SPLIT)), load_dataset(folder))
    assert run.base["long0"]["nDCG@10"] == base.measures["nDCG@10"]


def test_a_mixture_mines_again_by_passages_and_resumes_to_the_same_weights(
    tiny_model: Path, folder: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    data = {"train": [str(folder), str(tiny_dataset)], "validation": {"share": 0.2, "documents": 40}}
    negatives = {
        "mining": [{"name": "dense", "depth": 6}, {"name": "bm25", "depth": 4}],
        "sampling": {"name": "top", "count": 2},
        "refresh": {"every": 2},
    }
    steps = {"batch_size": 4, "max_steps": 4, "checkpoint_every": 2, "precision": "fp32", "learning_rate": 1e-3}
    recipe = recipe_of(tiny_model, folder, data=data, negatives=negatives, train=steps)
    run = train(recipe, tmp_path / "run")
    mined = sorted((run.folder / "negatives").glob("*.jsonl"))
    assert len(mined) == 2
    for one in (candidate for file in mined for candidate in read_evidence(file)):
        assert one.doc_id.startswith(("long0-train/d", "tiny-train/d"))
        assert one.passage is not None
    resumed = shutil.copytree(run.folder, tmp_path / "again")
    for later in ("checkpoints/step-000004", "model"):
        shutil.rmtree(resumed / later)
    (resumed / "summary.json").unlink()
    assert train(recipe, resumed, resume=True).weights == run.weights


def test_a_cross_encoders_scores_are_those_of_the_passages_in_the_batch(
    tiny_model: Path, bare_checkpoint: Path, folder: Path, tmp_path: Path
) -> None:
    from tiny_models import write_cross_encoder

    from embedtune.train.negatives import MinedScores

    teacher = write_cross_encoder(tmp_path / "cross", bare_checkpoint)
    negatives = {"mining": [{"name": "bm25", "depth": 4}], "teacher": f"cross-encoder:{teacher}"}
    recipe = recipe_of(tiny_model, folder, negatives=negatives, loss=[{"name": "margin_mse"}])
    run = train(recipe, tmp_path / "run")
    encoder, dataset = load_encoder(recipe.model), load_dataset(folder, "train")
    split = in_passages(dataset, encoder)
    from embedtune.models.scorers import CrossEncoderScores
    from embedtune.negatives.evidence import MiningFiles

    files = MiningFiles(run.folder / "negatives" / "mined.run")
    scores, by_pair = MinedScores(files, split), CrossEncoderScores(str(teacher), split, "cpu")
    evidence = list(read_evidence(files.evidence))
    assert evidence
    for one in evidence:
        (positive,) = split.qrels[one.query_id]
        expected = by_pair(one.query_id, [positive, one.item_id])
        assert scores.matrix([one.query_id], [positive, one.item_id])[0].tolist() == pytest.approx(expected.tolist())


@pytest.mark.parametrize("kind", ["exact", "hnsw"])
def test_search_gives_k_documents_with_the_span_of_their_best_passage(
    encoder: Encoder, folder: Path, tmp_path: Path, kind: Any
) -> None:
    dataset = load_dataset(folder)
    manifest = build(encoder, read_source(str(folder)), tmp_path / "index", kind=kind)
    assert (manifest.documents, manifest.passages) == (20, SPLIT)
    index = open_index(tmp_path / "index")
    assert index.faiss.ntotal == len(encoder.split(dataset.corpus)) > 40
    evaluation = evaluate(encoder, dataset)
    best, passages = brute_force(encoder, dataset), encoder.split(dataset.corpus)
    for query_id in dataset.qrels:
        results = find(index, encoder, dataset.queries[query_id], 12)
        assert [result.document.id for result in results] == list(evaluation.run[query_id])[:12]
        for result in results:
            assert result.document == dataset.corpus[result.document.id]
            number = best[query_id][result.document.id][1]
            assert result.passage == passages[f"{result.document.id}#{number}"].text
            assert result.span is not None
            assert result.document.text[slice(*result.span)] == result.passage
    assert index.run(encoder, dataset.queries, 5).keys() == set(dataset.queries.ids)
    if kind == "hnsw":
        assert manifest.recall is not None
        assert manifest.recall["value"] == 1.0  # of documents


def test_documents_of_passages_are_added_and_replaced_whole(encoder: Encoder, folder: Path, tmp_path: Path) -> None:
    dataset = load_dataset(folder)
    ids = list(dataset.corpus.ids)
    from embedtune.data.selection import Selection

    target = tmp_path / "index"
    build(encoder, IndexSource(Selection(dataset.corpus, ids[:15])), target)
    with pytest.raises(InputError, match=r"holds 1 of the documents already, the first is 'd14'"):
        add_documents(encoder, Selection(dataset.corpus, ids[14:]), target)
    manifest = add_documents(encoder, Selection(dataset.corpus, ids[14:]), target, replace=True)
    assert manifest.documents == 20
    evaluation = evaluate(encoder, dataset)
    for _ in range(2):
        index = open_index(target)
        for query_id in dataset.qrels:
            results = find(index, encoder, dataset.queries[query_id], 20)
            assert [result.document.id for result in results] == list(evaluation.run[query_id])
            assert all(result.passage in dataset.corpus[result.document.id].text for result in results)
        add_documents(encoder, Selection(dataset.corpus, ["d19", "d3"]), target, replace=True)


def test_the_command_line_indexes_and_searches_passages(
    tiny_model: Path, folder: Path, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    target, split = tmp_path / "index", ("--passages", 16, "--stride", 4)
    assert run_cli("index", folder, "--model", tiny_model, "--output", target, *split).exit_code == 0
    shown = run_cli("search", target, "what is 3", "-k", 3, "--json")
    rows = json.loads(shown.stdout)
    assert len({row["id"] for row in rows}) == 3
    assert all(row["text"][row["start"] : row["end"]] == row["passage"] for row in rows)
    refused = run_cli("index", folder, "--output", target, "--add", *split)
    assert refused.exit_code == 2
    assert "--add splits documents as the index does: leave out --passages and --stride" in refused.stderr


def test_data_check_counts_what_the_model_cuts_and_names_the_way_on(
    tiny_model: Path, folder: Path, run_cli: Callable[..., Any]
) -> None:
    checked = run_cli("data", "check", folder, "--model", tiny_model, "--max-length", 22, "--json")
    tokens = {item.id: len(item.content.split()) for item in load_dataset(folder).corpus}
    cut = sum(count > 20 for count in tokens.values())
    assert 0 < cut < 20
    assert json.loads(checked.stdout)["counts"]["documents cut at 22 tokens"] == cut
    assert f"{cut / 20:.0%} of the documents are longer than the 22 tokens" in checked.stderr
    assert "--passages TOKENS (at most 20), a recipe with model.passages" in checked.stderr
    assert "--max-length has no effect without --model" in run_cli("data", "check", folder, "--max-length", 9).stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--stride", 4), "--stride has no effect without --passages TOKENS"),
        (
            ("--passages", 16, "--stride", 16),
            "--stride is the tokens that neighbouring passages share: expected less than",
        ),
        (("--passages", 63), "passages of 63 tokens are longer than the 62 that"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    flags: tuple[Any, ...], message: str, tiny_model: Path, folder: Path, run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    for verb in (
        ("eval", tiny_model, "--data", folder),
        ("mine", f"{folder}:train", "--model", tiny_model, "--output", tmp_path / "m.run"),
        ("index", folder, "--model", tiny_model, "--output", tmp_path / "i"),
    ):
        refused = run_cli(*verb, *flags)
        assert refused.exit_code == 2
        assert message in refused.stderr


def test_the_preflight_names_the_passages(tiny_model: Path, folder: Path, tmp_path: Path) -> None:
    facts = preflight(recipe_of(tiny_model, folder), tmp_path / "run")
    assert facts["model"].endswith("64 tokens at most, longer documents in passages of 16 (stride 4)")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"negatives": {"mining": [{"name": "enterprise"}]}}, "negatives.mining.enterprise"),
        ({"negatives": {"live": {}}, "loss": [{"name": "lambda_rank"}]}, "negatives.live"),
    ],
)
def test_a_recipe_of_passages_refuses_what_embeds_whole_documents(
    tiny_model: Path, folder: Path, changes: dict[str, Any], key: str
) -> None:
    with pytest.raises(InputError, match=rf"model\.passages: not with {key}, which embeds whole documents"):
        recipe_of(tiny_model, folder, **changes)
