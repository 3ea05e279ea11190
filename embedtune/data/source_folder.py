"""Folders and archives that other tools wrote: their files by name, never outside the folder, within bounds."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from ..errors import InputError, reason
from .columns import SPLITS
from .jsonl import image_roots

DEEPEST = 4  # folders below the source in which files are looked for
MOST_FILES = 100_000
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
_EXTENSION = r"(jsonl|ndjson|parquet|tsv|csv)"
_SHARD = r"(-\d+(-of-\d+)?)?"


@dataclass(frozen=True)
class SourceFolder:
    """A folder's files: `names` are their paths relative to `root`, with `/`, sorted; hidden ones are left out."""

    root: Path
    names: tuple[str, ...]

    def find(self, pattern: str) -> list[re.Match[str]]:
        """The names that a regular expression matches whole."""
        return [match for name in self.names if (match := re.fullmatch(pattern, name))]

    def paths(self, pattern: str) -> list[Path]:
        return [self.path(match) for match in self.find(pattern)]

    def path(self, match: re.Match[str]) -> Path:
        """The file of a match. Raises InputError for a link out of the folder, and for what is no regular file."""
        path = self.root / match.string
        real = Path(os.path.realpath(path))
        if not any(real.is_relative_to(root) for root in image_roots(self.root)):
            raise InputError(f"{path}: is a link out of {self.root}; copy the file into the folder")
        if not real.is_file():
            raise InputError(f"{path}: is not a regular file")
        return path

    def tables(self, role: str) -> dict[str, list[Path]]:
        """split -> the files of one role (`corpus`, `queries`, `qrels`), as downloads and hub snapshots name them.

        `ROLE.jsonl`, `ROLE/SPLIT-00000-of-00002.parquet`, `ROLE-00000-of-00002.parquet` and `data/ROLE-...`; a file
        without a split, or with the role's name as its split, has the split "".
        """
        files: dict[str, list[Path]] = {}
        for match in self.find(rf"(?:data/)?{role}{_SHARD}\.{_EXTENSION}(\.gz)?"):
            files.setdefault("", []).append(self.path(match))
        for match in self.find(rf"{role}/(?P<split>\w[\w.-]*?){_SHARD}\.{_EXTENSION}(\.gz)?"):
            split = "" if match["split"] == role else match["split"]
            files.setdefault(split, []).append(self.path(match))
        return files

    def rows(self) -> dict[str, list[Path]]:
        """split -> the files of rows that are named as splits are: `train.csv`, `data/train-00000-of-00002.parquet`."""
        files: dict[str, list[Path]] = {}
        for match in self.find(rf"(?:data/)?(?P<split>{'|'.join(SPLITS)}){_SHARD}\.(json|{_EXTENSION[1:-1]})(\.gz)?"):
            files.setdefault(match["split"], []).append(self.path(match))
        return files

    def folders(self) -> list[SourceFolder]:
        """The folders inside, outer ones first."""
        parents = {str(parent) for name in self.names for parent in PurePosixPath(name).parents} - {"."}
        return [
            SourceFolder(
                self.root / parent, tuple(n[len(parent) + 1 :] for n in self.names if n.startswith(f"{parent}/"))
            )
            for parent in sorted(parents, key=lambda name: (name.count("/"), name))
        ]


def source_folder(root: Path) -> SourceFolder:
    """The files of a folder; where it holds one folder and nothing else, of that one.

    Raises InputError where there are too many files for one dataset.
    """
    while len(entries := [entry for entry in root.iterdir() if not _is_left_out(entry.name)]) == 1:
        if not entries[0].is_dir() or entries[0].is_symlink():
            break
        root = entries[0]
    names = []
    for folder, folders, files in os.walk(root):
        below = Path(folder).relative_to(root)
        folders[:] = [name for name in folders if not _is_left_out(name) and len(below.parts) < DEEPEST]
        names += [(below / name).as_posix() for name in files if not _is_left_out(name)]
        if len(names) > MOST_FILES:
            raise InputError(f"{root}: more than {MOST_FILES:,} files; name the folder of one dataset")
    return SourceFolder(root, tuple(sorted(names)))


def _is_left_out(name: str) -> bool:
    """Hidden files, and what macOS adds to archives."""
    return name.startswith(".") or name == "__MACOSX"


def most_bytes(compressed: int) -> int:
    """The bytes that a compressed file of this size may grow to. Text shrinks to a tenth, rarely to a fiftieth."""
    return 200 * compressed + (1 << 24)


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ARCHIVES)


@contextmanager
def unpacked(path: Path, beside: Path) -> Iterator[Path]:
    """Unpacks an archive into a temporary folder in `beside`, which is removed at the end.

    Raises InputError for a damaged archive, for a member that is a link or device or leaves the folder, and for one
    that grows far beyond the archive's own size.
    """
    with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=beside) as folder:
        room = most_bytes(path.stat().st_size)
        try:
            for number, (name, file) in enumerate(_members(path), start=1):
                if number > MOST_FILES:
                    raise InputError(f"{path}: more than {MOST_FILES:,} files")
                with file:
                    room -= _copy(file, _target(Path(folder), name, path), room, path)
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, RuntimeError) as error:
            raise InputError(f"{path}: cannot be unpacked: {reason(error)}") from None
        yield Path(folder)


def _members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """The regular files of an archive; anything but files and folders is refused."""
    if path.name.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if (info.external_attr >> 16) & 0o170000 == 0o120000:
                    raise InputError(f"{path}: {info.filename!r} is a link; links in archives are not followed")
                if not info.is_dir():
                    yield info.filename, archive.open(info)
        return
    with tarfile.open(path) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            if file is not None:
                yield member.name, file
            elif not member.isdir():
                raise InputError(f"{path}: {member.name!r} is no regular file; links in archives are not followed")


def _target(folder: Path, name: str, archive: Path) -> Path:
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or any("\\" in p or ":" in p for p in parts):
        raise InputError(f"{archive}: {name!r} leaves the archive's folder")
    target = folder.joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _copy(file: IO[bytes], target: Path, room: int, archive: Path) -> int:
    """Copies a member and returns its size. Raises InputError where it has more than `room` bytes."""
    size = 0
    with target.open("xb") as copy:
        while block := file.read(1 << 20):
            size += len(block)
            if size > room:
                raise InputError(f"{archive}: grows far beyond its size when it is unpacked; unpack it yourself")
            if size % (1 << 28) < len(block) and shutil.disk_usage(target.parent).free < 1 << 28:
                raise InputError(f"{archive}: no room on the disk of {target.parent} to unpack it")
            copy.write(block)
    return size
