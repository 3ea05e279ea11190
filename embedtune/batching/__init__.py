"""Who shares a batch: one method a file."""
