"""Which of the kept candidates a step uses: one method a file."""
