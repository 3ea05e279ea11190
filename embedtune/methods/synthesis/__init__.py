"""Makers of negatives, of texts before they are encoded or of vectors as more columns. One file is one maker.

    maker(text, *, generator, OPTIONS) -> text or None                 # SPEC: kind="texts"
    maker(scores, keep, *, generator, OPTIONS) -> (scores, keep)       # SPEC: kind="vectors"

A maker of texts gets a positive's text and returns another text that is wrong for the query, or None where its rule
does not apply. A maker of vectors appends columns: normalised, constant (no gradient), marked in scores.made, with an
empty doc_id, never positive, and without scores of a teacher or of mining (NaN). The same generator state gives the
same result.
"""
