"""Whether the values of methods' options can work: the methods are made, and tried on small data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch

from ..errors import InputError
from . import _seam as seam
from ._trial import trial_scores
from .batching._contract import trial_context, trial_pairs


class Named(Protocol):
    """A method as a recipe names it."""

    @property
    def name(self) -> str: ...
    @property
    def options(self) -> dict[str, Any]: ...


def value_problems(chosen: Iterable[tuple[str, Named]], batch_size: int) -> list[str]:
    """A sentence for each (family, method) pair whose values the method itself refuses, when it is made or called.

    Methods are imported, and their code runs. Miners, and methods that read a file, are made and not called.
    """
    problems = []
    for family, one in chosen:
        try:
            method = seam.bind(family, one.name, one.options)
            if family != "mining" and "path" not in one.options:
                _call(family, one.name, method, batch_size)
        except InputError as error:
            if "needs " not in str(error):  # what the small data lack, and the run may have
                problems.append(str(error))
        except Exception:  # on data that it was not made for; `embedtune methods check` tries a method of one's own
            continue
    return list(dict.fromkeys(problems))


def _call(family: str, name: str, method: Any, batch_size: int) -> None:
    scores, generator = trial_scores(), torch.Generator().manual_seed(0)
    if family in ("filtering", "weighting"):
        method(*(scores, scores.candidate)[: 1 if family == "filtering" else 2])
    elif family == "loss":
        method(scores, scores.candidate, torch.zeros_like(scores.student))
    elif family == "sampling":
        method(torch.linspace(0.9, 0.1, 50), 0.95, generator=generator)
    elif family == "batching":
        method(trial_pairs(), batch_size, trial_context(trial_pairs()), generator=generator)
    elif seam.describe(family, name).spec.kind == "vectors":
        method(scores, scores.candidate, generator=generator)
