"""What works for text works for pictures: mining, judging, evaluating, indexing and searching, in every direction."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mining_jobs import mine
from pictures import BROKEN, write_pictures

from embedtune.data.dataset import load_dataset
from embedtune.data.split import split_folder
from embedtune.errors import InputError
from embedtune.evaluate.compare import compare
from embedtune.evaluate.retrieval import evaluate
from embedtune.methods import bind
from embedtune.models.encoder import load_encoder
from embedtune.models.scorers import CrossEncoderScores
from embedtune.models.similarity import as_scored
from embedtune.negatives.evidence import MiningFiles, read_evidence
from embedtune.recipe import Chosen, Model, Negatives, check_recipe
from embedtune.search.build import build, read_source
from embedtune.search.folder import open_index
from embedtune.train.run import train
from embedtune.types import Item


def turned(folder: Path, kind: str, target: Path) -> Path:
    """The pictures' dataset with other items: `image -> text`, `image -> image`, `both -> image`."""
    (target / "qrels").mkdir(parents=True)
    (target / "images").mkdir()
    source = {name: [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
              for name in ("corpus", "queries")}  # fmt: skip
    for query, document in zip(source["queries"], source["corpus"], strict=True):
        text, image = query["text"], document["image"]
        if kind == "image -> text":
            del query["text"], document["image"]
            query["image"], document["text"] = image, text
        elif kind == "image -> image":
            del query["text"]
            query["image"] = f"images/{(int(query['_id'][1:]) + 1) % len(source['corpus'])}.png"
        else:
            query["image"] = image
    for name, items in source.items():
        (target / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    for split in ("train", "test"):
        (target / f"qrels/{split}.tsv").write_text((folder / f"qrels/{split}.tsv").read_text())
    for file in (folder / "images").iterdir():
        (target / "images" / file.name).write_bytes(file.read_bytes())
    return target


def test_mining_over_pictures_is_brute_force(image_models: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    encoder, dataset = load_encoder(str(image_models["clip"])), load_dataset(pictures, "train")
    negatives = Negatives(
        mining=[Chosen(name="dense", options={"depth": 7})],
        filtering=[Chosen(name="positive_ratio", options={"at_most": 0.99})],
    )
    mine(dataset, encoder, negatives, tmp_path / "mined.run")
    queries = as_scored(encoder.encode(dataset.queries, "query"), "cosine")
    documents = as_scored(encoder.encode(dataset.corpus, "document"), "cosine")
    scores = queries @ documents.T
    found: dict[str, list[Any]] = {}
    for candidate in read_evidence(MiningFiles(tmp_path / "mined.run").evidence):
        found.setdefault(candidate.query_id, []).append(candidate)
    assert found.keys() == dataset.qrels.keys()
    for query_id, judged in dataset.qrels.items():
        row, positive = int(query_id[1:]), int(next(iter(judged))[1:])
        order = [doc for doc in np.argsort(-scores[row], kind="stable").tolist() if doc != positive][:7]
        assert [candidate.doc_id for candidate in found[query_id]] == [f"d{doc}" for doc in order]
        limit = 0.99 * scores[row, positive]
        for candidate, doc in zip(found[query_id], order, strict=True):
            assert candidate.score == pytest.approx(scores[row, doc], abs=1e-6)
            if abs(scores[row, doc] - limit) > 1e-5:
                assert candidate.keep == (scores[row, doc] <= limit)


@pytest.mark.parametrize("kind", ["image -> text", "image -> image"])
def test_other_directions_through_clip(
    image_models: dict[str, Path], pictures: Path, tmp_path: Path, kind: str
) -> None:
    dataset = load_dataset(turned(pictures, kind, tmp_path / "data"))
    encoder = load_encoder(str(image_models["clip"]))
    run = evaluate(encoder, dataset, measures="Success@48", output=tmp_path / "out")
    assert run.measures == {"Success@48": 1.0}
    queries = as_scored(encoder.encode([dataset.queries[q] for q in dataset.qrels], "query"), "cosine")
    scores = queries @ as_scored(encoder.encode(dataset.corpus, "document"), "cosine").T
    for row, query_id in enumerate(dataset.qrels):
        for doc, score in enumerate(scores[row].tolist()):
            assert run.run[query_id][f"d{doc}"] == pytest.approx(score, abs=1e-5)
    negatives = Negatives(mining=[Chosen(name="dense", options={"depth": 5})])
    report = mine(load_dataset(tmp_path / "data", "train"), encoder, negatives, tmp_path / "mined.run")
    assert report.kept > 0


def test_image_and_text_to_image_through_a_vlm(
    vlm_models: dict[str, Path], image_models: dict[str, Path], pictures: Path, tmp_path: Path
) -> None:
    dataset = load_dataset(turned(pictures, "both -> image", tmp_path / "data"))
    encoder = load_encoder(Model(name=str(vlm_models["qwen2_vl"]), pooling="lasttoken"))
    found = evaluate(encoder, dataset, measures="Success@48 R@5")
    assert found.measures["Success@48"] == 1.0
    with pytest.raises(InputError, match="reads text or an image, not both"):
        evaluate(load_encoder(str(image_models["clip"])), dataset)


def test_only_judged_documents_are_ranked_where_asked(
    image_models: dict[str, Path], pictures: Path, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    model, data = image_models["clip"], str(pictures)
    whole = run_cli("eval", model, "--data", data, "--measures", "R@5 R@20", "--output", tmp_path / "whole", "--json")
    options = ("--measures", "R@5 R@20", "--output", tmp_path / "judged", "--json")
    judged = run_cli("eval", model, "--data", f"judged:{data}", *options)
    assert whole.exit_code == judged.exit_code == 0
    folders = [tmp_path / "whole/pictures", tmp_path / "judged/pictures-judged"]
    measures = [json.loads((folder / "measures.json").read_text()) for folder in folders]
    assert measures[1]["measures"]["R@20"] == 1.0  # 16 documents are judged
    assert measures[0]["measures"]["R@20"] < 1.0
    assert measures[1]["protocol"]["judged_only"] is True
    ranked = (folders[1] / "run.trec").read_text().split("\n")
    assert {line.split()[2] for line in ranked if line} == {f"d{n}" for n in range(32, 48)}
    with pytest.raises(InputError, match="share no dataset"):
        compare(tmp_path / "whole", [tmp_path / "judged"])


def test_an_index_of_pictures(
    image_models: dict[str, Path], pictures: Path, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    made = run_cli("index", pictures, "--model", image_models["clip"], "--output", tmp_path / "index")
    assert made.exit_code == 0, made.stderr
    result = run_cli("search", tmp_path / "index", "a red circle on the left", "-k", "3", "--json")
    rows = json.loads(result.stdout)
    assert [row["image"] for row in rows] == [str(pictures / f"images/{row['id'][1:]}.png") for row in rows]
    opened, encoder = open_index(tmp_path / "index"), load_encoder(str(image_models["clip"]))
    _, rows_found = opened.search(encoder, [Item(id="same", image=pictures / "images/7.png")], 1)
    assert opened.document(int(rows_found[0, 0])).id == "d7"


def test_broken_images_are_errors_in_eval_and_index_unless_asked(
    image_models: dict[str, Path], tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    data = write_pictures(tmp_path / "pictures", documents=20, test=10)
    (data / "images/3.png").write_bytes(BROKEN["cut.png"][0]())
    for command in (["eval", image_models["clip"], "--data", data], ["index", data, "--model", image_models["clip"]]):
        asked = [*command, "--output", tmp_path / str(command[0])]
        refused = run_cli(*asked)
        assert refused.exit_code == 2
        assert refused.stderr.startswith(f"error: {data}/images/3.png: damaged image: "), refused.stderr
        done = run_cli(*asked, "--broken-images", "0.1")
        assert done.exit_code == 0, done.stderr
        assert f"left out: {data}/images/3.png: damaged image: " in done.stderr
        few = run_cli(*asked, "--overwrite", "--broken-images", "0.01")
        assert few.exit_code == 2
        assert "1 of 20 images are broken (5.0%), more than the 1.0% that broken_images allows" in few.stderr
    source = read_source(str(data), 0.1)
    assert len(source.documents) == 19
    assert len(source.left_out) == 1
    build(load_encoder(str(image_models["clip"])), source, tmp_path / "third")


def test_what_reads_text_only_says_so(tiny_model: Path, pictures: Path) -> None:
    dataset = load_dataset(pictures, "train")
    bm25 = bind("mining", "bm25", {})
    with pytest.raises(InputError, match=r"mining\.bm25: reads text, and no document of .* has any; mine with dense"):
        bm25(dataset, load_encoder(str(tiny_model)))
    scorer = CrossEncoderScores.__new__(CrossEncoderScores)
    scorer._name, scorer._dataset = "some/cross-encoder", dataset
    with pytest.raises(InputError, match="some/cross-encoder: reads text only, and 'd0' has an image"):
        scorer("q0", ["d0"])


def test_a_split_takes_the_pictures_along(pictures: Path, tmp_path: Path) -> None:
    split_folder(pictures, tmp_path / "split", {"validation": 0.25})
    dataset = load_dataset(tmp_path / "split", "validation")
    assert all(item.image and item.image.is_file() for item in dataset.corpus)
    assert dataset.corpus.fingerprint == load_dataset(pictures).corpus.fingerprint


def test_a_text_model_is_refused_before_it_is_trained_where_a_set_to_evaluate_on_has_images(
    tiny_model: Path, tiny_dataset: Path, pictures: Path, tmp_path: Path
) -> None:
    recipe = {
        "version": 1,
        "model": {"name": str(tiny_model)},
        "data": {"train": str(tiny_dataset)},
        "train": {"batch_size": 8, "max_steps": 1},
        "evaluate": {"in_domain": [str(tiny_dataset)], "out_of_domain": [str(pictures)]},
    }
    events: list[str] = []
    with pytest.raises(InputError, match=r"tiny: reads text only, and item 'd\d+' has an image"):
        train(check_recipe(recipe), tmp_path / "run", on_event=lambda event: events.append(event["event"]))
    assert "step" not in events
    assert not (tmp_path / "run" / "recipe.yaml").exists()  # the folder can be used again
