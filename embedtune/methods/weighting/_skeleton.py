from __future__ import annotations

from torch import Tensor

from embedtune.methods import MethodSpec
from embedtune.types import Scores

SPEC = MethodSpec(by_query=True, neutral={"strength": 0.0})


def skeleton(scores: Scores, keep: Tensor, *, strength: float = 1.0) -> Tensor:
    """Lets similar negatives count more: say here in one line what yours does (and cite its paper).

    strength: log-weight per unit of similarity; 0 is off. Say what each option does and where you depart.
    """
    return (strength * scores.student.detach().float()).masked_fill(~keep, 0.0)  # (Q, D)
