"""Measures, retrieval evaluation, significance."""
