"""Samplers choose which of a query's kept candidates a step trains on. One file is one sampler.

    sampler(scores, positive_score, *, count, generator, OPTIONS) -> rows

scores: (K,) the scores of the candidates that the filters keep, best first. positive_score: that of the query's lowest
positive. rows: (n,) int64, different rows of scores, `count` of them or all that there are. The same generator state
gives the same rows. Every sampler has the option `count`.
"""
