"""The judging page: what people decide by keys and clicks in a browser is what becomes judgements."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chromium import chromium
from conftest import Result

from embedtune.data.dataset import load_dataset
from embedtune.data.decisions import agreement, read_decisions
from embedtune.data.trec import read_qrels
from embedtune.errors import InputError
from embedtune.methods.filtering.judge import Judge
from embedtune.types import Dataset

RunCli = Callable[..., Result]
KEYS = {"r": True, "n": False, "u": None}


@pytest.fixture
def mined(tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: RunCli) -> Path:
    result = run_cli("mine", f"{tiny_dataset}:train", "--model", tiny_model, "--output", tmp_path / "mined.run",
                     "--range-max", "10", "--relative-margin", "0.02")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    return tmp_path / "mined.run"


def page_of(mined: Path, run_cli: RunCli, *flags: str) -> Path:
    page = mined.with_name("judging.html")
    result = run_cli("audit", mined, "--suspects", "30", "--html", page, *flags)
    assert result.exit_code == 0, result.stderr
    return page


def saved(opened: Any, path: Path) -> Path:
    with opened.expect_download() as download:
        opened.click("#save")
    download.value.save_as(path)
    return path


def test_forty_decisions_by_keys_and_clicks_survive_a_reload_and_become_judgements(
    mined: Path, tiny_dataset: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    page, trouble, decided = page_of(mined, run_cli), [], {}
    with chromium(tmp_path / "profile") as browser:
        opened = browser.pages[0]
        opened.on("console", lambda message: trouble.append(message.text))
        opened.on("pageerror", lambda error: trouble.append(str(error)))
        opened.on("request", lambda sent: trouble.append(sent.url) if sent.url[:5] in ("http:", "https") else None)
        opened.goto(page.as_uri())
        opened.fill("#by", "Anna B.")
        opened.locator("h1").click()
        cards = [tuple(json.loads(card)) for card in opened.eval_on_selector_all(
            ".card", "cards => cards.map(card => card.dataset.id)")]  # fmt: skip
        assert len(cards) >= 40
        for number, pair in enumerate(cards[:20]):
            key = "rnu"[number % 3]
            opened.keyboard.press(key)
            decided[pair] = KEYS[key]
        opened.reload()
        assert opened.text_content("#count") == f"20 of {len(cards)} decided"
        assert opened.input_value("#by") == "Anna B."
        for number, pair in enumerate(cards[20:40]):
            name = ["relevant", "not relevant", "unsure"][number % 3]
            opened.locator(f".card:nth-child({21 + number}) [data-answer='{name}']").click()
            decided[pair] = [True, False, None][number % 3]
        opened.select_option("#filter", "decided")
        assert opened.locator(".card").count() == 40
        file = saved(opened, tmp_path / "anna.jsonl")
    assert trouble == []
    assert read_decisions(file) == decided
    assert {json.loads(line)["by"] for line in file.read_text().splitlines()} == {"Anna B."}

    result = run_cli("audit", mined, "--relabel", tmp_path / "new.tsv", "--decisions", file)
    assert result.exit_code == 0, result.stderr
    expected = {query_id: dict(judged) for query_id, judged in load_dataset(tiny_dataset, "train").qrels.items()}
    for (query_id, doc_id), relevant in decided.items():
        if relevant is not None:
            expected[query_id][doc_id] = int(relevant)
    assert read_qrels(tmp_path / "new.tsv") == expected


def test_filters_sorting_and_taking_back(mined: Path, tmp_path: Path, run_cli: RunCli) -> None:
    page = page_of(mined, run_cli)
    with chromium(tmp_path / "profile", width=400) as browser:
        opened = browser.pages[0]
        opened.goto(page.as_uri())
        total = opened.locator(".card").count()
        opened.select_option("#filter", "kept")
        kept = opened.locator(".card").count()
        opened.select_option("#filter", "dropped")
        assert (kept > 0, opened.locator(".card").count()) == (True, total - kept)
        opened.select_option("#filter", "all")
        opened.select_option("#sort", "score")
        scores = [
            float(text.split(", ")[1]) for text in opened.locator(".sides section:nth-child(3) h3").all_inner_texts()
        ]
        assert scores == sorted(scores, reverse=True)
        opened.locator("h1").click()
        for key in ("r", "k", "x"):
            opened.keyboard.press(key)
        assert opened.text_content("#count") == f"0 of {total} decided"
        assert opened.is_disabled("#save")
        assert opened.evaluate("document.documentElement.scrollWidth") <= 400


def test_texts_of_the_data_are_shown_and_never_run(tmp_path: Path, tiny_model: Path, run_cli: RunCli) -> None:
    from conftest import write_dataset

    folder, marked = write_dataset(tmp_path / "data"), "</script><b id='planted'>bold</b>"
    lines = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    text = "".join(json.dumps(line | {"text": line["text"] + marked}) + "\n" for line in lines)
    (folder / "corpus.jsonl").write_text(text)
    mined = tmp_path / "mined.run"
    assert run_cli("mine", f"{folder}:train", "--model", tiny_model, "--output", mined).exit_code == 0
    with chromium(tmp_path / "profile") as browser:
        opened = browser.pages[0]
        opened.goto(page_of(mined, run_cli).as_uri())
        assert opened.locator("#planted").count() == 0
        assert marked in opened.locator(".card .text").nth(1).inner_text()


def test_pictures_are_on_the_page(
    pictures: Path, image_models: dict[str, Path], tmp_path: Path, run_cli: RunCli
) -> None:
    mined = tmp_path / "mined.run"
    done = run_cli("mine", f"{pictures}:train", "--model", image_models["clip"], "--output", mined)
    assert done.exit_code == 0, done.stderr
    page = page_of(mined, run_cli).read_text()
    assert "data:image/webp;base64," in page
    assert '"picture": 0' in page


def write(path: Path, *decisions: tuple[str, str, bool | None]) -> Path:
    lines = [json.dumps({"query_id": q, "doc_id": d, "relevant": relevant}) + "\n" for q, d, relevant in decisions]
    path.write_text("".join(lines))
    return path


def test_two_peoples_decisions_give_their_agreement(
    mined: Path, tiny_dataset: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    data = load_dataset(tiny_dataset, "train")
    query_id = next(iter(data.qrels))
    documents = [doc_id for doc_id in data.corpus.ids if doc_id not in data.qrels[query_id]][:5]
    anna = write(tmp_path / "anna.jsonl", *zip([query_id] * 4, documents, [True, True, False, False], strict=False))
    ben = write(tmp_path / "ben.jsonl", *zip([query_id] * 5, documents, [True, False, False, False, True], strict=True))
    both = agreement(read_decisions(anna), read_decisions(ben))
    # alike 3/4; by chance (2/4)(1/4) + (2/4)(3/4) = 1/2
    assert (both.pairs, both.alike, both.kappa) == (4, 3, pytest.approx(0.5))
    shown = run_cli("audit", mined, "--decisions", anna, "--decisions", ben, "--json")
    assert json.loads(shown.stdout)[0]["Cohen's kappa"] == pytest.approx(0.5)
    result = run_cli("audit", mined, "--decisions", anna, "--decisions", ben, "--relabel", tmp_path / "new.tsv")
    assert "3 of 4 pairs decided alike, Cohen's kappa 0.50" in result.stderr
    assert f"people disagree on 1 pairs, which stay as they were: {query_id} {documents[1]}" in result.stderr
    judged = read_qrels(tmp_path / "new.tsv")[query_id]
    assert {doc_id: judged.get(doc_id) for doc_id in documents} == dict(zip(documents, [1, None, 0, 0, 1], strict=True))


def test_the_filter_judge_drops_what_people_judged_relevant(tmp_path: Path) -> None:
    import torch

    from embedtune.types import Scores

    file = write(tmp_path / "a.jsonl", ("q", "a", True), ("q", "b", False), ("q", "c", None))
    mined = torch.tensor([[False, True, True, True, True]])
    scores = Scores(student=torch.zeros(1, 5), positive=~mined, candidate=mined, own=mined, query_ids=("q",),
                    doc_ids=("p", "a", "b", "c", "d"))  # fmt: skip
    assert Judge(path=str(file))(scores).tolist() == [[False, False, True, True, True]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"query_id": "q1", "doc_id": "d1", "relevant": "yes"}',
            r"a\.jsonl:1: not a decision of the judging page \(rel",
        ),
        ('{"query_id": "q1"', r"a\.jsonl:1: not a decision of the judging page"),
        ("", r"a\.jsonl: no decisions; expected the file that the page of `embedtune audit --html` saves"),
    ],
)
def test_other_files_are_no_decisions(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(line)
    with pytest.raises(InputError, match=message):
        read_decisions(tmp_path / "a.jsonl")


def test_decisions_of_other_data_are_refused(mined: Path, tmp_path: Path, tiny_dataset: Path, run_cli: RunCli) -> None:
    data: Dataset = load_dataset(tiny_dataset, "train")
    query_id, judged = next(iter(data.qrels.items()))
    other = write(tmp_path / "other.jsonl", ("q-foreign", "d1", True))
    positive = write(tmp_path / "positive.jsonl", (query_id, next(iter(judged)), False))
    for file, message in ((other, "'q-foreign'"), (positive, "is a positive of query")):
        result = run_cli("audit", mined, "--relabel", tmp_path / "new.tsv", "--decisions", file)
        assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
        assert not (tmp_path / "new.tsv").exists()
