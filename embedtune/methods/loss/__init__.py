"""The objective: one method a file."""
