"""Where candidates come from: one method a file."""
