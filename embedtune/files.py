"""Files and folders written whole, what they may replace, fingerprints of content, and the lock on a folder."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from .errors import InputError

LOCK, GATE = ".lock", ".lock.gate"
MARK = ".embedtune.json"  # in every result folder: which verb wrote it, and the path of every file that it wrote
_RUN = {"recipe.yaml", "environment.json"}
_INDEX = {"index.faiss", "manifest.json"}
_MODEL = {"modules.json", "config.json", "adapter_config.json", "config_sentence_transformers.json"}


@dataclass(frozen=True, kw_only=True)
class FolderKind:
    """A kind of folder that one verb writes, and how an earlier one is recognised.

    verb: its name on the command line, as in "eval". unmarked: whether a folder without a mark is one, by the names in
    it; older versions wrote no marks.
    """

    verb: str
    unmarked: Callable[[set[str]], bool] = lambda names: False

    def wrote(self, folder: Path) -> bool:
        """Whether the folder holds a result of this kind and nothing else."""
        names = {path.name for path in folder.iterdir()}
        if MARK not in names:
            return self.unmarked(names)
        return _read_mark(folder).get("verb") == self.verb and not _unlisted(folder)


@dataclass(frozen=True, kw_only=True)
class FileKind:
    """A kind of file that one verb writes. wrote: whether an existing file, read by its first bytes, is one."""

    verb: str
    wrote: Callable[[Path], bool]


def check_folder(path: Path, kind: FolderKind, *, overwrite: bool = False, option: str = "--output") -> None:
    """Raises InputError unless a folder may be written as `path`.

    It may be absent or empty; with `overwrite` it may be an earlier result of the same kind. A link, a mount point, the
    current or home folder and the folders above them are never replaced. Verbs call this before their work.
    """
    with _as_input_error(path, option):
        _refuse_link(path, option)
        if path.exists() and not path.is_dir():
            raise InputError(f"{path}: expected a folder to write, found a file; choose another {option}")
        if path.is_dir():
            _refuse_protected(path, option)
            if any(path.iterdir()):
                _refuse_other_content(path, kind, overwrite, option)
        _probe(path.parent)


def refuse_source(path: Path, *sources: Path, option: str = "--output") -> None:
    """Raises InputError where `path` is one of the folders that the result is made from, or holds one of them."""
    for source in sources:
        if source.resolve().is_relative_to(path.resolve()):
            raise InputError(f"{path}: the result is made from {source}; choose another {option}")


def check_container(path: Path, option: str = "--output") -> None:
    """Raises InputError unless results may be written into the folder `path`, which may hold other things as well.

    A dataset, a model, a run and any result that is a folder of its own are refused.
    """
    with _as_input_error(path, option):
        if path.is_symlink() and not path.exists():
            _refuse_link(path, option)
        if path.exists() and not path.is_dir():
            raise InputError(f"{path}: expected a folder to write to, found a file; choose another {option}")
        if path.is_dir() and (content := content_of(path)):
            raise InputError(f"{path}: holds {content}; choose another {option}")
        _probe(path)


def check_file(path: Path, kind: FileKind | None, *, overwrite: bool = False, option: str = "--output") -> None:
    """Raises InputError unless a file may be written as `path`: absent, or with `overwrite` one of the same kind.

    kind: None where a file is never replaced.
    """
    with _as_input_error(path, option):
        _refuse_link(path, option)
        if path.is_dir():
            raise InputError(f"{path}: expected a file to write, found a folder; choose another {option}")
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: expected a file to write, found a device or pipe; choose another {option}")
        if path.exists() and kind is None:
            raise InputError(f"{path}: exists already; choose another {option}")
        if kind is not None and path.exists() and path.stat().st_size and not kind.wrote(path):
            raise InputError(
                f"{path}: exists already and was not written by `embedtune {kind.verb}`; choose another {option}"
            )
        if path.exists() and not overwrite:
            raise InputError(f"{path}: exists already; choose another {option}, or replace it with --overwrite")
        _probe(path.parent)


def content_of(folder: Path) -> str:
    """What a folder holds that results are not written into, as in "a dataset"; empty for anything else."""
    names = {path.name for path in folder.iterdir()}
    if verb := _read_mark(folder).get("verb"):
        return f"a result of `embedtune {verb}`"
    if "corpus.jsonl" in names or "qrels" in names:
        return "a dataset"
    if names >= _RUN:
        return "a run"
    if names >= _INDEX:
        return "an index"
    if names & _MODEL or any(name.endswith(".safetensors") for name in names):
        return "a model"
    return ""


def first_line(path: Path) -> str:
    """A file's first line, cut at 64 KB; empty where it is no text."""
    with path.open("rb") as file:
        try:
            return file.readline(65536).decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            return ""


def _refuse_link(path: Path, option: str) -> None:
    if path.is_symlink():
        raise InputError(f"{path}: is a link to {path.readlink()}; choose another {option}")


def _refuse_protected(path: Path, option: str) -> None:
    """Raises InputError for the current folder, the home folder, the folders above them, and mount points."""
    resolved, protected = path.resolve(), {"current": Path.cwd().resolve()}
    with suppress(RuntimeError):  # a user without a home folder, as in some containers
        protected["home"] = Path.home().resolve()
    for name, folder in protected.items():
        if folder == resolved:
            raise InputError(f"{path}: is the {name} folder; choose another {option}")
        if folder.is_relative_to(resolved):
            raise InputError(f"{path}: holds the {name} folder; choose another {option}")
    if os.path.ismount(path):  # Path.is_mount is not there on Windows before Python 3.12
        raise InputError(f"{path}: is a mount point, which cannot be replaced; choose a folder in it as {option}")


def _refuse_other_content(path: Path, kind: FolderKind, overwrite: bool, option: str) -> None:
    if not kind.wrote(path):
        if _read_mark(path).get("verb") == kind.verb:
            why = f"holds {min(_unlisted(path))!r}, which `embedtune {kind.verb}` did not write"
        else:
            content = content_of(path)
            why = f"exists already and {f'holds {content}' if content else 'is no earlier result of this command'}"
        raise InputError(f"{path}: {why}; choose another {option}")
    if not overwrite:
        raise InputError(f"{path}: exists already; choose another {option}, or replace it with --overwrite")


def _read_mark(folder: Path) -> dict[str, Any]:
    """A result folder's mark, or an empty one where it has none that can be read."""
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return mark if isinstance(mark, dict) else {}


def _unlisted(folder: Path) -> set[str]:
    """What a result folder holds and its mark does not list: paths of files. Earlier marks list the outer names."""
    mark = _read_mark(folder)
    if "files" in mark:
        return _files_in(folder) - {MARK, *mark["files"]}
    return {path.name for path in folder.iterdir()} - {MARK, *mark.get("names", ())}


def _files_in(folder: Path) -> set[str]:
    """The paths, relative to a folder, of everything in it but folders; of a link, the link's own."""
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder).as_posix() for path in paths}


def _probe(folder: Path) -> None:
    """Raises OSError where no file can be made in the folder, or in the nearest one above it that exists."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    with tempfile.TemporaryFile(dir=nearest):
        pass


@contextmanager
def _as_input_error(path: Path, option: str = "--output") -> Iterator[None]:
    """An OSError as the one line that says that `path` cannot be written."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{path}: cannot be written ({reason}); choose another {option}") from None


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary sibling to write to, which is flushed to disk and renamed to `path` on success, else removed.

    Raises InputError where the folder cannot be written to.
    """
    temporary = _sibling(path)
    with _as_input_error(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
    mode = stat.S_IMODE(temporary.stat().st_mode)
    try:
        yield temporary
        temporary.chmod(mode)  # a library may have put a file of its own there, readable by its owner alone
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, kind: FolderKind, *, overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary sibling folder that becomes `path`, marked as a result of the kind, on success.

    Raises InputError, before the block and again before the renaming, where `check_folder` does.
    """
    check_folder(path, kind, overwrite=overwrite)
    with _temporary_folder(path) as temporary:
        yield temporary
        mark = {"verb": kind.verb, "files": sorted(_files_in(temporary))}
        (temporary / MARK).write_text(json.dumps(mark) + "\n", encoding="utf-8")
        check_folder(path, kind, overwrite=overwrite)


@contextmanager
def inner_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary sibling folder that becomes `path` on success, in place of the folder that stood there.

    For folders inside one that embedtune alone writes (a run, the cache), never for a path that the user names.
    """
    with _temporary_folder(path) as temporary:
        yield temporary


@contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    temporary = _sibling(path)
    with _as_input_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
    mode = stat.S_IMODE(temporary.stat().st_mode)
    try:
        with _operating_system_errors(path):
            yield temporary
        temporary.chmod(mode)
        for file in sorted(temporary.rglob("*"), reverse=True):
            if file.is_file() and not file.is_symlink():
                file.chmod(mode & 0o666)  # safetensors makes its files readable by their owner alone
            _flush(file)
        _flush(temporary)
        _put(temporary, path)
        _flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sibling(path: Path) -> Path:
    """A new hidden name beside `path`. Made with the process's umask, unlike tempfile's."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def is_leftover(name: str) -> bool:
    """Whether a killed process may have left a file or folder of that name while it was writing."""
    return re.fullmatch(r"\..+\.(\w{8})", name) is not None


def _put(folder: Path, path: Path) -> None:
    """Renames the folder to `path`. What stood there is at the folder's old name afterwards.

    At every moment one of the two stands at `path`, and of two processes that write it both succeed, the last one last.
    """
    while True:
        try:
            folder.rename(path)
            return
        except OSError:
            if not path.is_dir():
                raise
        try:
            _exchange(folder, path)
            return
        except FileNotFoundError:  # another process has just taken it away
            if not folder.exists():
                raise


def _exchange(folder: Path, other: Path) -> None:
    """Exchanges two folders: in one step where the system can, else in two."""
    one, two = os.fsencode(folder), os.fsencode(other)
    ctypes.set_errno(errno.ENOSYS)
    if sys.platform == "linux":
        current = -100  # AT_FDCWD; 2 is RENAME_EXCHANGE
        failed = ctypes.CDLL(None, use_errno=True).renameat2(current, one, current, two, 2)
    elif sys.platform == "darwin":
        failed = ctypes.CDLL(None, use_errno=True).renamex_np(one, two, 2)  # RENAME_SWAP
    else:
        failed = True
    number = ctypes.get_errno()
    if failed and number not in {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}:  # those: not on this file system
        raise OSError(number, os.strerror(number), str(other))
    if failed:
        aside = _sibling(other)
        other.rename(aside)
        folder.rename(other)
        aside.rename(folder)


@contextmanager
def _operating_system_errors(path: Path) -> Iterator[None]:
    """Raises safetensors' own error for a full disk as the OSError that other libraries raise."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None


def link(source: Path, target: Path) -> None:
    """Makes `target` a link to the file, a copy where the system allows no links. Its folder is made if absent."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.symlink_to(source.absolute())
    except OSError:  # Windows, without the right to make links
        shutil.copyfile(source, target)


def write_text(path: Path, text: str) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_lines(path: Path, lines: Iterable[str]) -> None:
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)


def _flush(path: Path) -> None:
    """Has the system write a file or folder to the disk; Windows does that for files opened for writing alone."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fingerprint_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprints_of_weights(folder: Path) -> dict[str, str]:
    """File -> sha256, as `sha256sum` prints it, of every safetensors file in a model folder."""
    return {
        file.relative_to(folder).as_posix(): fingerprint_of_file(file) for file in sorted(folder.rglob("*.safetensors"))
    }


def fingerprint_of(*parts: str) -> str:
    """One fingerprint (hex, 32 characters) for a sequence of strings; ("ab", "c") and ("a", "bc") differ."""
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    lengths = [len(part).to_bytes(8, "little") for part in encoded]
    return hashlib.sha256(b"".join(chain.from_iterable(zip(lengths, encoded, strict=True)))).hexdigest()[:32]


def lock(path: Path) -> FileLock:
    """A lock on a file, which is made where absent, its folder too. The kernel frees it when the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path, poll_interval=0.01, fallback_to_soft=False)


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Holds the folder for this process. Where another process holds it: waits for its end, or raises InputError.

    The gate is held by whoever tries to get the folder or looks whether it is held, for that moment only: so a look,
    which takes the lock for that moment, never makes another process's attempt fail.
    """
    holding = lock(folder / LOCK)
    if wait:
        holding.acquire()
    else:
        with lock(folder / GATE):
            try:
                holding.acquire(timeout=0)
            except Timeout:
                holder = first_line(folder / LOCK) or "unknown"
                raise InputError(
                    f"{folder}: another run is writing here (process {holder}); wait for it or choose another --output"
                ) from None
    try:
        with suppress(OSError):  # Windows lets nobody write to a locked file
            (folder / LOCK).write_text(str(os.getpid()), encoding="utf-8")
        yield
    finally:
        holding.release()


def is_locked(folder: Path) -> bool:
    """Whether a process holds the folder."""
    if not (folder / LOCK).exists():
        return False
    with lock(folder / GATE):
        try:
            with lock(folder / LOCK).acquire(timeout=0):
                return False
        except Timeout:
            return True


def cache_folder() -> Path:
    """EMBEDTUNE_CACHE, or the platform's cache folder."""
    if chosen := os.environ.get("EMBEDTUNE_CACHE"):
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_cache_dir("embedtune"))
