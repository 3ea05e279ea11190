"""Search: exact on the model's device, approximate by FAISS, and index folders."""
