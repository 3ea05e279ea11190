"""An encoder: a sentence-transformers model with its own pooling, prompts and normalisation, and how to run it."""
