"""The order of imports, and what the library never does."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Lowest first: a module imports from its own layer and from those before it.
LAYERS = [
    {
        "errors",
        "files",
        "methods",
        "mining_flags",
        "recipe",
        "seeds",
        "shipped",
        "similarities",
        "strict_yaml",
        "types",
    },
    {"data"},
    {"relevance"},
    {"encode"},
    {"build_index", "index", "nearest", "scorers", "search"},
    {"filtering", "mining", "sampling"},
    {"evidence", "judging"},
    {"candidates"},
    {"batching", "loss", "synthesis", "weighting"},
    {"evaluate"},
    {"audit", "judge_file", "report"},
    {"train"},
    {"ablate", "doctor", "merge", "quickstart"},
]
MODULES = sorted(path for path in (ROOT / "embedtune").rglob("*.py") if path != ROOT / "embedtune/__init__.py")


def layer_of(part: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if part in layer)


def parts_imported(path: Path) -> set[str]:
    """The parts of embedtune (`data`, `train`, ...) that a module imports anywhere; others by full name."""
    package = path.relative_to(ROOT).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(
                [*package[: len(package) + 1 - node.level], node.module or ""] if node.level else [node.module]
            )
            found |= {f"{base.rstrip('.')}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] if name.startswith("embedtune.") else name for name in found}


def test_no_module_imports_from_a_later_layer() -> None:
    assert MODULES
    for path in MODULES:
        own = path.relative_to(ROOT / "embedtune").parts[0].removesuffix(".py")
        inside = {part for part in parts_imported(path) if any(part in layer for layer in LAYERS)}
        later = sorted(part for part in inside if layer_of(part) > layer_of(own))
        assert not later, f"{path.relative_to(ROOT)} imports {', '.join(later)}, which comes later"


def test_the_library_neither_prints_nor_knows_the_command_line() -> None:
    for path in MODULES:
        assert not any(name.startswith("embedtune_cli") for name in parts_imported(path)), path
        calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
        assert not any(isinstance(call.func, ast.Name) and call.func.id == "print" for call in calls), path


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    heavy = "{'torch', 'transformers', 'sentence_transformers', 'faiss', 'numpy', 'pydantic', 'scipy'}"
    code = f"import sys, embedtune_cli.app; print(sorted({heavy} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"
