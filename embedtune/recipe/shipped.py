"""Finds, reads and copies the recipes that ship."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError, unknown
from ..files import check_file, write_text

GRID = ".grid.yaml"


def folder() -> Path:
    """Their folder: inside an installed package, or beside it in a source checkout."""
    package = Path(__file__).parents[1]
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def names() -> list[str]:
    """All names, such as `text/scifact`, without the grids of `ablate` that stand beside the recipes."""
    root = folder()
    files = [path for path in root.rglob("*.yaml") if not path.name.endswith(GRID)]
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in files)


def path(name: str) -> Path:
    """The recipe's file. Raises InputError, with the nearest name, where there is none."""
    known = names()
    bare = name.removesuffix(".yaml")
    if bare not in known:
        raise InputError(unknown("recipe", name, known))
    return folder() / f"{bare}.yaml"


def summary(name: str) -> str:
    """The recipe's first comment line, which says what it does."""
    first = read(name).partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def read(name: str) -> str:
    """The recipe's text."""
    return path(name).read_text(encoding="utf-8")


def copy(name: str, to: Path | None = None) -> Path:
    """Copies a recipe to a folder or a file name (None: the current folder), and returns the new path.

    Raises InputError rather than overwriting.
    """
    source = path(name)
    target = Path(source.name) if to is None else to / source.name if to.is_dir() else to
    check_file(target, None, option="file")
    write_text(target, source.read_text(encoding="utf-8"))
    return target
