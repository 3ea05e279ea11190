"""What a method returned, held to its family's contract: at its first call, so that a run stops at its first step.

Broadcasting lets a weighting of another shape train without a word. Every check raises InputError in one line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..types import Scores


def checks_first_call(family: str, name: str, method: Any) -> Any:
    """The method, which checks what its first call returns."""
    if isinstance(method, nn.Module):

        def hook(module: nn.Module, arguments: Any, keywords: Any, returned: Any) -> None:
            handle.remove()
            check_returned(family, name, returned, arguments)

        handle = method.register_forward_hook(hook, with_kwargs=True)
        return method
    return _FirstCallChecked(family, name, method)


class _FirstCallChecked:
    def __init__(self, family: str, name: str, method: Callable[..., Any]) -> None:
        self.family, self.name, self.method, self.checked = family, name, method, False

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        returned = self.method(*arguments, **keywords)
        if not self.checked:
            check_returned(self.family, self.name, returned, arguments)
            self.checked = True
        return returned


def check_returned(family: str, name: str, returned: Any, arguments: Sequence[Any]) -> None:
    """Raises InputError where a call with these arguments must not return this."""
    problem = _CHECKS[family](returned, *arguments)
    if problem:
        raise InputError(f"{family}.{name}: {problem} (the contract: `embedtune methods {family}`)")


def _tensor_problem(value: Any, shape: Sequence[int], kind: str) -> str:
    """kind: bool, or float for float32 and float64."""
    dtypes = (torch.bool,) if kind == "bool" else (torch.float32, torch.float64)
    if not isinstance(value, Tensor):
        return f"returned {type(value).__name__}, expected a tensor"
    if tuple(value.shape) != tuple(shape):
        return f"returned the shape {tuple(value.shape)}, expected {tuple(shape)}"
    if value.dtype not in dtypes:
        return f"returned {value.dtype}, expected {' or '.join(map(str, dtypes))}"
    return ""


def _filtering(keep: Any, scores: Scores) -> str:
    problem = _tensor_problem(keep, scores.candidate.shape, "bool")
    if not problem and bool((keep & ~scores.candidate).any()):
        return "keeps a column that is no candidate, such as a positive"
    return problem


def _weighting(log_weights: Any, scores: Scores, keep: Tensor) -> str:
    problem = _tensor_problem(log_weights, keep.shape, "float")
    if problem:
        return problem
    if bool(scores.student.isfinite().all()) and not bool(log_weights.isfinite().all()):
        return "returned log-weights that are not finite"
    return "returned log-weights other than 0 where keep is False" if bool((log_weights[~keep] != 0).any()) else ""


def _loss(returned: Any, scores: Scores, keep: Tensor, log_weights: Tensor) -> str:
    if not isinstance(returned, tuple) or len(returned) != 2 or not isinstance(returned[1], dict):
        return f"returned {type(returned).__name__}, expected a loss and a dict of its parts"
    value, parts = returned
    problem = _tensor_problem(value, (), "float")
    if not problem and bool(scores.student.isfinite().all()) and not bool(value.isfinite()):
        return f"returned a loss of {float(value)}"
    for key, part in parts.items():
        tensor = isinstance(part, Tensor) and part.numel() == 1 and not part.requires_grad
        if not tensor and not isinstance(part, int | float):
            return f"returned the part {key!r}, expected a number without gradient"
    return problem


def _synthesis(returned: Any, first: Any, keep: Tensor | None = None) -> str:
    if keep is None:
        return (
            "" if returned is None or isinstance(returned, str) else f"returned {type(returned).__name__}, not a text"
        )
    if not isinstance(returned, tuple) or len(returned) != 2 or not isinstance(returned[0], Scores):
        return f"returned {type(returned).__name__}, expected Scores and keep"
    scores, kept = returned
    problem = _tensor_problem(kept, scores.student.shape, "bool")
    if not problem and (len(scores.student) != len(keep) or scores.student.shape[1] < keep.shape[1]):
        return f"turned scores of the shape {tuple(keep.shape)} into {tuple(scores.student.shape)}"
    if not problem and bool((kept & ~scores.candidate).any()):
        return "keeps a column that is no candidate, such as a positive"
    return problem


def _sampling(rows: Any, scores: Tensor, positive_score: float) -> str:
    if not isinstance(rows, Tensor) or rows.dtype != torch.int64 or rows.ndim != 1:
        return "expected a tensor of row numbers (n,), of int64"
    if len(set(rows.tolist())) < len(rows) or not set(rows.tolist()) <= set(range(len(scores))):
        return f"returned the rows {rows.tolist()} of {len(scores)} candidates, expected each at most once"
    return ""


def _batching(batches: Any, pairs: Sequence[Any], batch_size: int, context: Any) -> str:
    if not isinstance(batches, list) or not all(isinstance(batch, list) for batch in batches):
        return f"returned {type(batches).__name__}, expected a list of batches, each a list of pairs"
    known = {(pair.query_id, pair.positives) for pair in pairs}
    foreign = [pair for batch in batches for pair in batch if (pair.query_id, pair.positives) not in known]
    return f"returned a pair of query {foreign[0].query_id!r}, which it was not given" if foreign else ""


def _mining(sourced: Any, dataset: Any, encoder: Any) -> str:
    if not isinstance(sourced, dict) or not all(isinstance(run, dict) for run in sourced.values()):
        return f"returned {type(sourced).__name__}, expected {{source: {{query_id: {{doc_id: score}}}}}}"
    for source, run in sourced.items():
        for query_id, ranked in run.items():
            unknown = [doc_id for doc_id in ranked if doc_id not in dataset.corpus]
            if query_id not in dataset.queries or unknown:
                name = f"query {query_id!r}" if query_id not in dataset.queries else f"document {unknown[0]!r}"
                return f"its source {source!r} names the {name}, which is not in {dataset.folder}"
    return ""


_CHECKS: dict[str, Callable[..., str]] = {
    "mining": _mining,
    "filtering": _filtering,
    "sampling": _sampling,
    "batching": _batching,
    "synthesis": _synthesis,
    "weighting": _weighting,
    "loss": _loss,
}
