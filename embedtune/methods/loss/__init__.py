"""Losses are what is minimised. One file is one loss.

    loss(scores, keep, log_weights, *, OPTIONS) -> (value, parts)

scores: `embedtune.types.Scores` of a batch; scores.student (Q, D) has the gradient. keep: (Q, D) bool, the negatives.
log_weights: (Q, D), added to the logits of negatives; 0 where there is no weighting. value: one finite number, float32
or float64, computed in float32 for scores of half precision. parts: a dict of numbers without gradient, for the log.

An objective (`kind` in the SPEC) stands alone: it falls as a positive's score rises, treats a dropped column as if it
did not exist, leaves a query without negatives out of its mean and counts it as `rows_without_negatives`, and raises
WithoutNegatives where no query has a negative. A regulariser is added to an objective. A loss that treats each query
by itself (`by_query`) reports as MEAN_OVER how many queries or pairs its value is the mean of.
"""

from ._pairs import MEAN_OVER, WithoutNegatives

__all__ = ["MEAN_OVER", "WithoutNegatives"]
