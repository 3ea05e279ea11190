"""Measures, evaluation by retrieval and by protocols, comparison, and the files that keep the results."""
