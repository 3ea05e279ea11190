"""embedtune: fine-tune retrieval and embedding models, and prove that they got better.

    from embedtune import load_recipe, train_recipe

docs/python.md has an example of each name. Names load on first use, so that importing the package (as the command line
does) does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__: str

# Not `train`, `evaluate` and `search`: those are subpackages, and a name can be only one thing.
_HOMES = {
    "InputError": "embedtune.errors:InputError",
    "Item": "embedtune.types:Item",
    "Retrieval": "embedtune.evaluate.retrieval:Retrieval",
    "build_index": "embedtune.search.build:build",
    "check_recipe": "embedtune.recipe:check_recipe",
    "evaluate_model": "embedtune.evaluate.retrieval:evaluate",
    "export_model": "embedtune.ship.export:export",
    "load_dataset": "embedtune.data.dataset:load_dataset",
    "load_encoder": "embedtune.models.encoder:load_encoder",
    "load_recipe": "embedtune.recipe:load_recipe",
    "mine_negatives": "embedtune.train.negatives:mine_recipe",
    "open_index": "embedtune.search.folder:open_index",
    "search_index": "embedtune.search.folder:find",
    "train_recipe": "embedtune.train.run:train",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # takes longer to import than all of this package

        return version("embedtune")
    if name not in _HOMES:
        raise AttributeError(f"module 'embedtune' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(module), attribute)
