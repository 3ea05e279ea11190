"""Loading models and turning items into embeddings."""

import logging

# peft imports it where it is installed, and it then warns of faster kernels that are not.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

# Tokens in one chunk: on a CPU small enough for the cache (8 x 256 was fastest), on a GPU large enough to fill it.
TOKENS_PER_CHUNK = {"cpu": 2048, "cuda": 32768, "mps": 8192}
