"""Which datasets a run's recipe evaluates in domain, and which out of domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ..data.dataset import load_dataset
from ..data.jsonl import read_json_object
from ..errors import InputError
from ..models.folders import SUMMARY
from .results import distinct

Domain = Literal["in", "out"]


def domains_of(in_domain: Sequence[str], out_of_domain: Sequence[str], summary: Mapping[str, Any]) -> dict[str, Domain]:
    """Label in lower case -> in or out of domain. A finished run's summary has its sets in the recipe's order.

    Of an unfinished run the datasets themselves are asked for their labels; without them the result is empty.
    """
    labels = list(summary.get("tuned", ()))
    if not labels:
        try:
            labels = [dataset.label for dataset in distinct(list(map(load_dataset, (*in_domain, *out_of_domain))))]
        except InputError:
            return {}
    return {label.casefold(): "in" if index < len(in_domain) else "out" for index, label in enumerate(labels)}


def read_summary(folder: Path) -> dict[str, Any]:
    """A finished run's summary; empty where it is not finished."""
    file = folder / SUMMARY
    return read_json_object(file) if file.exists() else {}
