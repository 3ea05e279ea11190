"""Finds, reads and copies what ships in recipes/: the recipes, the grids of `ablate`, and the scripts for CI."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError, unknown
from ..files import check_file, write_text

GRID = ".grid.yaml"
CI = "ci/"  # holds scripts and a workflow, no recipes
OF_CHECKOUT = ("ci/install.sh", "ci/quickstart.sh", "ci/test.sh")  # set up the source checkout that they stand in


def folder() -> Path:
    """Their folder: inside an installed package, or beside it in a source checkout."""
    package = Path(__file__).parents[1]
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def names() -> list[str]:
    """All names of recipes, such as `text/scifact`."""
    return [name.removesuffix(".yaml") for name in _files() if name.endswith(".yaml") and not _is_other(name)]


def others() -> list[str]:
    """All other files that may be copied, by their names with the ending, such as `ci/train-and-guard.sh`."""
    return [name for name in _files() if _is_other(name)]


def _files() -> list[str]:
    root = folder()
    files = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.suffix in (".yaml", ".sh")]
    return sorted(name for name in files if name not in OF_CHECKOUT)


def _is_other(name: str) -> bool:
    return name.startswith(CI) or name.endswith(GRID)


def path(name: str) -> Path:
    """The file of a recipe, or another of `others`. Raises InputError, with the nearest name, where there is none."""
    files = {recipe: f"{recipe}.yaml" for recipe in names()} | {other: other for other in others()}
    for spelling in (name, name.removesuffix(".yaml"), f"{name}.yaml"):
        if spelling in files:
            return folder() / files[spelling]
    raise InputError(unknown("recipe", name, files))


def is_recipe(name: str) -> bool:
    """Whether the name is that of a recipe, and not of another file. Raises InputError as `path` does."""
    return path(name).relative_to(folder()).as_posix().removesuffix(".yaml") in names()


def summary(name: str) -> str:
    """The first comment line, which says what it does."""
    first = next(line for line in read(name).splitlines() if not line.startswith("#!"))
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def read(name: str) -> str:
    """The file's text."""
    return path(name).read_text(encoding="utf-8")


def copy(name: str, to: Path | None = None) -> Path:
    """Copies a file to a folder or a file name (None: the current folder), and returns the new path.

    Raises InputError rather than overwriting.
    """
    source = path(name)
    target = Path(source.name) if to is None else to / source.name if to.is_dir() else to
    check_file(target, None, option="file")
    write_text(target, source.read_text(encoding="utf-8"))
    return target
