"""One step of training is read from three files: loop.py, step.py, objective.py."""

from __future__ import annotations

import ast
from pathlib import Path

TRAIN = Path(__file__).resolve().parents[2] / "embedtune" / "train"
# What the loop does for a step, and for nothing else.
STEP = {"fit", "batch_at", "observer", "distill_step", "share_gradients", "clip", "step_optimizer", "pull_to_origins"}


def tree_of(name: str) -> ast.Module:
    return ast.parse((TRAIN / f"{name}.py").read_text(encoding="utf-8"))


def imports_of(name: str) -> dict[str, str]:
    """Imported name -> the module of `embedtune/train` that it comes from."""
    return {
        alias.asname or alias.name: node.module or alias.name
        for node in tree_of(name).body
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }


def functions_of(name: str) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in tree_of(name).body if isinstance(node, ast.FunctionDef)}


def test_a_step_is_read_from_three_files() -> None:
    imported, functions = imports_of("loop"), functions_of("loop")
    assert functions.keys() >= STEP
    calls = [
        node.func.id
        for name in STEP
        for node in ast.walk(functions[name])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert {"accumulate_gradients", "lay_out", "numbers_of", "sum_gradients"} <= set(calls)
    elsewhere = {f"{imported[name]}.{name}" for name in calls if name in imported}
    assert {name.partition(".")[0] for name in elsewhere} <= {"objective", "step"}
    assert set(imports_of("step").values()) == {"objective"}
    assert set(imports_of("objective").values()) == {"sizes"}  # numbers that preflight shares


def test_the_loop_stands_on_one_page() -> None:
    fit = functions_of("loop")["fit"]
    assert fit.end_lineno is not None
    assert fit.end_lineno - fit.lineno < 60
