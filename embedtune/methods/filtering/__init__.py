"""Which candidates are false negatives: one method a file."""
