"""embedtune: fine-tune retrieval and embedding models, and prove that they got better.

    from embedtune import evaluate, load_recipe, train

Names load on first use, so that importing the package (as the command line does) does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

__version__ = version("embedtune")

_HOMES = {
    "InputError": "embedtune.errors",
    "Item": "embedtune.types",
    "evaluate": "embedtune.evaluate.retrieval",
    "load_dataset": "embedtune.data.dataset",
    "load_encoder": "embedtune.encode.encoder",
    "load_recipe": "embedtune.recipe",
    "train": "embedtune.train.run",
}
__all__ = ["__version__", *_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'embedtune' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
