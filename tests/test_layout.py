"""The order of imports, and what the library never does."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Lowest first: a module imports from its own layer and from those before it.
LAYERS = [
    {"types", "errors", "files", "distributed", "seeds"},
    {"methods._sources", "methods._reading", "methods._returns", "methods._seam", "methods._numerics", "recipe"},
    {"data"},
    {"models"},
    {"search"},
    {"methods"},  # the families' files
    {"negatives"},
    {"evaluate"},
    {"report"},
    {"train"},
    {"ship"},
    {"demo"},
    {"start"},
]
MODULES = sorted(path for path in (ROOT / "embedtune").rglob("*.py") if path != ROOT / "embedtune/__init__.py")


PARTS = {part for layer in LAYERS for part in layer}
# Modules that stand directly in `embedtune/`, its own `__init__` counted.
MOST_TOP_LEVEL_MODULES = 8


def part_of(module: str) -> str | None:
    """The part of embedtune that a module's full name belongs to: the longest name in LAYERS; None outside."""
    if module == "embedtune.methods":  # the package's own names are the seam's
        return "methods._seam"
    names = module.split(".")
    ends = range(len(names), 1, -1) if names[0] == "embedtune" else ()
    return next((part for end in ends if (part := ".".join(names[1:end])) in PARTS), None)


def layer_of(part: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if part in layer)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def modules_imported(path: Path) -> set[str]:
    """The full names of the modules that a module imports, anywhere in it."""
    package = path.relative_to(ROOT).parent.parts
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(
                [*package[: len(package) + 1 - node.level], *filter(None, [node.module])]
                if node.level
                else [node.module or ""]
            )
            names = {f"{base}.{alias.name}" for alias in node.names}
            imported |= {name if is_module(name) else base for name in names}
    return imported


def test_no_module_imports_from_a_later_layer() -> None:
    assert MODULES
    for path in MODULES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        own = part_of(name)
        assert own is not None, f"{path.relative_to(ROOT)} stands in no layer"
        parts = {part for module in modules_imported(path) if (part := part_of(module))}
        later = sorted(part for part in parts if layer_of(part) > layer_of(own))
        assert not later, f"{path.relative_to(ROOT)} imports {', '.join(later)}, which comes later"


def test_few_modules_stand_at_the_top() -> None:
    top = sorted(path.name for path in (ROOT / "embedtune").glob("*.py"))
    assert 0 < len(top) <= MOST_TOP_LEVEL_MODULES, top


def test_the_library_neither_prints_nor_knows_the_command_line() -> None:
    for path in MODULES:
        assert not any(name.startswith("embedtune_cli") for name in modules_imported(path)), path
        calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
        assert not any(isinstance(call.func, ast.Name) and call.func.id == "print" for call in calls), path


# Modules that Python has on POSIX systems alone, or that Windows lacks.
POSIX_ONLY = {"curses", "fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}


def imported_at_once(tree: ast.Module) -> set[str]:
    """The top-level names of the modules that are imported when a module is, not when one of its functions runs."""
    names, nodes = set(), list(tree.body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(str(node.module).partition(".")[0])
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            nodes += list(ast.iter_child_nodes(node))
    return names


def test_nothing_is_imported_that_windows_lacks() -> None:
    paths = [*MODULES, *(ROOT / "cli").rglob("*.py")]
    imported = {path: imported_at_once(ast.parse(path.read_text("utf-8"))) for path in paths}
    assert {"os", "torch"} <= set().union(*imported.values())  # it sees imports
    assert not {path: names & POSIX_ONLY for path, names in imported.items() if names & POSIX_ONLY}


def loaded_by(*args: str) -> set[str]:
    """The top-level modules that a new process has imported after one command line."""
    code = (
        "import sys; from embedtune_cli.app import run; code = run(sys.argv[1:]);"
        "print(' '.join({'loaded', *(name.partition('.')[0] for name in sys.modules)})); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


HEAVY = {
    *("torch", "transformers", "sentence_transformers", "tokenizers", "accelerate", "peft", "huggingface_hub"),
    *("datasets", "pandas", "pyarrow", "faiss", "scipy", "sklearn", "matplotlib"),
}


def test_help_imports_nothing_that_takes_time() -> None:
    loaded = loaded_by("--help")
    assert {"loaded", "typer", "rich"} <= loaded
    assert not loaded & {*HEAVY, "numpy", "pydantic", "yaml", "safetensors", "asyncio"}


def test_importing_the_package_reads_no_metadata_and_imports_nothing_that_takes_time() -> None:
    code = "import sys, embedtune; assert not {*sys.argv[1:]} & {*sys.modules}; print(embedtune.__version__)"
    command = [sys.executable, "-c", code, "importlib.metadata", "numpy", "pydantic", *sorted(HEAVY)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == version("embedtune")


def test_a_dry_run_without_its_model_imports_no_torch(tiny_dataset: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"""version: 1
model: {{name: some/model, lora: {{rank: 4}}}}
data: {{train: {tiny_dataset}, validation: 0.25}}
negatives:
  mining: [{{name: dense, depth: 20}}, bm25]
  filtering: [{{name: positive_ratio, at_most: 0.95}}]
  refresh: {{every: epoch}}
weighting: [{{name: hardness, alpha: 5.0}}]
train: {{batch_size: 8, chunk_size: 4}}
evaluate: {{out_of_domain: [{tiny_dataset}], guard: {{interpolate: true}}}}
"""
    )
    loaded = loaded_by("train", str(recipe), "--dry-run")
    assert {"loaded", "embedtune", "pydantic"} <= loaded
    assert not loaded & HEAVY
