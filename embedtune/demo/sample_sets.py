"""Sets to see what a model forgets: made offline from what is installed, or fetched where they are named by hf://."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..data.convert import convert
from ..errors import InputError, unknown
from .emoji import make_openmoji_held_out, make_twemoji_held_out
from .python_functions import make_functions, make_prose

MAKERS: dict[str, Callable[[Path], None]] = {
    "functions": make_functions,  # 1,000 functions of the standard library, asked for by their docstrings
    "prose": make_prose,  # 500 docstrings of installed packages, asked for by their summaries
    "openmoji": make_openmoji_held_out,  # pictures asked for by name; needs embedtune[images]
    "twemoji": make_twemoji_held_out,
}
OFFLINE = ("functions", "prose")
HUB = "hf://"


def sample_set(name: str, folder: Path) -> Path:
    """The folder of a sample set below `folder`, which is made or fetched where it is absent.

    Raises InputError for an unknown name, and where its source is not on this machine.
    """
    if name not in MAKERS and not name.startswith(HUB):
        raise InputError(f"{unknown('sample set', name, MAKERS)}; one on the hub is {HUB}OWNER/NAME@REVISION")
    label = name.removeprefix(HUB).partition("@")[0].rpartition("/")[2]
    target = folder / label
    if not (target / "corpus.jsonl").exists():
        if name in MAKERS:
            MAKERS[name](target)
        else:
            convert(name, target, split="test")
    return target
