"""The library's structure: no circles of imports, few arguments, one class for one name."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from code_lines import LIBRARY, is_method_file
from test_layout import MODULES, ROOT, modules_imported

MOST_ARGUMENTS = 8
MANY_ARGUMENTS = 6
MOST_FUNCTIONS_WITH_MANY = 5


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports() -> dict[str, set[str]]:
    """Module -> the modules of the library that it imports, anywhere in it."""
    graph = {name_of(path): modules_imported(path) for path in MODULES}
    return {name: {other for other in others if other in graph and other != name} for name, others in graph.items()}


def reached_from(graph: dict[str, set[str]], name: str) -> set[str]:
    reached: set[str] = set()
    waiting = list(graph[name])
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += graph[module]
    return reached


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = imports()
    assert len(graph) > 100
    assert [name for name in graph if name in reached_from(graph, name)] == []


def functions() -> Iterator[tuple[str, int]]:
    """Every function outside the methods' files, with its number of arguments; `self` and `cls` do not count."""
    for path in MODULES:
        if is_method_file(path):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                count = sum(argument.arg not in ("self", "cls") for argument in every)
                yield f"{path.relative_to(LIBRARY)}:{node.name}", count


def test_functions_take_few_arguments() -> None:
    many = {name: count for name, count in functions() if count > MANY_ARGUMENTS}
    assert len(many) <= MOST_FUNCTIONS_WITH_MANY, many
    assert all(count <= MOST_ARGUMENTS for count in many.values()), many


def test_one_name_means_one_class() -> None:
    homes = defaultdict(list)
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(str(path.relative_to(LIBRARY)))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}
