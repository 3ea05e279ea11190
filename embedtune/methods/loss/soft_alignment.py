from __future__ import annotations

import math

from torch import Tensor, nn

from ...data.runs import load_run
from ...errors import InputError
from ...types import Scores
from .. import MethodSpec
from ..filtering.judge import judged
from ._lists import lists

SPEC = MethodSpec(
    kind="objective",
    scheduled=("temperature", "judge_temperature"),
    by_query=True,
    needs_if={"teacher": {"path": None}},
)
SMALLEST = math.log(1e-8)


class SoftAlignment(nn.Module):
    """Aligns the student's distribution over a query's list with a judge's, both ways (UniME-V2, arXiv 2510.13515).

    Half the sum of KL(student || judge) and KL(judge || student) over softmaxes of the scores, probabilities held above
    1e-8. A query's list is its positives and its kept negatives, those that the judge has scored.

    path: a TREC run with the judge's scores of positives and candidates, such as an MLLM's probability of yes, as the
        filter `judge` reads it; absent: the teacher's scores.
    temperature, judge_temperature: 0.02 both in the paper. Scores that lie at 0 or 1 then make a one-hot target.

    Log-weights are added to the student's logits. Rows without a scored negative are left out and counted. Raises
    InputError without a path and a teacher.
    """

    def __init__(self, *, path: str | None = None, temperature: float = 0.02, judge_temperature: float = 0.02) -> None:
        super().__init__()
        if not (temperature > 0 and judge_temperature > 0):
            raise InputError(
                f"loss.soft_alignment: temperatures must be above 0, got {temperature} and {judge_temperature}"
            )
        self.run = load_run(path) if path is not None else None
        self.temperature, self.judge_temperature = temperature, judge_temperature

    def forward(self, scores: Scores, keep: Tensor, log_weights: Tensor) -> tuple[Tensor, dict[str, float | Tensor]]:
        teacher = scores.teacher if self.run is None else judged(self.run, scores, "loss.soft_alignment")
        if teacher is None:
            raise InputError("loss.soft_alignment: needs a judge's scores; give path, or negatives.teacher")
        listing = lists(
            scores,
            keep,
            log_weights,
            teacher,
            temperature=self.temperature,
            teacher_temperature=self.judge_temperature,
        )
        student, judge = listing.student.clamp(min=SMALLEST), listing.teacher.clamp(min=SMALLEST)
        both = 0.5 * (student.exp() - judge.exp()) * (student - judge)
        both = both.masked_fill(~listing.listed, 0.0)
        return both.sum(dim=1).mean(), listing.counts
