"""The loop, gradient caching, checkpoints."""
