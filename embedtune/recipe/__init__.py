"""The recipe: its keys, how it is read and written, its rules and its paths.

Paths are relative to the current folder, as in a shell; the resolved recipe that a run keeps has them absolute.
"""

from .folders import method_fingerprints
from .paths import (
    CROSS_ENCODER,
    INCOMPLETE,
    JUDGED,
    REVERSED,
    refuse_absent,
    refuse_within,
    resolve,
    split_of,
    without_prefixes,
)
from .reading import check_recipe, dump, load_recipe, load_recorded, upgrade_recipe
from .schema import (
    Chosen,
    Compose,
    Data,
    Distill,
    Evaluate,
    Guard,
    Lora,
    Model,
    Negatives,
    Passages,
    Precision,
    Prompts,
    Recipe,
    Replace,
    Train,
    Validation,
    passages_of_flags,
    plain,
)

__all__ = [
    "CROSS_ENCODER",
    "INCOMPLETE",
    "JUDGED",
    "REVERSED",
    "Chosen",
    "Compose",
    "Data",
    "Distill",
    "Evaluate",
    "Guard",
    "Lora",
    "Model",
    "Negatives",
    "Passages",
    "Precision",
    "Prompts",
    "Recipe",
    "Replace",
    "Train",
    "Validation",
    "check_recipe",
    "dump",
    "load_recipe",
    "load_recorded",
    "method_fingerprints",
    "passages_of_flags",
    "plain",
    "refuse_absent",
    "refuse_within",
    "resolve",
    "split_of",
    "upgrade_recipe",
    "without_prefixes",
]
