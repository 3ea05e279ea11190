"""Where methods stand: in this package, in folders that a recipe or the command line names, in installed packages.

Every source is laid out as this package is: ROOT/FAMILY/NAME.py. Listing reads files and runs none of their code; a
module is loaded when a recipe binds its method.
"""

from __future__ import annotations

import ast
import importlib.util
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.machinery import FileFinder, ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType

from ..errors import InputError, unknown
from ..files import fingerprint_of, fingerprint_of_file

FAMILIES = ("mining", "filtering", "sampling", "batching", "synthesis", "weighting", "loss")
ENTRY_POINTS = "embedtune.methods"
_PREFIX = "embedtune_folder_"  # of the packages as which folders are imported


@dataclass(frozen=True)
class MethodSource:
    """A place with methods: `root`/FAMILY/NAME.py. package: its name where Python can import it; None for a folder."""

    root: Path
    package: str | None

    @property
    def outside(self) -> bool:
        """Whether the methods stand in a user's folder or another package."""
        return self.package != __package__

    @property
    def label(self) -> str:
        """As a listing names it."""
        return "embedtune" if not self.outside else self.package or str(self.root)

    def path(self, family: str, name: str) -> Path:
        return self.root / family / f"{name}.py"

    def names(self, family: str) -> list[str]:
        return sorted(file.stem for file in (self.root / family).glob("[a-z]*.py"))


_PACKAGE = MethodSource(Path(__file__).parent, __package__)
_folders: tuple[MethodSource, ...] = ()


def use_folders(folders: Sequence[str | Path]) -> None:
    """Makes the methods of these folders, and of no folder named before, known by name.

    The choice holds for the whole process: a recipe's folders are set when it is read and again when it runs. Raises
    InputError for a folder that is absent or holds no family.
    """
    global _folders
    roots = dict.fromkeys(_root(Path(folder)) for folder in folders)
    _folders = tuple(MethodSource(root, None) for root in roots)


def _root(folder: Path) -> Path:
    root = folder.expanduser().resolve()
    if not root.is_dir():
        raise InputError(f"{folder}: no such folder of methods")
    if root.name in FAMILIES and any(root.glob("*.py")):
        raise InputError(f"{folder}: holds one family; name the folder above it, {root.parent}")
    if not any(MethodSource(root, None).names(family) for family in FAMILIES):
        inside = sorted(part.name for part in root.iterdir() if part.is_dir() and any(part.glob("*.py")))
        hint = f" ({unknown('family', inside[0], FAMILIES)})" if inside else ""
        raise InputError(f"{folder}: holds no methods; a weighting NAME stands in {folder}/weighting/NAME.py{hint}")
    return root


def sources() -> tuple[MethodSource, ...]:
    """This package, the folders in use, and the installed packages with an entry point, in this order."""
    return (_PACKAGE, *_folders, *_installed())


@cache
def _installed() -> tuple[MethodSource, ...]:
    """The packages that the entry points name. One that cannot be imported is a warning."""
    from importlib.metadata import entry_points

    by_root = {}
    for point in sorted(entry_points(group=ENTRY_POINTS)):
        root = _folder_of_package(point.module)
        if root is None:
            logging.getLogger(__name__).warning(
                "entry point %s of %s: there is no package %s; its methods are not known",
                point.name,
                point.dist.name if point.dist else "an unknown distribution",
                point.module,
            )
        else:
            by_root[root] = MethodSource(root, point.module)
    return tuple(by_root.values())


def _folder_of_package(dotted: str) -> Path | None:
    """The folder of an installed package. Nothing is imported: finding an inner package would import the outer one."""
    top, *inner = dotted.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    locations = spec.submodule_search_locations or () if spec is not None else ()
    folders = [Path(location).joinpath(*inner).resolve() for location in locations]
    return next((folder for folder in folders if folder.is_dir()), None)


def source_of(family: str, name: str) -> MethodSource:
    """The one source of a method. Raises InputError for an unknown name, and for one that two sources define."""
    is_name = name.isidentifier() and not name.startswith("_")
    holders = [source for source in sources() if is_name and source.path(family, name).is_file()]
    if not holders:
        sentence = unknown(f"{family} method", name, {known for source in sources() for known in source.names(family)})
        hint = (
            f"; a method of your own is DIR/{family}/NAME.py, where the recipe says `methods: [DIR]` and `name: NAME`"
        )
        raise InputError(sentence + (hint if not name.isidentifier() or "did you mean" not in sentence else ""))
    if len(holders) > 1:
        paths = " and ".join(str(source.path(family, name)) for source in holders)
        raise InputError(f"{family} method {name!r} is defined twice, by {paths}; rename one of them")
    return holders[0]


def fingerprint(source: MethodSource, family: str, name: str) -> str:
    """Of a method's file and of all files of its source that it imports; of a package, of every file in it."""
    files = sorted(set(_closure(source, source.path(family, name), set())))
    parts = (part for file in files for part in (str(file.relative_to(source.root)), fingerprint_of_file(file)))
    return fingerprint_of(*parts)


def _closure(source: MethodSource, file: Path, seen: set[Path]) -> Iterator[Path]:
    seen.add(file)
    yield file
    imported = [folder / "__init__.py" for folder in file.parents if folder.parent.is_relative_to(source.root)]
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # a file that nothing can import, and so imports nothing
        tree = ast.Module([], [])
    for node in ast.walk(tree):
        imported += [path for target in _targets(source, file, node) for path in _files_of(source, target)]
    for path in imported:
        if path.is_file() and path.is_relative_to(source.root) and path not in seen:
            yield from _closure(source, path, seen)


def _targets(source: MethodSource, file: Path, node: ast.AST) -> Iterator[Path]:
    """The modules and packages of the source that an import may name, without their ending."""
    prefix = f"{source.package or ''}."
    if isinstance(node, ast.Import):
        named = [
            (source.root, alias.name.removeprefix(prefix), "") for alias in node.names if alias.name.startswith(prefix)
        ]
    elif not isinstance(node, ast.ImportFrom):
        return
    elif node.level:
        named = [(file.parents[node.level - 1], node.module or "", alias.name) for alias in node.names]
    else:
        module = f"{node.module}."
        inner = module.removeprefix(prefix).rstrip(".")
        named = [(source.root, inner, alias.name) for alias in node.names if module.startswith(prefix)]
    for folder, dotted, name in named:
        parts = [part for part in (*dotted.split("."), name) if part]
        yield from (folder.joinpath(*parts[:count]) for count in range(len(parts) + 1))


def _files_of(source: MethodSource, target: Path) -> Iterator[Path]:
    """A module's file; of a package every file, but of the root and of a family only what its import runs."""
    yield target.parent / f"{target.name}.py"
    if target == source.root or (target.parent == source.root and target.name in FAMILIES):
        yield target / "__init__.py"
    elif target.is_relative_to(source.root):
        yield from sorted(target.rglob("*.py"))


def load(source: MethodSource, family: str, name: str) -> ModuleType:
    """Imports a method's module. Raises InputError where a file outside this package fails to load."""
    package = source.package or _folder_package(source, fingerprint(source, family, name))
    try:
        return import_module(f"{package}.{family}.{name}")
    except InputError:
        raise
    except Exception as error:
        if not source.outside:
            raise
        raise InputError(f"{source.path(family, name)}: cannot be loaded: {type(error).__name__}: {error}") from error


def _folder_package(source: MethodSource, content: str) -> str:
    """A package for a folder's modules. Its name holds their content, so that an edited file is loaded afresh."""
    name = _PREFIX + fingerprint_of(str(source.root), content)
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = [str(source.root)]
        sys.modules[name] = package
    if _FolderFinder not in sys.meta_path:
        sys.meta_path.append(_FolderFinder)
    return name


class _Loader(SourceFileLoader):
    """Compiles the source every time: bytecode is trusted by the file's size and second, which an edit may keep."""

    def get_code(self, fullname: str) -> object:  # type: ignore[override]
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class _FolderFinder:
    """Finds the modules of folders in use, for Python's import."""

    @staticmethod
    def find_spec(fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not fullname.startswith(_PREFIX):
            return None
        specs = (FileFinder(folder, (_Loader, [".py"])).find_spec(fullname) for folder in path or ())
        return next((spec for spec in specs if spec is not None), None)
