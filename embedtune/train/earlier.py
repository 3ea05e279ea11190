"""The earlier run of a folder that `--overwrite` replaces: set aside until the first step is done, put back on refusal.

It lies in EARLIER in the folder itself, under the folder's lock; in MOVING while its files are on the way there or
back, so that a start after a kill knows what it sees.
"""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

EARLIER, MOVING = ".earlier", ".earlier-moving"


def set_aside(folder: Path) -> None:
    """Moves what is in the folder, its lock apart, into EARLIER. On OSError all stands where it stood."""
    moving = folder / MOVING
    moving.mkdir()
    try:
        for path in entries(folder):
            path.rename(moving / path.name)
        moving.rename(folder / EARLIER)
    except OSError:
        put_back(folder)
        raise


def put_back(folder: Path) -> None:
    """Moves the earlier run back, in place of the one that began here; nothing where none is set aside."""
    earlier, moving = folder / EARLIER, folder / MOVING
    if earlier.exists():
        (folder / "recipe.yaml").unlink(missing_ok=True)  # first: without it nothing resumes what is half removed
        for path in entries(folder):
            remove(path)
        earlier.rename(moving)
    if moving.exists():
        for path in moving.iterdir():
            path.rename(folder / path.name)
        moving.rmdir()


def discard(folder: Path) -> None:
    """Removes the earlier run. What a kill leaves of it is removed as any half-written file is."""
    if (folder / EARLIER).exists():
        discarded = folder / f"{EARLIER}.{secrets.token_hex(4)}"
        (folder / EARLIER).rename(discarded)
        shutil.rmtree(discarded)


def remove(path: Path) -> None:
    """Removes a file, a link, or a folder with all that it holds."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def entries(folder: Path) -> list[Path]:
    """What a run has in its folder: all but the lock and an earlier run that is set aside."""
    return [
        path for path in folder.iterdir() if not path.name.startswith(".lock") and path.name not in (EARLIER, MOVING)
    ]
