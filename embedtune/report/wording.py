"""What a report prints, in words: numbers, and parts of a recipe from its plain values."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..recipe import CROSS_ENCODER, split_of, without_prefixes

MINUS = "\N{MINUS SIGN}"
FIXED = "\N{NO-BREAK SPACE}"


def number(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 4) -> str:
    """With its sign, a true minus; a value that rounds to 0 has none."""
    if value is None:
        return ""
    text = f"{value:+.{digits}f}"
    return text.replace("-", MINUS) if float(text) else text[1:]


def rounded(value: float | None) -> str:
    """Three digits without the leading 0, as papers print measures: `.840`; `1.000`."""
    if value is None:
        return ""
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def rounded_difference(value: float | None) -> str:
    """As `rounded`, with its sign; a value that rounds to 0 has none."""
    if value is None:
        return ""
    sign = "" if not float(f"{value:.3f}") else MINUS if value < 0 else "+"
    return sign + rounded(abs(value))


def difference_with_interval(difference: float, low: float | None, high: float | None) -> str:
    """`+.104 [+.071, +.138]`, with spaces at which no line breaks; the difference alone without an interval."""
    if low is None or high is None:
        return rounded_difference(difference)
    return f"{rounded_difference(difference)}{FIXED}[{rounded_difference(low)},{FIXED}{rounded_difference(high)}]"


def interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{signed(low)} to {signed(high)}"


def probability(p: float | None) -> str:
    """Three digits without the leading 0, as papers print it."""
    return "" if p is None else "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def thousands(count: int) -> str:
    return f"{count:,}"


def percent(share: float, digits: int = 1) -> str:
    return f"{share:.{digits}%}"


def short(value: object) -> str:
    """A number without trailing zeros, `0.05` or `2e-05`; anything else as it is."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def plural(count: int, noun: str) -> str:
    """`1 query`, `2 processes`, `1,500 documents`."""
    many = f"{noun[:-1]}ies" if re.search("[^aeiou]y$", noun) else f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else many}"


def quoted(path: str) -> str:
    """A path as a shell takes it."""
    return shlex.quote(path)


def shortened(text: str, most: int = 240) -> str:
    words = " ".join(text.split())
    return words if len(words) <= most else words[:most].rpartition(" ")[0] + " ..."


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def model_name(model: Mapping[str, Any]) -> str:
    """A model by the last telling part of its path or hub id; a composed one by both towers'."""
    return " + ".join(last_part(name) for name in towers_of(model))


def towers_of(model: Mapping[str, Any]) -> list[str]:
    """The names of what a model was loaded from: its own, or its towers'."""
    compose = model["compose"]
    return [str(model["name"])] if compose is None else [str(compose["text"]), str(compose["image"])]


def last_part(name: str) -> str:
    parts = [part for part in name.removeprefix("package:").split("/") if part not in ("", "model", "models")]
    return parts[-1] if parts else name


def data_name(name: str) -> str:
    """A dataset by its folder's name, with the split that it names."""
    path, split = split_of(name)
    return path.rstrip("/").rpartition("/")[2] + (f":{split}" if split else "")


def trained_on(recipe: Mapping[str, Any]) -> list[str]:
    """The datasets that a recipe trains on, one or several."""
    names = recipe["data"]["train"]
    return [names] if isinstance(names, str) else names


def without_folders(value: Any) -> Any:
    """A recipe in which every absolute path is its last part: a published card names no folder of its author's."""
    if isinstance(value, dict):
        return {key: part if key == "prompts" else without_folders(part) for key, part in value.items()}
    if isinstance(value, list):
        return [without_folders(part) for part in value]
    if not isinstance(value, str):
        return value
    start = len(value) - len(without_prefixes(value.removeprefix(CROSS_ENCODER)))
    path, split = split_of(value[start:])
    if not Path(path).is_absolute():
        return value
    return value[:start] + last_part(path) + (f":{split}" if split else "")


FILTERS = (
    *(number, signed, rounded, interval, probability, thousands, percent, short, plural, shortened, duration),
    *(model_name, trained_on, data_name, split_of, quoted),
)
"""What the templates print with."""
