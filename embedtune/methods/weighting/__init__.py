"""How much each negative counts: one method a file."""
