"""Every help text: one snapshot that shows a change of words in review, and one meaning for each flag."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from embedtune_cli.app import GROUPS, app

RunCli = Callable[..., Any]
SNAPSHOT = Path(__file__).with_name("help.txt")
UPDATE = "EMBEDTUNE_UPDATE_HELP"  # set it to 1 to write the snapshot anew


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


COMMANDS = list(commands(get_command(app)))
VERBS = [(path, command) for path, command in COMMANDS if not hasattr(command, "commands")]


@pytest.fixture
def fixed_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERMINAL_WIDTH", "100")
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 100)


@pytest.mark.usefixtures("fixed_width")
def test_every_help_text_is_the_one_in_the_snapshot(run_cli: RunCli) -> None:
    texts = []
    for path, _ in COMMANDS:
        shown = run_cli(*path, "--help")
        assert (shown.exit_code, shown.stderr) == (0, "")
        lines = [line.rstrip() for line in shown.stdout.strip("\n").splitlines()]
        texts.append("\n".join([f"$ embedtune {' '.join([*path, '--help'])}", *lines]))
    text = "\n\n".join(texts) + "\n"
    if os.environ.get(UPDATE):
        SNAPSHOT.write_text(text, encoding="utf-8")
    assert text == SNAPSHOT.read_text(encoding="utf-8"), f"the help has changed; {UPDATE}=1 writes {SNAPSHOT.name} anew"


@pytest.mark.parametrize("path", [path for path, _ in COMMANDS], ids=" ".join)
def test_no_name_is_cut_on_a_terminal_of_80_columns(
    path: tuple[str, ...], run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 80)
    assert "…" not in run_cli(*path, "--help").stdout


def test_a_flag_without_a_value_shows_no_type() -> None:
    assert SNAPSHOT.read_text(encoding="utf-8").count("--json") > 5
    assert "<bool>" not in SNAPSHOT.read_text(encoding="utf-8")


def test_a_flag_has_one_help_text_in_all_verbs() -> None:
    texts: dict[str, dict[str, list[str]]] = {}
    for path, command in VERBS:
        for option in command.params:
            for flag in option.opts if option.param_type_name == "option" and not option.hidden else ():
                texts.setdefault(flag, {}).setdefault(option.help, []).append(" ".join(path))
    # `judge` takes one more form of model, and `search` says what its model is for.
    moved = "The model that encodes queries, if the index's has moved. "
    allowed = {"--model", "-m"}
    shared = {flag: list(help_texts) for flag, help_texts in texts.items()}
    assert {"--output", "--json", "--overwrite", "--data", "--model"} <= set(shared)
    for flag in allowed:
        shared[flag] = sorted(
            {text.removeprefix(moved).removesuffix(" Or cross-encoder:NAME.") for text in shared[flag]}
        )
    assert {flag: found for flag, found in shared.items() if len(found) > 1} == {}


def test_every_argument_has_a_help_text_that_is_a_sentence() -> None:
    for path, command in VERBS:
        for param in command.params:
            if not param.hidden:
                assert param.help, (path, param.name)
                assert param.help.endswith("."), (path, param.help)
                assert param.help[0].isupper(), (path, param.help)


def test_long_flags_of_outputs_and_data_have_the_same_short_form() -> None:
    short = {"--output": "-o", "--data": "-d", "--model": "-m"}
    for path, command in VERBS:
        for option in command.params:
            for flag in set(option.opts) & set(short):
                assert short[flag] in option.opts, (path, flag)


def test_verbs_are_listed_by_the_way_of_the_user(run_cli: RunCli) -> None:
    shown = run_cli("--help").stdout
    assert list(GROUPS) == ["Start", "Data", "Train", "Measure", "Search", "Negatives", "Ship"]
    titles = [f"─ {group} ─" for group in GROUPS]
    assert sorted(titles, key=shown.index) == titles
    assert {verb for verbs in GROUPS.values() for verb in verbs} == set(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("args", "note"),
    [
        (["judge", "absent.run", "--by", "m", "-o", "x.run"], "note: --by is now --model"),
        (["audit", "absent.run", "--queries"], "note: --queries is now --per-query"),
        (["data", "split", "absent", "--from", "train"], "note: --from is now --source"),
        (["methods", "show", "--from", "absent"], "note: --from is now --methods"),
        (["merge", "a", "b", "-o", "x", "--try=0.5", "--alpha", "1"], "note: --try is now --alphas"),
    ],
)
def test_the_former_name_of_a_flag_is_taken_with_a_note(args: list[str], note: str, run_cli: RunCli) -> None:
    result = run_cli(*args)
    assert result.exit_code == 2
    first, error = result.stderr.splitlines()
    assert first == note
    assert "No such option" not in error
