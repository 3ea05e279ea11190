"""How large a matrix of scores may be, and which methods stand in the way of keeping to it."""

from __future__ import annotations

from .. import methods
from ..recipe import Recipe

# Elements of one (Q, D) matrix: 256 MiB in float32. An objective holds some ten of its size at once, for the backward
# pass. Beyond it the queries are taken some at a time, which changes no result; smaller ones are faster in one piece.
LARGEST_MATRIX = 2**26


def comparing(recipe: Recipe) -> list[str]:
    """The recipe's methods that do not treat each query by itself: a batch is then one piece, however large it is.

    Each as a recipe names it, with the options with which it would, where there are such.
    """
    vectors = [c for c in recipe.synthesis if methods.describe("synthesis", c.name).spec.kind == "vectors"]
    families = {
        "filtering": recipe.negatives.filtering,
        "synthesis": vectors,
        "weighting": recipe.weighting,
        "loss": recipe.loss,
    }
    found = []
    for family, chosen in families.items():
        for method in chosen:
            if not methods.by_query(family, method.name, method.options):
                otherwise = methods.describe(family, method.name).spec.by_query
                options = otherwise.items() if isinstance(otherwise, dict) else ()
                unless = ", ".join(f"{key}: {value}" for key, value in options)
                found.append(f"{family}.{method.name}" + (f" (which with {unless} does not)" if unless else ""))
    return found


def columns(recipe: Recipe, own: int) -> int:
    """About how many documents a batch comes to: positives, negatives of the queries' own, and those made."""
    live = recipe.negatives.live.depth if recipe.negatives.live is not None else 0
    return recipe.train.batch_size * (1 + own + live + len(recipe.synthesis))
