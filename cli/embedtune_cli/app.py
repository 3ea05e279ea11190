"""The command line: its verbs, and what becomes of an error.

Exit codes: 0 done; 1 it ran and a bar was missed; 2 bad input; 70 unexpected, likely a bug; 130 interrupted; 141 the
reader of a pipe went away.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from embedtune.errors import BarMissed, InputError, Interrupted

from . import (
    ablate,
    audit,
    compare,
    data,
    doctor,
    encode,
    export,
    index,
    judge,
    merge,
    methods,
    mine,
    quickstart,
    recipes,
    report,
    search,
    train,
)
from . import eval as evaluation
from .output import say

app = typer.Typer(
    name="embedtune",
    no_args_is_help=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

WORK, AROUND = "The work", "Around it"
MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"embedtune {version('embedtune')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def embedtune(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; stands anywhere.")] = False,
) -> None:
    """Fine-tune retrieval and embedding models, and prove that they got better.

    First time here: embedtune quickstart
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


def run(args: Sequence[str]) -> int:
    """Runs one command line, says what went wrong in one line, and returns the exit code. Tests call this too."""
    given, debug = _without_debug(args)
    try:
        result = get_command(app).main(given, prog_name="embedtune", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except SystemExit as stop:  # shell completion, or typer's answer to a closed pipe
        if isinstance(stop.__context__, BrokenPipeError):
            return 141
        return stop.code if isinstance(stop.code, int) else 0
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exception(error)
        message, code = _verdict(error)
        if message:
            say(message)
        return code


def _without_debug(args: Sequence[str]) -> tuple[list[str], bool]:
    """The arguments without --debug, wherever it stood before a `--`, and whether it was there."""
    end = args.index("--") if "--" in args else len(args)
    kept = [arg for arg in args[:end] if arg != "--debug"]
    return [*kept, *args[end:]], len(kept) < end


def _verdict(error: BaseException) -> tuple[str, int]:
    """The line that a user reads, and the exit code."""
    if isinstance(error, InputError):
        return f"error: {error}", 2
    if isinstance(error, BarMissed):
        return f"missed: {error}", 1
    if isinstance(error, Interrupted | KeyboardInterrupt | typer.Abort):
        return f"interrupted: {error}" if str(error) else "interrupted", 130
    if isinstance(error, typer.TyperException):
        return _usage(error), 2
    if isinstance(error, OSError) and error.errno in MACHINE:
        return f"error: {error.filename or 'writing failed'}: {error.strerror}", 2
    kind = type(error).__name__
    return f"unexpected {kind}: {error}\nThis is likely a bug; run again with --debug for the traceback.", 70


def _usage(error: typer.TyperException) -> str:
    """typer's own complaint in one line; empty where it has shown a group's help instead."""
    message = " ".join(error.format_message().replace(": Value error, ", ": ").split())
    context = getattr(error, "ctx", None)
    return f"error: {message} (see {context.command_path if context else 'embedtune'} --help)" if message else ""


def main() -> None:
    """The entry point `embedtune`."""
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    sys.exit(code)


app.command(rich_help_panel=WORK)(quickstart.quickstart)
app.command(rich_help_panel=WORK)(train.train)
app.command(rich_help_panel=WORK)(mine.mine)
app.command(rich_help_panel=WORK)(audit.audit)
app.command(rich_help_panel=WORK)(judge.judge)
app.command("eval", rich_help_panel=WORK)(evaluation.evaluate)
app.command(rich_help_panel=WORK)(compare.compare)
app.command(rich_help_panel=WORK)(report.report)
app.command(rich_help_panel=WORK)(ablate.ablate)
app.command(rich_help_panel=WORK)(index.index)
app.command(rich_help_panel=WORK)(search.search)
app.command(rich_help_panel=WORK)(encode.encode)
app.command(rich_help_panel=WORK)(merge.merge)
app.command(rich_help_panel=WORK)(export.export)
app.add_typer(data.app, name="data", rich_help_panel=AROUND)
app.add_typer(recipes.app, name="recipes", rich_help_panel=AROUND)
app.command(rich_help_panel=AROUND)(methods.methods)
app.command(rich_help_panel=AROUND)(doctor.doctor)
