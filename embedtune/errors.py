"""The one error that users cause, and the sentence that names what they may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """Bad input: one clear line that says where, what was expected, and what to do. The command line exits with 2."""


class BarMissed(Exception):
    """It ran, and a bar that the user set was missed (a guard, a check). The command line exits with 1."""


class Interrupted(Exception):
    """Stopped by SIGINT or SIGTERM with the state saved. The command line exits with 130."""


def reason(error: Exception) -> str:
    """The reason of an error in one line; for one of the system, its sentence without number and path."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One sentence for a name that is not known: the nearest known one, or all of them where none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"unknown {kind} {name!r}: did you mean {near[0]!r}?"
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"unknown {kind} {name!r}: known are {listed}" if names else f"unknown {kind} {name!r}: none are known"
