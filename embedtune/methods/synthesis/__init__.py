"""Made-up negatives: one method a file, of vectors (more columns of scores) or of texts, as its KIND says."""
