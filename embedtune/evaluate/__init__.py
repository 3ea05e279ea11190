"""Measures, retrieval evaluation, and the files that keep what was found."""
