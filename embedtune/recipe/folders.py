"""Folders of methods that a recipe names: which of them may be used, and what their files held."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from .. import methods
from ..errors import InputError
from .schema import Chosen


def method_folders(named: Sequence[str], recipe_file: Path | None, allowed: Sequence[Path]) -> list[str]:
    """The absolute paths of a recipe's folders of methods and of those that the command line allows.

    Code of a folder runs where the command line names the folder, or where it lies in the folder of the recipe that
    names it: a recipe from elsewhere cannot make this machine run a file that came by another way. A relative path is
    meant from the current folder, as all paths in a recipe, or from the recipe's. recipe_file: None for values that a
    program has made, which are trusted. Raises InputError for a folder that is absent, ambiguous or not allowed.
    """
    roots = [folder.expanduser().resolve() for folder in allowed]
    beside = None if recipe_file is None else recipe_file.resolve().parent
    for name in named:
        root = _one_folder(name, beside)
        if root not in roots and beside is not None and not root.is_relative_to(beside):
            raise InputError(
                f"methods: {name} lies outside the recipe's folder, so its code does not run unasked; to allow it, "
                f"give --methods {root}"
            )
        roots.append(root)
    return [str(root) for root in dict.fromkeys(roots)]


def _one_folder(name: str, beside: Path | None) -> Path:
    path = Path(name).expanduser()
    paths = [path] if beside is None else [path, beside / path]
    roots = list(dict.fromkeys(path.resolve() for path in paths if path.is_dir()))
    if not roots:
        where = "" if beside is None or path.is_absolute() else ", neither in the current folder nor beside the recipe"
        raise InputError(f"methods: {name}: no such folder{where}")
    if len(roots) > 1:
        raise InputError(f"methods: {name}: may be {roots[0]} or {roots[1]}; give the absolute path")
    return roots[0]


def method_fingerprints(chosen: Iterable[tuple[str, Chosen]]) -> dict[str, str]:
    """`method FAMILY.NAME` -> fingerprint of its files, of methods from outside this package.

    chosen: families and methods, as `Recipe.chosen` lists them.
    """
    described = [methods.describe(family, one.name) for family, one in chosen]
    return {f"method {one.family}.{one.name}": one.fingerprint for one in described if one.source.outside}
