"""`nDCG@10 < baseline - 0.01`: the bar that a comparison must not miss."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InputError, unknown
from .compare import Comparison
from .measures import parse_compared
from .significance import TIE

_FORM = re.compile(r"\s*(\S+)\s*<\s*baseline\s*(?:([+-])\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*)?")


@dataclass(frozen=True, kw_only=True)
class Bar:
    """Missed where the measure's mean is below the baseline's by more than -offset."""

    measure: str
    offset: float
    text: str


def parse_bar(text: str) -> Bar:
    """Reads `MEASURE < baseline`, `MEASURE < baseline - NUMBER` or `+ NUMBER`. Raises InputError with an example."""
    form = _FORM.fullmatch(text)
    if form is None:
        raise InputError(f"--fail-if {text!r}: expected MEASURE < baseline - NUMBER, as in 'nDCG@10 < baseline - 0.01'")
    (measure,) = parse_compared([form[1]])
    offset = float(form[3] or 0) * (-1 if form[2] == "-" else 1)
    return Bar(measure=measure, offset=offset, text=" ".join(text.split()))


def misses(bar: Bar, comparisons: Sequence[Comparison]) -> list[str]:
    """A sentence for every dataset and run that misses the bar.

    Raises InputError where a dataset was not compared by the bar's measure: it would pass unseen.
    """
    for dataset in dict.fromkeys(comparison.dataset for comparison in comparisons):
        known = {comparison.measure for comparison in comparisons if comparison.dataset == dataset}
        if bar.measure not in known:
            raise InputError(f"--fail-if {bar.text!r}: on {dataset}, {unknown('measure', bar.measure, known)}")
    return [
        f"{found.dataset}: {bar.measure} of {found.run} is {found.value:.4f}, below {bound:.4f} "
        f"(the baseline's {found.baseline:.4f} {'-' if bar.offset < 0 else '+'} {abs(bar.offset):g})"
        for found in comparisons
        if found.measure == bar.measure and found.value < (bound := found.baseline + bar.offset) - TIE
    ]
