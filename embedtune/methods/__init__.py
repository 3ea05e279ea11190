"""Methods: one folder a family, one file a method. The names here find, check and bind them."""

from ._seam import FAMILIES, SCHEDULED, Method, Schedule, Scheduled, bind, by_query, check, describe, find, names

__all__ = [
    "FAMILIES",
    "SCHEDULED",
    "Method",
    "Schedule",
    "Scheduled",
    "bind",
    "by_query",
    "check",
    "describe",
    "find",
    "names",
]
