"""Pages opened in the machine's own Chromium, without a network; tests skip where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


@contextmanager
def chromium(profile: Path, *, width: int = 1400) -> Iterator[BrowserContext]:
    """A browser whose storage lies in `profile`, so that closing and opening it again keeps what a page stored."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        context = started.chromium.launch_persistent_context(
            str(profile), executable_path=executable, headless=True, args=FLAGS, accept_downloads=True,
            viewport={"width": width, "height": 900},
        )  # fmt: skip
        try:
            yield context
        finally:
            context.close()
