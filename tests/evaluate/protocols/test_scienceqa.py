"""ScienceQA as the ranking of options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from protocol_layouts import Constant, Known, picture, write_parquet

from embedtune.errors import InputError
from embedtune.evaluate.protocols import open_suite
from embedtune.evaluate.suites import Task, evaluate_task

PROBLEMS: dict[str, dict[str, Any]] = {
    "1": {"question": "Which?", "choices": ["magnet", "cloud"], "answer": 0, "hint": "It pulls.", "image": None,
          "subject": "natural science", "grade": "grade5", "split": "test"},
    "2": {"question": "Where?", "choices": ["Texas", "Maine", "Ohio"], "answer": 2, "hint": "", "image": "image.png",
          "subject": "social science", "grade": "grade7", "split": "test"},
    "3": {"question": "What?", "choices": ["yes", "no"], "answer": 1, "hint": "", "image": None,
          "subject": "language science", "grade": "grade12", "split": "test"},
    "4": {"question": "Train?", "choices": ["yes", "no"], "answer": 1, "hint": "", "image": None,
          "subject": "language science", "grade": "grade2", "split": "train"},
}  # fmt: skip


def task_of(folder: Path) -> Task:
    suite = open_suite(folder)
    assert suite is not None
    (task,) = suite.tasks
    return task


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "problems.json").write_text(json.dumps(PROBLEMS))
    picture(tmp_path / "images" / "test" / "2" / "image.png")
    return tmp_path


def test_options_are_ranked_and_reported_by_subject_context_and_grade(folder: Path) -> None:
    task = task_of(folder)
    assert [item.text for item in task.queries] == ["Which? It pulls.", "Where?", "What?"]  # of the split test
    vectors = {"Which? It pulls.": (1.0, 0.0), "image.png|Where?": (0.0, 1.0), "What?": (1.0, 0.0)}
    vectors |= {"magnet": (0.9, 0.0), "cloud": (0.1, 0.0), "Texas": (0.0, 0.9), "Maine": (0.0, 0.2)}
    vectors |= {"Ohio": (0.0, 0.5), "yes": (0.3, 0.0), "no": (0.3, 0.0)}
    found = evaluate_task(Known(vectors), task)  # type: ignore[arg-type]
    assert found.per_query["hit@1"] == {"1": 1.0, "2": 0.0, "3": 0.5}
    assert {group: (values["queries"], values["hit@1"]) for group, values in found.groups.items()} == {
        "NAT": (1, 1.0),
        "SOC": (1, 0.0),
        "LAN": (1, 0.5),
        "TXT": (1, 1.0),
        "IMG": (1, 0.0),
        "NO": (1, 0.5),
        "G1-6": (1, 1.0),
        "G7-12": (2, 0.25),
    }
    assert found.protocol["ties"] == 1


def test_a_constant_model_guesses(folder: Path) -> None:
    found = evaluate_task(Constant(), task_of(folder))  # type: ignore[arg-type]
    assert found.measures == {"hit@1": pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 3)}


def test_the_hubs_parquet_files(tmp_path: Path) -> None:
    content = picture(tmp_path / "p.png").read_bytes()
    row = PROBLEMS["2"] | {"image": {"bytes": content, "path": "image.png"}}
    del row["split"]
    write_parquet(tmp_path / "hub" / "data" / "test-00000.parquet", [row])
    task = task_of(tmp_path / "hub")
    assert task.queries[0].image is not None
    assert task.queries[0].image.read_bytes() == content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"choices": ["one"]}, "'choices' must be a list of at least two texts"),
        ({"answer": 2}, "'answer' must be the index of one of 2 choices, got 2"),
        ({"image": "other.png"}, "no image 'test/1/other.png' in "),
        ({"question": ""}, "'question' must be a text, got ''"),
    ],
)
def test_bad_questions_are_answered_with_their_id(folder: Path, change: dict[str, Any], message: str) -> None:
    (folder / "problems.json").write_text(json.dumps({"1": PROBLEMS["1"] | change}))
    with pytest.raises(InputError) as caught:
        open_suite(folder)
    assert str(caught.value).startswith(f"{folder / 'problems.json'}: entry 1: {message}")


def test_without_a_test_split_it_is_refused(folder: Path) -> None:
    (folder / "problems.json").write_text(json.dumps({"4": PROBLEMS["4"]}))
    with pytest.raises(InputError, match=r"problems.json: no question of the split test$"):
        open_suite(folder)
