"""Methods: one folder a family, one file a method. These functions find, check and bind them.

A method of one's own is a file FAMILY/NAME.py in a folder that a recipe names (`methods: [DIR]`), or in a package that
an entry point of the group `embedtune.methods` names (`my_package = "my_package.methods"`).
"""

from ._reading import Method, MethodSpec, Option
from ._seam import (
    SCHEDULED,
    Schedule,
    Scheduled,
    bind,
    bind_limit,
    by_query,
    check,
    contract,
    describe,
    expectation,
    find,
    listing,
    names,
    needs,
    option_schema,
)
from ._sources import FAMILIES, MethodSource, use_folders

__all__ = [
    "FAMILIES",
    "SCHEDULED",
    "Method",
    "MethodSource",
    "MethodSpec",
    "Option",
    "Schedule",
    "Scheduled",
    "bind",
    "bind_limit",
    "by_query",
    "check",
    "contract",
    "describe",
    "expectation",
    "find",
    "listing",
    "names",
    "needs",
    "option_schema",
    "use_folders",
]
