"""Negatives that are replaced as they become easy (Conan, arXiv 2408.15710 and 2509.12892, second-hand)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..recipe import Replace
from ..types import Scores

if TYPE_CHECKING:
    from .negatives import Negatives

NEVER = -1


class Replacing:
    """The negatives in use by query: first what the sampling draws, then what has taken the place of those that fell.

    A negative comes with the score that it has when it is first trained on. Each later look compares: one that has
    become easy gives way to a candidate further down the query's list, which stays as it was mined. The i-th time that
    a query's negatives are replaced, the one at place k of n gives way to candidate start + (i - 1) n + k. Where there
    is none left, or it is in use already, the negative stays. All of this is state, saved with the checkpoint.
    """

    def __init__(self, drawn: Negatives, rule: Replace) -> None:
        self._drawn, self._rule = drawn, rule
        self._rows = {query_id: row for row, query_id in enumerate(drawn.candidates)}
        self._width = 0
        count = len(self._rows)
        self.places = torch.full((count, 0), NEVER)  # (T, n) of the candidates in use
        self.initial = torch.full((count, 0), torch.nan)  # (T, n) the scores that they came with
        self.times = torch.zeros(count, dtype=torch.int64)  # that a query's negatives have been replaced
        self.looked = torch.full((count,), NEVER)  # the step of the last look

    def draw(self, query_ids: Sequence[str], epoch: int) -> dict[str, list[str]]:
        """The negatives in use, the same in every epoch until one falls."""
        drawn = {}
        for query_id in query_ids:
            if query_id in self._rows:
                row, candidates = self._row(query_id), self._drawn.candidates[query_id].doc_ids
                drawn[query_id] = [candidates[place] for place in self.places[row].tolist() if place != NEVER]
        return drawn

    def observe(self, scores: Scores, step: int) -> dict[str, float]:
        """Looks at the negatives of the batch's queries, by the scores that the batch gave them."""
        columns = {doc_id: column for column, doc_id in enumerate(scores.doc_ids) if doc_id}
        student = scores.student.detach().float().cpu()
        replaced = 0
        for number, query_id in enumerate(scores.query_ids):
            if query_id in self._rows and query_id not in scores.query_ids[:number]:
                replaced += self._look(query_id, student[number], columns, step)
        return {"replaced": float(replaced)}

    def _look(self, query_id: str, scores: Tensor, columns: Mapping[str, int], step: int) -> int:
        row, candidates = self._row(query_id), self._drawn.candidates[query_id].doc_ids
        held = self.places[row].tolist()
        now = torch.tensor(
            [scores[columns[candidates[p]]] if p != NEVER and candidates[p] in columns else torch.nan for p in held]
        )
        fresh = self.initial[row].isnan() & ~now.isnan()
        self.initial[row, fresh] = now[fresh]
        last, rule = int(self.looked[row]), self._rule
        if last != NEVER and step - last < rule.every:
            return 0
        self.looked[row] = step
        if last == NEVER:
            return 0
        gone = fallen(self.initial[row], now, factor=rule.fallen, below=rule.below, easy=rule.easy)
        if not bool(gone.any()):
            return 0
        first, replaced = rule.start + int(self.times[row]) * len(held), 0
        for k in gone.nonzero().flatten().tolist():
            if first + k < len(candidates) and first + k not in held:
                held[k], replaced = first + k, replaced + 1
                self.initial[row, k] = torch.nan
        self.places[row] = torch.tensor(held)
        self.times[row] += replaced > 0
        return replaced

    def _row(self, query_id: str) -> int:
        """The query's row, filled by the sampling where it is not yet in use."""
        row = self._rows[query_id]
        if self._width and (self.places[row] != NEVER).any():
            return row
        chosen = self._drawn.draw([query_id], 0)[query_id]
        places = {doc_id: place for place, doc_id in enumerate(self._drawn.candidates[query_id].doc_ids)}
        self._widen(len(chosen))
        self.places[row, : len(chosen)] = torch.tensor([places[doc_id] for doc_id in chosen], dtype=torch.int64)
        return row

    def _widen(self, width: int) -> None:
        more = width - self._width
        if more > 0:
            self.places = torch.cat([self.places, torch.full((len(self._rows), more), NEVER)], dim=1)
            self.initial = torch.cat([self.initial, torch.full((len(self._rows), more), torch.nan)], dim=1)
            self._width = width

    def state(self) -> dict[str, Tensor]:
        return {"places": self.places, "initial": self.initial, "times": self.times, "looked": self.looked}

    def load(self, state: dict[str, Tensor]) -> None:
        self.places, self.initial = state["places"], state["initial"]
        self.times, self.looked, self._width = state["times"], state["looked"], state["places"].shape[1]


def fallen(initial: Tensor, now: Tensor, *, factor: float, below: float, easy: float | None) -> Tensor:
    """(n,) bool, which negatives have become easy since they came. One without a score now has not."""
    gone = (factor * now < initial) & (now.abs() < below)
    return gone if easy is None else gone | ((initial < easy) & ~now.isnan())
