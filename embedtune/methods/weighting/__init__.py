"""Weightings say how much each negative counts. One file is one weighting.

    weighting(scores, keep, *, OPTIONS) -> log_weights

scores: `embedtune.types.Scores`, with every matrix (Q, D). keep: (Q, D) bool, the negatives that the filters left.
log_weights: (Q, D) float32, finite, 0 where keep is False (on positives, too). The loss adds them to the logits of its
negatives: 0 counts as 1, log 2 counts twice. Several weightings are added. Detach the scores unless the paper has a
gradient there. `neutral` in the SPEC names the options with which every log-weight is 0.
"""
