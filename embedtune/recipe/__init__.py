"""The recipe: its schema, how it is read and written, what its keys demand of each other, and its paths.

Paths are relative to the current folder, as in a shell; the resolved recipe that a run keeps has them absolute.
"""

from .paths import CROSS_ENCODER, JUDGED, REVERSED, resolve, split_of, without_prefixes
from .reading import check_recipe, dump, load_recipe, plain
from .schema import (
    Backward,
    Chosen,
    Compose,
    Data,
    Distill,
    EarlyStopping,
    Evaluate,
    FirstStage,
    Guard,
    Live,
    Lora,
    Model,
    Negatives,
    Precision,
    Prompts,
    Recipe,
    Refresh,
    Replace,
    StayClose,
    Train,
    Validation,
)

__all__ = [
    "CROSS_ENCODER",
    "JUDGED",
    "REVERSED",
    "Backward",
    "Chosen",
    "Compose",
    "Data",
    "Distill",
    "EarlyStopping",
    "Evaluate",
    "FirstStage",
    "Guard",
    "Live",
    "Lora",
    "Model",
    "Negatives",
    "Precision",
    "Prompts",
    "Recipe",
    "Refresh",
    "Replace",
    "StayClose",
    "Train",
    "Validation",
    "check_recipe",
    "dump",
    "load_recipe",
    "plain",
    "resolve",
    "split_of",
    "without_prefixes",
]
