"""Starts a method of one's own: the family's `_skeleton.py` under its new name, and a test of its contract."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from ..errors import InputError, unknown
from ..files import check_container, check_file, write_text
from ._seam import names
from ._sources import FAMILIES, sources

_TEST = '''"""Tests of the {family} method {name}. Add one of its numbers, worked by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedtune.methods.contracts import Finding, check_methods

FOLDER = Path(__file__).parents[1]
FINDINGS = [one for one in check_methods(FOLDER) if (one.family, one.method) == ("{family}", "{name}")]


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda finding: finding.contract)
def test_the_contract_is_kept(finding: Finding) -> None:
    assert finding.problem is None


def test_there_are_contracts() -> None:
    assert FINDINGS
'''


def write_skeleton(family: str, name: str, output: Path) -> tuple[Path, Path]:
    """Writes `output`/FAMILY/NAME.py and a test of it; returns both. The method does something simple and works.

    Raises InputError for a family that there is not, a name that is no name, or is taken, and for a file that exists.
    """
    if family not in FAMILIES:
        raise InputError(unknown("family", family, FAMILIES))
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise InputError(f"{name!r}: expected a name of lower-case letters, digits and _, as in my_{family}")
    if name in names(family):
        raise InputError(f"{name!r}: the {family} family has a method of this name; choose another")
    method = output / family / f"{name}.py"
    test = output / "tests" / f"test_{family}_{name}.py"
    check_container(output)
    for file in (method, test):
        check_file(file, None, option="name")
    skeleton = (sources()[0].root / family / "_skeleton.py").read_text(encoding="utf-8")
    write_text(method, re.sub(r"\bskeleton\b", name, skeleton))
    write_text(test, _TEST.format(family=family, name=name))
    return method, test
