"""Labels and scores of pairs as positives and negatives."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .jsonl import LineError

_POSITIVE = ("1", "true", "yes", "relevant", "entailment", "duplicate", "equivalent", "positive")
_NEGATIVE = (
    *("0", "false", "no", "irrelevant", "not relevant", "contradiction", "not duplicate", "not equivalent"),
    *("negative", "not entailment"),
)
_ABSENT = ("", "-", "nan")  # pandas' NaN is in Parquet and CSV
_NEITHER = ("neutral", *_ABSENT)
_COMMA = re.compile(r"[+-]?\d+,\d+")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
NEITHER = -1


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Which labels make a pair a positive and which a negative; the others make it neither.

    threshold: scores from here up are positives. negative_threshold: scores below it are negatives, and those between
    the two are neither; the threshold itself where it is None. positive, negative: labels by their text; without
    `negative` all that are not positive are negatives. With none of them only labels that mean yes or no by themselves
    are read: 1 and 0, true and false, entailment and contradiction.
    """

    threshold: float | None = None
    negative_threshold: float | None = None
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()

    def relevance(self, label: Any, where: str) -> int:
        """The relevance of a label: above 0 for a positive, 0 for a negative, NEITHER.

        With a whole threshold the relevance is the label rounded down: label 3 of 0 to 3 stays 3. An absent label is
        NEITHER. Raises LineError for a label that the rule does not cover.
        """
        text = as_text(label)
        if text in _ABSENT and text not in map(as_text, (*self.positive, *self.negative)):
            return NEITHER
        if self.positive:
            if text in map(as_text, self.positive):
                return 1
            return 0 if text in map(as_text, self.negative) or not self.negative else NEITHER
        if self.threshold is None:
            return _plain_relevance(text, where)
        number = _number(text)
        if number is None:
            raise LineError(
                where,
                "wrong type",
                f"expected a number as label, for --label-threshold, such as 4 or 0.5; got {text[:40]!r}",
            )
        if number >= self.threshold:
            return max(1, int(number)) if float(self.threshold).is_integer() else 1
        below = self.threshold if self.negative_threshold is None else self.negative_threshold
        return 0 if number < below else NEITHER

    @property
    def empty(self) -> bool:
        return self.threshold is None and not self.positive


def as_text(label: Any) -> str:
    """A label as it is compared: `1`, `1.0` and True are "1", words are in lower case with single spaces."""
    if isinstance(label, bool):
        return str(int(label))
    text = " ".join(str("" if label is None else label).lower().replace("_", " ").split())
    number = _number(text)
    return str(int(number)) if number is not None and number.is_integer() else text


def plain(labels: Iterable[Any]) -> bool:
    """Whether all labels mean yes, no or neither by themselves."""
    return all(as_text(label) in (*_POSITIVE, *_NEGATIVE, *_NEITHER) for label in labels)


def _plain_relevance(text: str, where: str) -> int:
    if text in _POSITIVE:
        return 1
    if text in _NEGATIVE:
        return 0
    if text in _NEITHER:
        return NEITHER
    raise LineError(
        where,
        "unknown label",
        f"label {text[:40]!r} is neither 1 nor 0; give --label-threshold X or --positive-label VALUE",
    )


def _number(text: str) -> float | None:
    """The number that a text is, also with a decimal comma; None for others and `5,000`: 5 or 5000."""
    if _COMMA.fullmatch(text) and not _THOUSANDS.fullmatch(text):
        text = text.replace(",", ".")
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None
