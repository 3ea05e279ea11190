"""Made-up negatives: one method a file."""
