"""Filters decide which candidates are false negatives. One file is one filter.

    filter(scores, *, OPTIONS) -> keep

scores: `embedtune.types.Scores`, with every matrix (Q, D). In a batch the columns are the batch's documents; while
mining they are one query's own positives and candidates. keep: (Q, D) bool, True where the column stays a negative. It
is never True where scores.candidate is False: on positives, padding and copies of positives. Where a candidate has no
score (NaN) it stays. `scores.judge` holds the scores to compare: the teacher's where there is a teacher.

A filter that compares scores with a limit names the function that computes the limit, (Q, 1), in its SPEC; the
evidence of mining records it. A filter that learns is an nn.Module; its buffers are saved with each checkpoint.
"""
