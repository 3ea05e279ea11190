from __future__ import annotations

import json
import re
import sys

import pytest

from embedtune_cli.output import progress, say, show_json, show_table, show_tables, views_of
from embedtune_cli.train import Watcher

ROWS = [["a\tb", 0.123456789, None], ["[c]", 2, "x\ny"]]
SMALL = [[0.00546543219], [0.0000123456], [0.0], [-0.98765432], [12345.678]]
COLUMNS = ["name", "nDCG@10", "note"]


def test_without_a_terminal_a_table_is_tsv_with_six_digits(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(COLUMNS, ROWS, as_json=False)
    assert capsys.readouterr().out == "name\tnDCG@10\tnote\na b\t0.123457\t\n[c]\t2\tx y\n"
    show_table(["p"], SMALL, as_json=False)
    assert capsys.readouterr().out.split() == ["p", "0.005465", "1.23e-05", "0", "-0.987654", "12345.7"]


def test_json_is_one_object_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(COLUMNS, ROWS, as_json=True)
    assert json.loads(capsys.readouterr().out) == [
        {"name": "a\tb", "nDCG@10": 0.123456789, "note": None},
        {"name": "[c]", "nDCG@10": 2, "note": "x\ny"},
    ]


def test_a_terminal_gets_a_table_and_brackets_are_no_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show_table(COLUMNS, ROWS, as_json=False, title="Measures")
    shown = capsys.readouterr().out
    assert "Measures" in shown
    assert "0.1235" in shown
    assert "[c]" in shown


def test_a_table_wider_than_the_terminal_goes_on_below_and_breaks_no_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    columns = ["dataset", "measure", *(f"value {n}" for n in range(8)), "note"]
    row = ["scifact-mini", "nDCG@10", *(n / 7 for n in range(8)), "some words " * 9]
    show_table(columns, [row], as_json=False, title="Measures")
    printed = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert printed.count("Measures") == 1
    assert printed.count("scifact-mini") == 3  # a table for some columns each
    assert [f"{n / 7:.4f}" for n in range(8)] == re.findall(r"\d\.\d{4}", printed)
    assert " ".join(re.findall("some|words", printed)) == ("some words " * 9).strip()
    assert max(map(len, printed.splitlines())) <= 60


def test_a_wide_table_is_whole_tsv_and_views_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    columns, row = ["dataset", "measure", "run", "mean", "p", "seeds"], ["a", "b", "c", 0.5, 0.25, None]
    views = {"Means": [*columns[:3], "mean"], "Tests": [*columns[:3], "p"], "Seeds": [*columns[:3], "seeds"]}
    table = ("Comparisons", columns, [row])
    show_tables(views_of(table, views))
    assert capsys.readouterr().out == "# Comparisons\ndataset\tmeasure\trun\tmean\tp\na\tb\tc\t0.5\t0.25\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show_tables(views_of(table, views))
    shown = capsys.readouterr().out
    assert shown.index("Means") < shown.index("0.5000") < shown.index("Tests") < shown.index("0.2500")
    assert "Seeds" not in shown


HOSTILE = "\x1b]0;owned\x07\x9b31m\x7f\u202ered \ud83d"
HARMLESS = r"\u001b]0;owned\u0007\u009b31m\u007f\u202ered \ud83d"


@pytest.mark.parametrize("terminal", [False, True])
def test_control_characters_of_the_data_are_written_as_escapes(
    terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("COLUMNS", "200")
    show_table([HOSTILE], [[HOSTILE]], as_json=False, title="Title")
    show_tables([(HOSTILE, [HOSTILE], [[HOSTILE]])])
    say(f"left out: {HOSTILE}")
    shown = capsys.readouterr()
    assert shown.out.count(HARMLESS) == 5
    assert "\x1b]" not in shown.out
    assert shown.err == f"left out: {HARMLESS}\n"
    show_json({"text": HOSTILE})
    shown_json = capsys.readouterr().out
    assert HARMLESS in shown_json
    assert json.loads(shown_json) == {"text": HOSTILE}


def test_several_tables_keep_their_titles_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show_tables([("Filters", ["filter", "dropped"], [["absolute", 3]]), ("Sources", ["source"], [["dense"]])])
    assert capsys.readouterr().out == "# Filters\nfilter\tdropped\nabsolute\t3\n\n# Sources\nsource\ndense\n"


def test_without_a_terminal_there_is_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("Encoding") as on_progress:
        on_progress(1, 2)
    assert capsys.readouterr().err == ""


def test_a_phase_of_unknown_length_does_not_keep_the_last_total(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with progress("train") as show:
        show(22, 22, "train")
        show(0, None, "mix [bold]\x1b]0;owned")
    shown = capsys.readouterr().err
    assert "0/22" not in shown
    assert "0/?" in shown
    assert r"mix [bold]\u001b]0;owned" in shown


def test_a_whole_run_has_a_bar_of_its_own_with_its_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress("train") as show:
        show(5, 22, "mix: alpha 3 of 11, set 2 of 2", (0.43, "about 12 min left"))
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert any("mix: alpha 3 of 11, set 2 of 2" in line and "5/22" in line for line in lines)
    assert any("whole run" in line and "43%" in line and "about 12 min left" in line for line in lines)


def test_a_run_that_mines_again_keeps_count_of_its_steps(capsys: pytest.CaptureFixture[str]) -> None:
    watcher = Watcher(lambda *_: None)
    watcher({"event": "phase", "name": "train", "steps": 4})
    watcher({"event": "phase", "name": "mine negatives"})
    watcher({"event": "step", "step": 3, "loss": 0.5, "pairs_per_second": 8.0, "seconds": 2.0})
    assert capsys.readouterr().err.splitlines() == [
        "train: 4 steps",
        "mine negatives",
        "step 3/4: loss 0.5000, 8.0 pairs/s, about 2 s left",
    ]
