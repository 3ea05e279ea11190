"""MMEB: who is in it, how ties count, and the published rows, from disk to results that can be compared."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from protocol_layouts import Constant, Known, picture, write_jsonl, write_parquet

from embedtune.errors import InputError
from embedtune.evaluate.protocols import mmeb, open_suite
from embedtune.evaluate.sources import read_evaluation
from embedtune.evaluate.suites import Suite, evaluate_suite, means_of

CLASSES = ["cat", "dog", "cow", "owl"]


def rows_of_classes() -> list[dict[str, Any]]:
    """Three pictures, each of the first three classes, against four."""
    return [
        {
            "qry_text": "<|image_1|>\nRepresent the given image for classification\n",
            "qry_img_path": f"ImageNet-1K/{number}.png",
            "tgt_text": [name, *(other for other in CLASSES if other != name)],
            "tgt_img_path": [""] * 4,
        }
        for number, name in enumerate(CLASSES[:3])
    ]


def rows_of_retrieval() -> list[dict[str, Any]]:
    """A text for a picture with a text, and a target that comes twice."""
    return [
        {
            "qry_text": "a red fox",
            "qry_img_path": "",
            "tgt_text": ["<|image_1|> Represent the page: fox", "<|image_1|> Represent the page: owl"] * 2,
            "tgt_img_path": ["WebQA/fox.png", "WebQA/owl.png"] * 2,
        }
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "MMEB-eval"
    write_parquet(root / "ImageNet-1K" / "test-00000-of-00001.parquet", rows_of_classes())
    write_jsonl(root / "WebQA.jsonl", rows_of_retrieval())
    for number in range(3):
        picture(root / "images" / "ImageNet-1K" / f"{number}.png", 60 * number)
    for name in ("fox", "owl"):
        picture(root / "images" / "WebQA" / f"{name}.png")
    return root


def suite_of(folder: Path, protocol: str | None = None, images: Path | None = None) -> Suite:
    suite = open_suite(folder, protocol, images)
    assert suite is not None
    return suite


def test_the_36_sets() -> None:
    counts = {task: len(mmeb.sets_of(task)) for task in mmeb.META_TASKS}
    assert counts == {"Classification": 10, "VQA": 10, "Retrieval": 12, "Grounding": 4}
    assert len(mmeb.sets_of(mmeb.IN_DISTRIBUTION)) == 20
    assert len(mmeb.sets_of(mmeb.OUT_OF_DISTRIBUTION)) == 16
    assert len(set(mmeb.sets_of(mmeb.ALL))) == 36


def test_a_made_folder_is_read_as_it_was_written(folder: Path) -> None:
    suite = suite_of(folder)
    assert suite.protocol == "mmeb"
    classes, pages = suite.tasks
    assert (classes.label, pages.label) == ("mmeb-ImageNet-1K", "mmeb-WebQA")
    assert [item.text for item in classes.queries] == ["Represent the given image for classification"] * 3
    assert [item.image.name for item in classes.queries if item.image] == ["0.png", "1.png", "2.png"]
    for number, name in enumerate(CLASSES[:3]):
        candidates = [classes.documents[row] for row in classes.candidates[str(number)]]
        assert [c.text for c in candidates] == [name, *(other for other in CLASSES if other != name)]
        assert classes.qrels[str(number)] == {candidates[0].id: 1}
    assert [(d.text, d.image.name if d.image else "") for d in pages.documents] == [
        ("Represent the page: fox", "fox.png"),
        ("Represent the page: owl", "owl.png"),
    ]
    assert len(pages.candidates["0"]) == 2  # each once
    assert len(classes.documents) == 4  # contents that all queries share are held once


def test_a_constant_model_gets_one_in_the_pool(folder: Path) -> None:
    suite = suite_of(folder)
    classes, pages = evaluate_suite(Constant(), suite)  # type: ignore[arg-type]
    assert classes.measures == {"hit@1": 0.25}
    assert pages.measures == {"hit@1": 0.5}
    assert classes.protocol["ties"] == 3


def test_hits_and_means_by_hand(folder: Path, tmp_path: Path) -> None:
    asked = "Represent the given image for classification"
    vectors = {f"{n}.png|{asked}": v for n, v in enumerate([(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])}
    vectors |= {"cat": (1.0, 0.0), "dog": (0.0, 1.0), "cow": (0.6, 0.5), "owl": (0.6, 0.5)}
    vectors |= {"a red fox": (1.0, 0.0), "fox.png|Represent the page: fox": (0.0, 1.0)}
    vectors |= {"owl.png|Represent the page: owl": (1.0, 0.0)}
    suite = suite_of(folder)
    found = evaluate_suite(Known(vectors), suite, output=tmp_path / "results")  # type: ignore[arg-type]
    assert found[0].per_query["hit@1"] == {"0": 1.0, "1": 1.0, "2": 0.5}  # cow and owl are level
    means = {mean.title: mean for mean in means_of(suite, found)}
    assert list(means) == ["Classification", "Retrieval", mmeb.IN_DISTRIBUTION, "MMEB"]
    assert means["Classification"].measures == {"hit@1": pytest.approx(2.5 / 3)}
    assert means["MMEB"].measures == {"hit@1": pytest.approx(2.5 / 6)}  # sets count alike, whatever their size
    assert (means["MMEB"].parts, means["MMEB"].of) == (2, 36)
    read = read_evaluation(tmp_path / "results" / "mmeb-ImageNet-1K")
    assert read.per_query == {"hit@1": found[0].per_query["hit@1"]}
    written = json.loads((tmp_path / "results" / "mmeb-means.json").read_text())
    assert written[-1] == dataclasses.asdict(means["MMEB"])


def test_instructions_in_columns_of_their_own(tmp_path: Path) -> None:
    row = {"qry_inst": "<|image_1|>\nWhich class?", "qry_text": "a photo", "qry_img_path": "x.png"}
    row |= {"tgt_inst": "Class:", "tgt_text": ["a", "b"], "tgt_img_path": None}
    write_jsonl(tmp_path / "SUN397.jsonl", [row])
    picture(tmp_path / "x.png")
    (task,) = suite_of(tmp_path).tasks
    assert task.queries[0].text == "Which class? a photo"
    assert [document.text for document in task.documents] == ["Class: a", "Class: b"]


def test_a_single_sets_folder_and_a_set_of_ones_own(folder: Path) -> None:
    (task,) = suite_of(folder / "ImageNet-1K").tasks  # its images are found beside it
    assert task.label == "mmeb-ImageNet-1K"
    write_jsonl(folder / "Ours" / "test.jsonl", rows_of_retrieval())
    suite = suite_of(folder)
    assert [t.label for t in suite.tasks] == ["mmeb-ImageNet-1K", "mmeb-Ours", "mmeb-WebQA"]
    assert suite.notes[0] == "not among the 36 sets of MMEB, so in no mean: mmeb-Ours"
    assert suite.means["MMEB"][1] == 36
    assert len(suite.means["MMEB"][0]) == 2


def test_visual_documents_are_ranked_whole(folder: Path) -> None:
    pages = folder / "ViDoRe"
    write_jsonl(pages / "corpus.jsonl", [{"_id": f"p{n}", "text": text} for n, text in enumerate("abc")])
    write_jsonl(pages / "queries.jsonl", [{"_id": "q", "text": "which"}])
    (pages / "qrels").mkdir()
    (pages / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\tp0\t0\nq\tp1\t2\nq\tp2\t1\n")
    suite = suite_of(folder)
    suite = dataclasses.replace(suite, tasks=[], means={"Visual documents": suite.means["Visual documents"]})
    known = Known({"which": (1.0, 0.0), "a": (3.0, 0.0), "b": (2.0, 0.0), "c": (1.0, 0.0)})
    (found,) = evaluate_suite(known, suite)  # type: ignore[arg-type]
    assert found.measures == {"nDCG@5": pytest.approx(0.669672, abs=1e-6)}  # grades 0, 2, 1: linear gain
    assert means_of(suite, [found])[0].measures == found.measures


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tgt_img_path": [""]}, "'tgt_text' and 'tgt_img_path' must be lists of the same length"),
        ({"tgt_text": ["cat"], "tgt_img_path": [""]}, "1 target(s); a query needs its positive, the first, and others"),
        ({"tgt_text": "cat", "tgt_img_path": ""}, "'tgt_text' and 'tgt_img_path' must be lists of the same length"),
        ({"qry_img_path": ""}, "the text has the token <|image_1|> of an image, and there is no image"),
        ({"qry_img_path": "ImageNet-1K/9.png"}, "no image 'ImageNet-1K/9.png' in "),
        ({"qry_img_path": "../0.png"}, "an image must be a path inside the folder, got '../0.png'"),
        ({"qry_text": "", "qry_img_path": None}, "neither a text nor an image"),
        ({"qry_text": 5}, "texts and paths must be strings, got '5'"),
    ],
)
def test_bad_rows_are_answered_with_their_place(folder: Path, change: dict[str, Any], message: str) -> None:
    (folder / "ImageNet-1K" / "test-00000-of-00001.parquet").unlink()
    path = write_jsonl(folder / "ImageNet-1K" / "test.jsonl", [rows_of_classes()[0], rows_of_classes()[1] | change])
    with pytest.raises(InputError) as caught:
        open_suite(folder)
    assert str(caught.value).startswith(f"{path}:2: {message}")


def test_a_known_set_that_cannot_be_read_is_not_passed_over(folder: Path) -> None:
    (folder / "GQA.jsonl").write_text("{not json\n")
    with pytest.raises(InputError, match=r"GQA\.jsonl:1: not valid JSON"):
        open_suite(folder)


def test_the_verb(
    folder: Path, tiny_model: Path, tiny_dataset: Path, run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    """With texts alone: a real model, and a comparison with itself."""
    text_only = tmp_path / "texts"
    rows = [{"qry_text": "old river", "tgt_text": ["the river", "an engine", "a castle"]}]
    write_jsonl(text_only / "GQA.jsonl", rows)
    for name in ("one", "two"):
        result = run_cli("eval", tiny_model, "--data", text_only, "--output", tmp_path / name)
        assert result.exit_code == 0, result.stderr
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert lines[0] == ["dataset", "queries", "hit@1"]
    assert [line[:2] for line in lines[1:]] == [
        ["mmeb-GQA", "1"],
        ["VQA", "1 of 10 sets"],
        [mmeb.OUT_OF_DISTRIBUTION, "1 of 16 sets"],
        ["MMEB", "1 of 36 sets"],
    ]
    assert "1 of the 36 sets are here; means are over those" in result.stderr
    compared = run_cli("compare", tmp_path / "one", tmp_path / "two", "--fail-if", "hit@1 < baseline")
    assert compared.exit_code == 0, compared.stderr
    assert "queries are shown by id only" not in compared.stderr
    line = json.loads((tmp_path / "one" / "mmeb-GQA" / "per-query.jsonl").read_text())
    assert line["text"] == "old river"
    options = ["--baseline", tiny_model, "--output", tmp_path / "one", "--overwrite"]
    beside = run_cli("eval", tiny_model, "--data", text_only, *options)
    assert beside.stdout.splitlines()[1].split("\t")[2] == "hit@1"
    assert (tmp_path / "one" / "baseline" / "mmeb-means.json").exists()
    assert (tmp_path / "one" / "mmeb-means.json").exists()
    again = run_cli("eval", tiny_model, "--data", tiny_dataset, "--output", tmp_path / "one", "--overwrite")
    assert again.exit_code == 0, again.stderr
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["tiny"]
    for options, message in (
        (["--measures", "R@1"], "--measures has no effect: the protocol mmeb determines what is measured"),
        (["--protocol", "mmbe"], "unknown protocol 'mmbe': did you mean 'mmeb'?"),
        (["--protocol", "aro"], f"{text_only}: not laid out as aro; expected visual_genome_relation.json"),
    ):
        refused = run_cli("eval", tiny_model, "--data", text_only, *options)
        assert refused.exit_code == 2
        assert message in refused.stderr
    refused = run_cli("eval", "--run", tmp_path / "two" / "mmeb-GQA" / "run.trec", "--data", text_only)
    assert "a run is of one dataset; the protocol mmeb needs a model" in refused.stderr


def test_a_folder_with_other_content_under_a_sets_name_is_never_replaced(
    tiny_model: Path, run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    data, output = tmp_path / "texts", tmp_path / "out"
    write_jsonl(data / "GQA.jsonl", [{"qry_text": "old river", "tgt_text": ["the river", "an engine"]}])
    for folder in (output / "mmeb-GQA", output / "baseline" / "mmeb-GQA"):
        folder.mkdir(parents=True)
        (folder / "notes.txt").write_text("kept")
        options = ["--baseline", tiny_model] if "baseline" in folder.parts else []
        result = run_cli("eval", tiny_model, "--data", data, *options, "--output", output, "--overwrite")
        assert result.exit_code == 2
        assert result.stderr.startswith(f"error: {folder}: "), result.stderr
        assert [file.name for file in folder.iterdir()] == ["notes.txt"]
        (folder / "notes.txt").unlink()
        folder.rmdir()
