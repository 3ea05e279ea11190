"""The command line: its verbs, and the exit code of each error.

Exit codes: 0 done; 1 it ran and a bar was missed; 2 bad input; 70 unexpected, likely a bug; 130 interrupted; 141 the
reader of a pipe went away.
"""

from __future__ import annotations

import errno
import math
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from embedtune.errors import BarMissed, InputError, Interrupted

from .options import switch
from .output import say

GROUPS = {
    "Start": ("quickstart", "init", "doctor", "recipes", "methods"),
    "Data": ("data",),
    "Train": ("train", "ablate"),
    "Measure": ("eval", "compare", "report"),
    "Search": ("index", "search", "encode"),
    "Negatives": ("mine", "audit", "judge"),
    "Ship": ("merge", "export", "parity"),
}
PANELS = {verb: panel for panel, verbs in GROUPS.items() for verb in verbs}
RENAMED = {
    "audit": {"--queries": "--per-query"},
    "eval": {"--images": "--image-folder"},
    "encode": {"--dtype": "--quantize"},
    "judge": {"--by": "--model"},
    "merge": {"--try": "--alphas"},
    "report": {"--markdown": "--format=md"},
    "search": {"--images": "--image-folder"},
    "show": {"--from": "--methods"},  # of `methods`
    "split": {"--from": "--source"},  # of `data`
}
INTERRUPTED = 130
MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


class Verb(TyperCommand):
    """A verb whose help shows no type for a flag without a value, and which still takes the former names of flags."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help = _without_line_breaks(self.help or "")

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_flag_types(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        renamed = RENAMED.get(self.name or "", {})
        for position, arg in enumerate(args):
            flag, equals, value = arg.partition("=")
            if flag in renamed:
                say(f"note: {flag} is now {renamed[flag]}")
                args[position] = renamed[flag] + equals + value
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        for option in self.params:
            value = ctx.params.get(option.name)
            for number in value if isinstance(value, list | tuple) else [value]:
                if isinstance(number, float) and not math.isfinite(number):
                    raise InputError(f"{option.opts[0]}: expected a finite number, got {number}")
        return super().invoke(ctx)


class Verbs(TyperGroup):
    """The verbs, listed in the order of GROUPS."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_flag_types(super().get_params(ctx))

    def list_commands(self, ctx: Any) -> list[str]:
        verbs = super().list_commands(ctx)  # groups first, else as they were added
        return [verb for verb in PANELS if verb in verbs] or verbs


class Methods(Verbs):
    """The verbs of `methods`. `show` may be left out: `methods infonce` is `methods show infonce`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in {*self.commands, "--help", "-h"}:
            args = ["show", *args]
        return super().parse_args(ctx, args)


def _without_line_breaks(text: str) -> str:
    """The help text with one line a paragraph, to be broken by the terminal's width. Indented paragraphs stay."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(part if part.startswith(" ") else " ".join(part.split()) for part in paragraphs)


def _without_flag_types(params: list[Any]) -> list[Any]:
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""  # instead of <bool>, which says nothing
    return params


app = typer.Typer(
    name="embedtune",
    cls=Verbs,
    no_args_is_help=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"embedtune {version('embedtune')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def embedtune(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, switch("--debug", "Show the traceback of an error. May stand anywhere.")] = False,
) -> None:
    """Fine-tune retrieval and embedding models, and prove that they got better.

    First time here: embedtune quickstart
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


def run(args: Sequence[str]) -> int:
    """Runs one command line, prints an error as one line, and returns the exit code. Tests call this too."""
    words, debug = _without_debug(args)
    try:
        result = get_command(app).main(words, prog_name="embedtune", standalone_mode=False)
        if result == INTERRUPTED:  # typer catches the signal and says nothing
            say("interrupted")
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
    if isinstance(error, typer.Abort) and isinstance(error.__cause__ or error.__context__, EOFError):
        error = EOFError("a file or stdin ended early")  # typer takes it for an interruption
    if isinstance(error, Interrupted | KeyboardInterrupt | typer.Abort):
        return f"interrupted: {error}" if str(error) else "interrupted", INTERRUPTED
    if isinstance(error, typer.TyperException):
        return _usage(error), 2
    if isinstance(error, OSError) and error.strerror and (error.filename or error.errno in MACHINE):
        return f"error: {error.filename2 or error.filename or 'writing failed'}: {error.strerror}", 2
    kind = type(error).__name__
    if kind == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error):  # torch's, which is not imported here
        first = str(error).partition("\n")[0]
        return f"error: {first} Lower train.batch_size, model.chunk_tokens (--chunk-tokens) or --max-length", 2
    return f"unexpected {kind}: {error}\nThis is likely a bug; run again with --debug for the traceback.", 70


def _usage(error: typer.TyperException) -> str:
    """Typer's error in one line; empty if typer has shown the help of a group instead."""
    message = " ".join(error.format_message().replace(": Value error, ", ": ").split())
    context = getattr(error, "ctx", None)
    return f"error: {message} (see {context.command_path if context else 'embedtune'} --help)" if message else ""


def main() -> None:
    """Runs the command line of this process, and ends the process with the exit code."""
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    sys.exit(code)


for _name, _panel in PANELS.items():
    _module = import_module(f".{_name}", __package__)
    _group = getattr(_module, "app", None)
    if _group is None:
        app.command(_name, cls=Verb, rich_help_panel=_panel)(getattr(_module, "evaluate" if _name == "eval" else _name))
        continue
    for _command in _group.registered_commands:
        _command.cls = Verb
    app.add_typer(_group, name=_name, cls=Methods if _name == "methods" else Verbs, rich_help_panel=_panel)
