"""The smallest difference between two models that a number of queries can show."""

from __future__ import annotations

import math

# The quickstart's base and tuned model differ by this much from query to query in nDCG@10 (.26; 254 queries).
DEVIATION = 0.25
QUANTILE = 1.96  # of the normal distribution, for a 95% interval
FINE = 0.03  # a difference that most users would like to see


def smallest_difference(queries: int) -> float:
    """Half the width of the 95% interval of a mean difference in nDCG@10 over so many queries.

    A difference below it cannot be told from none. The standard deviation of one query's difference is taken as
    DEVIATION; models that rank alike have a smaller one.
    """
    return QUANTILE * DEVIATION / math.sqrt(queries)


def doubt_of_size(split: str, queries: int) -> str:
    """A sentence about a split too small to show a difference of FINE; empty for a larger one."""
    smallest = smallest_difference(queries) if queries else 1.0
    if smallest <= FINE:
        return ""
    return (
        f"{split}: {queries:,} queries: differences in nDCG@10 under {min(smallest, 1.0):.2f} will not show (95% "
        f"interval, where one query's difference has a standard deviation of {DEVIATION}); "
        f"{FINE} wants {math.ceil((QUANTILE * DEVIATION / FINE) ** 2)} queries"
    )
