"""What methods of all families are tried on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedtune.methods._trial import trial_of, trial_scores
from embedtune.types import Scores


@pytest.fixture
def scores() -> Scores:
    return trial_scores()


@pytest.fixture
def judged_run(tmp_path: Path) -> str:
    """A file of scores, for the methods that read one."""
    run = tmp_path / "judged.run"
    run.write_text("".join(f"q0 d{column} {score}\n" for column, score in enumerate([0.9, 0.1, 0.95, 0.2, 0.8])))
    return str(run)


@pytest.fixture
def bound(judged_run: str) -> Callable[[str, str], Any]:
    """Methods with their defaults, and the options that suit the small scores."""
    options = {"judge": {"path": judged_run}}
    return lambda family, name: trial_of(family, name, **options.get(name, {})).make()
