"""Files written whole or not at all, fingerprints of content, and the lock on a run folder."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from .errors import InputError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a temporary sibling to write to; on success it is flushed to disk and renamed to `path`, else removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Gives a temporary sibling folder; on success every file is flushed and the folder takes the place of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        with _operating_system_errors(path):
            yield temporary
        temporary.chmod(0o777 & ~_umask())
        for file in sorted(temporary.rglob("*"), reverse=True):
            _flush(file)
        _flush(temporary)
        if path.exists():
            doomed = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
            path.replace(doomed / path.name)
            temporary.replace(path)
            shutil.rmtree(doomed)
        else:
            temporary.replace(path)
        _flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _operating_system_errors(path: Path) -> Iterator[None]:
    """safetensors reports a full disk as an error of its own; here it is an OSError like everybody else's."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None


def write_text(path: Path, text: str) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_lines(path: Path, lines: Iterable[str]) -> None:
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


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
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()[:32]


def refuse_existing(path: Path, *, overwrite: bool, option: str = "--output") -> None:
    """Raises InputError where something is there that is not to be replaced."""
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists already; choose another {option}, or replace it with --overwrite")


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Holds the folder for this process (flock on `.lock`; freed by the kernel whatever happens to the process).

    Where another has it: waits for that one, or raises InputError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise InputError(
                f"{folder}: another run is writing here (process {holder}); wait for it or choose another --output"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def is_locked(folder: Path) -> bool:
    """Whether a process holds the folder."""
    try:
        with locked(folder):
            return False
    except InputError:
        return True


def cache_folder() -> Path:
    """EMBEDTUNE_CACHE, or the platform's cache folder."""
    if chosen := os.environ.get("EMBEDTUNE_CACHE"):
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_cache_dir("embedtune"))
