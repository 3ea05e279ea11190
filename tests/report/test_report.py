"""The report of a real run on the tiny model: what stands in it, what is missing from a killed one, several beside one
another, and the verb."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt
from report.conftest import recipe_for

from embedtune.errors import InputError
from embedtune.report import markdown
from embedtune.report.markdown import MARK
from embedtune.report.outcome import as_json, outcomes, tables
from embedtune.report.record import read_record
from embedtune.report.write import report
from embedtune.train.run import train

VOID = {"meta", "link", "img", "br", "path", "use", "rect"}


class Page(HTMLParser):
    """Tags as they open and close, attributes, and texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def headings(page: Page) -> list[str]:
    return [tag for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]


def test_the_page_is_whole_and_needs_nothing_else(finished_run: Path) -> None:
    made = report([finished_run])
    text, page = made.text, Page(made.text)
    assert page.open == []  # every element is closed
    assert made.notes == []
    assert not page.all("script")
    links = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert links
    assert all(link is not None and link.startswith(("#", "data:")) for link in links)
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", text)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))  # figures do not share theirs
    assert all(link[1:] in ids for link in links if link is not None and link.startswith("#"))
    assert len(text.encode()) < 3_000_000
    assert report([finished_run]).text == text  # the same run is the same page


def test_it_says_what_it_shows_to_those_who_do_not_see_it(finished_run: Path) -> None:
    page = Page(report([finished_run]).text)
    assert page.all("html")[0]["lang"] == "en"
    found = headings(page)
    assert found[0] == "h1"
    assert found.count("h1") == 1
    assert all(int(after[1]) <= int(before[1]) + 1 for before, after in pairwise(found))
    assert page.all("svg")
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))
    assert len(page.all("figcaption")) == len(page.all("svg"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(cell.get("scope") in ("col", "row") for cell in page.all("th"))


def test_it_holds_what_the_run_did(finished_run: Path) -> None:
    text = Page(report([finished_run]).text).text
    summary = json.loads((finished_run / "summary.json").read_text())
    for label in ("tiny", "other"):
        for side in ("base", "tuned"):
            assert f"{summary[side][label]['nDCG@10']:.4f}" in text
    assert "nDCG@10 on tiny (in domain, 10 queries): " in text
    assert "nDCG@10 on other (out of domain, 10 queries): " in text
    assert text.count("95% interval") >= 3
    assert "by dense (depth 10); filtered by positive_ratio (at_most 0.99)" in text
    assert "before training" in text
    assert "The student mined again 2 times." in text
    assert "at step 8" in text  # the last one's own counts
    assert "Likely false negatives that the filters caught" in text
    assert f"embedtune train {finished_run / 'recipe.yaml'} --output runs/again" in text
    assert summary["weights"]["model.safetensors"] in text
    record = read_record(finished_run)
    candidates = json.loads((finished_run / "negatives" / "mined.json").read_text())["report"]
    assert f"{candidates['candidates']:,} candidates were found" in text
    assert sum(source.kept for source in record.minings[0].audit.sources) == candidates["kept"]


def test_mteb_results_in_the_run_folder_are_shown(finished_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    place = run / "mteb" / "results" / "local__run" / "revision"
    place.mkdir(parents=True)
    for task, scores in (("SciFact", {"ndcg_at_10": 0.625}), ("STS12", {"spearman": 0.5})):
        found = {"hf_subset": "default", "main_score": 0.5, **scores}
        (place / f"{task}.json").write_text(json.dumps({"task_name": task, "scores": {"test": [found]}}))
    text = Page(report([run]).text).text
    assert "SciFact nDCG@10 0.6250" in text
    assert "STS12 main_score 0.5000" in text


def test_items_that_are_pictures_are_shown(finished_run: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    from PIL import Image

    data = shutil.copytree(tiny_dataset, tmp_path / "tiny")
    (data / "pictures").mkdir()
    queries = [json.loads(line) for line in (data / "queries.jsonl").read_text().splitlines()]
    for query in queries:
        Image.new("RGB", (200, 50), "blue").save(data / "pictures" / f"{query['_id']}.png")
    lines = [json.dumps({"_id": query["_id"], "image": f"pictures/{query['_id']}.png"}) for query in queries]
    (data / "queries.jsonl").write_text("\n".join(lines) + "\n")
    run = shutil.copytree(finished_run, tmp_path / "run")
    for file in run.rglob("measures.json"):
        file.write_text(file.read_text().replace(str(tiny_dataset), str(data)))
    with (run / "evaluation" / "tiny" / "per-query.jsonl").open("r+") as file:
        text = re.sub(r'("nDCG@10": )[0-9.]+', r"\g<1>0.0", file.read(), count=1)  # q0 lost all
        file.seek(0)
        file.write(text)
        file.truncate()
    page = Page(report([run]).text)
    thumbnails = [image for image in page.all("img") if (image["src"] or "").startswith("data:image/webp")]
    assert thumbnails
    assert all(image["alt"] for image in thumbnails)
    assert "q0.png" in page.text


def killed(run: Path, place: Path, *without: str) -> Path:
    """The run as if it had been killed before these were written."""
    copy = shutil.copytree(run, place)
    for name in (*without, "summary.json"):
        target = copy / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    return copy


def test_a_run_killed_while_training_shows_what_there_is(finished_run: Path, tmp_path: Path) -> None:
    run = killed(finished_run, tmp_path / "run", "evaluation", "evaluation-base", "model")
    lines = (run / "log.jsonl").read_text().splitlines(keepends=True)
    (run / "log.jsonl").write_text("".join(lines[:5]) + lines[5][:20])  # half a line
    made = report([run])
    text, notes = made.text, made.notes
    steps = [json.loads(line)["step"] for line in lines[:5]]
    assert notes == [
        f"This run is not finished: it was stopped after step {steps[-1]}, or is still going. "
        f"`embedtune train {run / 'recipe.yaml'} --output {run} --resume` goes on.",
        "Missing: the tuned model's evaluation, and the base model's.",
    ]
    page = Page(text)
    assert page.open == []
    assert "Before and after" not in page.text
    assert f"{steps[-1]} so far" in page.text


def test_a_run_killed_while_it_was_measured_shows_the_base(finished_run: Path, tmp_path: Path) -> None:
    run = killed(finished_run, tmp_path / "run", "evaluation")
    made = report([run])
    assert made.notes[1] == "Missing: the tuned model's evaluation."
    assert "Only the base model was measured before the run stopped." in Page(made.text).text
    half = killed(finished_run, tmp_path / "half", "evaluation/other")
    made = report([half])
    assert "other: left out for the tuned model: it was not evaluated on it" in made.notes
    assert "on tiny (in domain" in Page(made.text).text  # without a summary the datasets say what is in domain


def test_a_run_killed_at_once_has_its_recipe(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(finished_run / "recipe.yaml", run)
    made = report([run])
    assert "it was stopped before its first step" in made.notes[0]
    assert "Missing: negatives; they were not mined to the end." in made.notes
    assert "What was trained" in Page(made.text).text


def test_what_is_no_run_is_refused(finished_run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder; expected a run folder as `embedtune train` writes it"):
        report([tmp_path / "nowhere"])
    with pytest.raises(InputError, match=r"holds evaluations but no run .*`embedtune compare` reads those"):
        report([finished_run / "evaluation"])
    with pytest.raises(InputError, match=r"is no run folder \(no recipe.yaml in it\)"):
        report([tmp_path])
    damaged = shutil.copytree(finished_run, tmp_path / "damaged")
    lines = (damaged / "log.jsonl").read_text().splitlines(keepends=True)
    (damaged / "log.jsonl").write_text(lines[0] + "{oops\n" + "".join(lines[1:]))
    with pytest.raises(InputError, match=r"log\.jsonl:2: not valid JSON"):
        report([damaged])
    (damaged / "log.jsonl").write_text(lines[0] + "[1]\n")
    with pytest.raises(InputError, match=r"log\.jsonl:2: expected a JSON object, got \[1\]"):
        report([damaged])
    (damaged / "log.jsonl").write_text(lines[0] + '{"event": "step"}\n')
    with pytest.raises(InputError, match=r"log\.jsonl:2: is no event of a run"):
        report([damaged])
    (damaged / "log.jsonl").write_text(lines[0])
    (damaged / "environment.json").write_text('{"embedtune": "0.1.0"}')
    with pytest.raises(InputError, match=r"a file of the run lacks a value that the report shows: .*'versions'"):
        report([damaged])
    older = shutil.copytree(finished_run, tmp_path / "older")
    (older / "evaluation" / "tiny" / "per-query.jsonl").unlink()
    with pytest.raises(InputError, match=r"measures\.json: written by an older version of embedtune .* evaluate again"):
        report([older])


def test_data_that_is_gone_is_said(finished_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    for file in run.rglob("measures.json"):
        file.write_text(file.read_text().replace('"folder": "', '"folder": "/gone'))
    made = report([run])
    assert "tiny: scores are not shown; the dataset is not there as it was evaluated." in made.notes
    assert "tiny: queries are shown by id only: the dataset's folder is not there any more" in made.notes
    assert "Scores before and after" not in made.text


def test_texts_of_the_data_have_no_effect_on_the_page(
    tiny_model: Path, tiny_dataset: Path, other_dataset: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(tiny_dataset, tmp_path / "<b>$x$&|`")
    evil = "<script>alert(1)</script> ![x](http://example.org/x.png) | `code`"
    for name in ("queries.jsonl", "corpus.jsonl"):
        items = [json.loads(line) for line in (data / name).read_text().splitlines()]
        lines = [json.dumps({**item, "text": f"{evil} {item['text']}"}) for item in items]
        (data / name).write_text("\n".join(lines) + "\n")
    run = train(recipe_for(tiny_model, data, other_dataset, at_most=1.0, max_steps=4), tmp_path / "run|<i>").folder
    page = Page(report([run]).text)
    assert page.open == []
    assert not page.all("script")
    assert "<script>alert(1)</script>" in page.text  # as text
    assert "<b>$x$&|`" in page.text
    card = (run / "model" / "README.md").read_text().split("---\n", 2)[2]
    assert "alert(1)" not in card  # it holds no texts of the data
    markdown = report([run], form="md").text
    for text in (card, markdown):
        assert text.startswith(r"# run\|\<i>") or text.startswith("\n# run\\|\\<i>")
        tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
        inline = [child for token in tokens for child in token.children or ()]
        assert not {token.type for token in [*tokens, *inline]} & {"html_inline", "image", "link_open"}
        assert [token.content.strip() for token in tokens if token.type == "html_block"] in ([], [MARK])
        rows = [index for index, token in enumerate(tokens) if token.type == "tr_open"]
        assert rows
        headline = next(token.content for token in tokens if token.type == "inline" and " nDCG@10 on " in token.content)
        assert r"on \<b>\$x\$&\|\` went from" in headline


def test_a_run_whose_methods_are_not_installed_here_is_reported(finished_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    recipe = (run / "recipe.yaml").read_text()
    recipe = recipe.replace("name: infonce\n  temperature: 0.05", "name: of_another_package\n  margin: 0.25")
    recipe = recipe.replace("name: positive_ratio\n    at_most: 0.99", "name: theirs")
    (run / "recipe.yaml").write_text(recipe + "a_key_of_another_version: {x: 1}\n")
    text = Page(report([run]).text).text
    assert "Loss: of_another_package (margin 0.25)" in text
    assert "filtered by theirs; drawn by top" in text
    assert "a_key_of_another_version" in text
    (run / "recipe.yaml").write_text("version: 1\n")
    with pytest.raises(
        InputError, match=r"recipe\.yaml: expected the resolved recipe of a run, with `model` and `data`"
    ):
        report([run])
    (run / "recipe.yaml").write_text("model: {name: m}\ndata: {train: d}\nevaluate: [1]\n")
    with pytest.raises(InputError, match=r"recipe\.yaml: evaluate: expected a mapping, got \[1\]"):
        report([run])


def test_a_measure_of_the_recipe_that_was_not_evaluated_leaves_its_figure_out(
    finished_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    recipe = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(recipe.replace("\n  measure: nDCG@10\n", "\n  measure: R@100\n"))
    text = Page(report([run]).text).text
    assert "All measures" in text
    assert "Change of" not in text


def test_the_kept_step_is_shown_with_its_own_validation(finished_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    values = {0: 0.8814, 2: 0.8552, 4: 0.8101}
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    for event in events:
        if event["event"] == "validation":
            event["value"] = values.get(event["step"], 0.7)
    (run / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    summary = json.loads((run / "summary.json").read_text()) | {"best_step": 2}
    (run / "summary.json").write_text(json.dumps(summary))
    text = Page(report([run]).text).text
    assert "kept is step 2 (validation nDCG@10 0.8552); the untouched model validated higher (0.8814)" in text
    assert "0.8814 at step 0, best 0.8814 at step 0; kept is step 2 with 0.8552." in text
    (run / "summary.json").write_text(json.dumps(summary | {"best_step": 0}))
    text = report([run], form="md").text
    assert "kept is the untouched model, which no step validated above (validation nDCG@10 0.8814)\n" in text
    (run / "summary.json").write_text(json.dumps(summary))
    several = report([run, finished_run], form="md").text
    row = next(line for line in several.splitlines() if line.startswith("| run | tiny"))
    assert row.split(" | ")[3:6:2] == ["2", "0.8552"]


def test_the_final_table_has_queries_interval_and_the_guards_verdict(finished_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    guarded = {"label": "other", "queries": 10, "chosen_on": None, "base": 0.5, "tuned": 0.4, "unmixed": None,
               "difference": -0.1, "low": -0.2, "high": -0.05, "negative_flips": 0.1, "missed": True}  # fmt: skip
    guard = {"measure": "nDCG@10", "largest_drop": 0.01, "largest_flips": None, "weights": "linear", "chosen": 0.25,
             "curve": [], "sets": [guarded]}  # fmt: skip
    (run / "guard.json").write_text(json.dumps(guard))
    record = read_record(run, negatives=False)
    rows = outcomes(record)
    assert [(row.dataset, row.measure, row.guard, row.alpha) for row in rows] == [
        ("tiny", "nDCG@10", None, None),
        ("tiny", "RR@10", None, None),
        ("other", "nDCG@10", "over budget", 0.25),
        ("other", "RR@10", None, None),
    ]
    summary = json.loads((run / "summary.json").read_text())
    for row in rows:
        assert (row.queries, row.tuned) == (10, pytest.approx(summary["tuned"][row.dataset][row.measure]))
        assert row.low is not None
        assert row.high is not None
        assert row.low <= row.difference <= row.high
        assert row.difference == pytest.approx(row.tuned - row.untouched)
        bm25 = json.loads((run / "evaluation-bm25" / row.dataset / "measures.json").read_text())["measures"]
        assert row.bm25 == bm25[row.measure]
    shown = tables(record)
    assert [table.title for table in shown] == ["nDCG@10 in domain", "nDCG@10 out of domain", "Other measures"]
    assert shown[0].columns == [
        "dataset", "queries", "BM25", "untouched", "tuned", "difference [95% interval]", "verdict"
    ]  # fmt: skip
    assert shown[1].note == (
        "The guard's budget (a drop of at most 0.01 nDCG@10) is missed on other with alpha 0.25: 25% tuned and 75% "
        "untouched weights."
    )
    assert as_json(record)["outcome"][2]["difference"] == rows[2].difference  # every digit


def test_markdown_links_figures_where_asked(finished_run: Path, tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    plain = report([finished_run], form="md")
    assert "![" not in plain.text
    assert plain.files == {}
    output = tmp_path / "a report.md"
    result = run_cli("report", finished_run, "--format", "md", "--figures", "--output", output)
    assert result.exit_code == 0, result.stderr
    links = re.findall(r"^!\[.*\]\((.*)\)$", output.read_text(), re.M)
    names = ["differences", "loss", "curves", "mined_scores", "mined_gaps", "scores", "scores-2"]
    assert links == [f"a%20report-figures/{name}.svg" for name in names]
    for name in names:
        assert ElementTree.parse(tmp_path / "a report-figures" / f"{name}.svg").getroot().tag.endswith("}svg")
    again = run_cli("report", finished_run, "--format", "md", "--figures", "--output", output, "--overwrite")
    assert again.exit_code == 0, again.stderr
    (tmp_path / "a report-figures" / "notes.txt").write_text("somebody's own")
    kept = run_cli("report", finished_run, "--format", "md", "--figures", "--output", output, "--overwrite")
    assert kept.exit_code == 2
    assert "holds 'notes.txt', which `embedtune report` did not write" in kept.stderr
    refused = run_cli("report", finished_run, "--figures")
    assert refused.exit_code == 2
    assert "--figures has no effect without --format md --output FILE.md" in refused.stderr


def test_several_runs_are_compared_with_the_first(
    finished_run: Path, tiny_model: Path, tiny_dataset: Path, other_dataset: Path, tmp_path: Path
) -> None:
    slow = train(
        recipe_for(tiny_model, tiny_dataset, other_dataset, learning_rate=1e-5, max_steps=4), tmp_path / "slow"
    ).folder
    page = Page(report([slow, finished_run]).text)
    assert page.open == []
    assert "Baseline: slow" in page.text
    assert "train.learning_rate 1e-05 0.003" in page.text
    assert "train.max_steps 4 None" in page.text
    assert "nDCG@10 against slow" in page.text
    markdown = report([slow, finished_run], form="md").text
    assert "| train.learning_rate | 1e-05 | 0.003 |" in markdown
    with pytest.raises(InputError, match="is given twice"):
        report([slow, slow])
    unfinished = killed(finished_run, tmp_path / "unfinished", "evaluation")
    assert "unfinished: is not compared; it has no evaluation." in report([slow, unfinished]).notes


def test_seeds_of_one_recipe_are_compared_with_their_base_model(
    finished_run: Path, tiny_model: Path, tiny_dataset: Path, other_dataset: Path, tmp_path: Path
) -> None:
    second = train(recipe_for(tiny_model, tiny_dataset, other_dataset, seed=1), tmp_path / "hard").folder
    made = report([finished_run, second])
    assert "The runs differ in their seed alone: they are compared, as one, with their base model." in made.notes
    page = Page(made.text)
    assert "Baseline: base model" in page.text
    assert "(2 seeds)" in page.text
    assert "Over training seeds" in page.text


def test_the_verb(finished_run: Path, tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    result = run_cli("report", run)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == f"written: {run / 'report.html'}\n"
    assert (run / "report.html").read_text().startswith("<!doctype html>")
    former = run_cli("report", run, "--markdown")
    printed = run_cli("report", run, "--format", "md")
    assert (former.stdout, former.stderr) == (printed.stdout, "note: --markdown is now --format=md\n")
    assert printed.exit_code == 0
    assert printed.stdout.startswith("# run\n")
    both = run_cli("report", run, "--format", "md", "--json")
    assert (both.exit_code, both.stdout) == (2, "")
    assert "name a file for one with --output FILE.md" in both.stderr
    shown = json.loads(run_cli("report", run, "--json").stdout)
    assert shown["output"] == str(run / "report.html")
    summary = json.loads((run / "summary.json").read_text())
    (outcome,) = shown["runs"].values()
    assert outcome["outcome"][0]["tuned"] == summary["tuned"]["tiny"]["nDCG@10"]  # every digit
    assert len(outcome["sentences"]) == 3
    several = run_cli("report", run, finished_run)
    assert several.exit_code == 2
    assert "name it with --output FILE.html" in several.stderr


@pytest.mark.parametrize(
    ("package", "purpose"), [("matplotlib", "plots"), ("markdown_it", "reports in HTML"), ("jinja2", "reports")]
)
def test_without_its_extra_it_says_so(
    package: str, purpose: str, finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(markdown, "find_spec", lambda name: None if name == package else find_spec(name))
    with pytest.raises(InputError, match=rf"{purpose} need {package}; try: pip install 'embedtune\[plots\]'"):
        report([finished_run])
    if package != "jinja2":
        assert report([finished_run], form="md").text.startswith("# hard")  # Markdown needs neither
