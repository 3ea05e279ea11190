"""The data that the quickstart makes, and the quickstart."""
