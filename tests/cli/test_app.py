from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.main import get_command

from embedtune.errors import BarMissed, InputError, Interrupted
from embedtune_cli.app import app

RunCli = Callable[..., Any]


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


COMMANDS = list(commands(get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_help_text_has_an_example(path: tuple[str, ...], run_cli: RunCli) -> None:
    result = run_cli(*path, "--help")
    assert result.exit_code == 0
    example = " ".join(["embedtune", *(path or ["quickstart"])])
    text = " ".join(result.stdout.split())
    assert f"Example: {example}" in text or (not path and example in text)


@pytest.mark.parametrize(
    ("verb", "named"), [("report", "embedtune[plots]"), ("eval", "embedtune[mteb]"), ("export", "[onnx]")]
)
def test_help_names_the_extra_that_is_needed(verb: str, named: str, run_cli: RunCli) -> None:
    assert named in run_cli(verb, "--help").stdout  # brackets are markup unless they are escaped


def test_without_a_verb_it_shows_its_help(run_cli: RunCli) -> None:
    result = run_cli()
    assert result.exit_code == 0
    assert "embedtune quickstart" in result.stdout


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["quikstart"], "error: No such command 'quikstart'. Did you mean 'quickstart'? (see embedtune --help)"),
        (
            ["methods", "--jsn"],
            "error: No such option: --jsn (Possible options: --json) (see embedtune methods show --help)",
        ),
        (["recipes", "show"], "error: Missing argument 'NAME'. (see embedtune recipes show --help)"),
        (
            ["encode", "x", "-m", "y", "-o", "z", "--precision", "fp8"],
            "error: Invalid value for '--precision': 'fp8' is not one of 'auto', 'fp32', 'bf16', 'fp16'. "
            "(see embedtune encode --help)",
        ),
    ],
)
def test_a_wrong_command_line_is_answered_in_one_line(args: list[str], sentence: str, run_cli: RunCli) -> None:
    result = run_cli(*args)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"{sentence}\n")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("data/x: no such folder"), 2, "error: data/x: no such folder"),
        (BarMissed("nDCG@10 fell by 0.02"), 1, "missed: nDCG@10 fell by 0.02"),
        (Interrupted("step 7 is saved"), 130, "interrupted: step 7 is saved"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (OSError(errno.ENOSPC, "No space left on device", "out.npy"), 2, "error: out.npy: No space left on device"),
        (KeyError("doc_7"), 70, "unexpected KeyError: 'doc_7'\nThis is likely a bug; run again with --debug"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_is_a_line_and_an_exit_code(
    error: BaseException, code: int, line: str, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> list[str]:
        raise error

    monkeypatch.setattr("embedtune.recipe.shipped.names", fail)
    result = run_cli("recipes", "list")
    assert result.exit_code == code
    assert result.stderr.startswith(line)
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("args", [["--debug", "recipes", "show", "x"], ["recipes", "show", "x", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(args: list[str], run_cli: RunCli) -> None:
    result = run_cli(*args)
    assert result.exit_code == 2
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: unknown recipe 'x'")


def test_an_interruption_while_the_verbs_are_imported_is_said_in_one_word() -> None:
    interrupting = "import sys\nclass Stop:\n  def find_spec(self, name, *_):\n    if name == 'embedtune_cli.app':\n"
    interrupting += "      raise KeyboardInterrupt\nsys.meta_path.insert(0, Stop())\n"
    interrupting += "from embedtune_cli.__main__ import main\nmain()"
    done = subprocess.run([sys.executable, "-c", interrupting], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_a_reader_that_goes_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "embedtune_cli", "methods"], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_the_version_is_said(run_cli: RunCli) -> None:
    from embedtune import __version__

    assert run_cli("--version").stdout == f"embedtune {__version__}\n"
