"""Loading models and turning items into embeddings."""
