"""`embedtune doctor`: what is here, and what is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from .output import say, show_json, show_table

if TYPE_CHECKING:
    from embedtune.ship.doctor import Examination


def doctor(
    clean: Annotated[bool, typer.Option("--clean", help="Empty embedtune's own cache, and do nothing else.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Show versions, devices, threads, caches and the offline state, and name what is wrong; exit code 1 if it matters.

    Example: embedtune doctor

    Example: embedtune doctor --clean
    """
    from embedtune.errors import BarMissed
    from embedtune.ship import doctor as library

    if clean:
        say(f"freed {_in_words(library.clean())}")
        return
    found = library.examine()
    if as_json:
        show_json(dataclasses.asdict(found) | {"cache": str(found.cache)})
    else:
        show_table(["what", "here"], _rows(found), as_json=False)
    if found.errors:
        raise BarMissed(f"{len(found.errors)} thing{'s' if len(found.errors) > 1 else ''} to put right, named above")


def _rows(found: Examination) -> list[Sequence[object]]:
    return [
        *([name, version or "not installed"] for name, version in found.versions.items()),
        ["devices", ", ".join(found.devices)],
        ["threads", found.threads],
        ["precision auto", found.precision],
        ["cache", found.cache],
        *([f"cache: {kind}", _in_words(size)] for kind, size in found.cached.items()),
        ["hub cache", found.hub_folder],
        ["offline (HF_HUB_OFFLINE)", "yes" if found.offline else "no"],
        *(["WRONG", error] for error in found.errors),
        *(["warning", warning] for warning in found.warnings),
    ]


def _in_words(size: int) -> str:
    return f"{size / 1024**3:.2f} GB" if size >= 1024**3 else f"{size / 1024**2:.1f} MB"
