"""Two datasets made on the spot from Python sources that are already on the machine; nothing is imported or run.

`make_functions`: the standard library's functions. A query is the first paragraph of a docstring, its document the
function's code without that docstring. `make_prose`: installed third-party packages' docstrings. A query is the
summary, its document the prose that follows it. Nobody wrote these for retrieval, so they are small and honest data.
"""

from __future__ import annotations

import ast
import json
import random
import re
import sysconfig
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files import FolderKind, whole_folder, write_lines
from ..types import Qrels

# Tests, whole programs, and what is not the standard library's own.
SKIPPED = {"__pycache__", "dist-packages", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages",
           "test", "tests", "turtledemo"}  # fmt: skip
PACKAGES = ("networkx", "sympy", "scipy", "pandas", "numpy", "torch", "sklearn", "transformers", "rich", "datasets")
FUNCTIONS_A_MODULE = 30  # tkinter alone has hundreds, all alike
WORDS_OF_QUERY = (4, 60)
WORDS_OF_PROSE = (20, 150)
LINES_OF_CODE = (2, 40)
SHARED_QUERY = 3  # a docstring that more functions than this share ("See the base class") asks for none of them


@dataclass(frozen=True)
class _Function:
    doc_id: str
    module: str
    query: str
    code: str
    normalised: str  # without name, annotations and docstring: equal for functions copied across modules


def make_functions(folder: Path, *, seed: int = 0, documents: int = 2000, library: Path | None = None) -> None:
    """Writes a dataset folder from the standard library (or another folder of sources), with splits train and test.

    Whole modules go to either split; modules that share a query or a function's code go together. Equal functions are
    each other's positives. At most `documents` documents. Raises InputError where the sources are not there.
    """
    library = library or Path(sysconfig.get_paths()["stdlib"])
    functions = _drawn(_without_shared_queries(_functions_of(library)), random.Random(seed), documents)
    if len({function.module for function in functions}) < 2:
        raise InputError(f"{library}: no Python sources here; quickstart reads those of the standard library")
    test = _test_modules(functions, random.Random(seed))
    queries, qrels = _judged(functions)
    module_of = {function.doc_id: function.module for function in functions}
    splits: dict[str, Qrels] = {"train": {}, "test": {}}
    for query_id, judged in qrels.items():
        splits["test" if module_of[next(iter(judged))] in test else "train"][query_id] = judged
    corpus = [(function.doc_id, function.doc_id, function.code) for function in functions]
    _write(folder, corpus, queries, splits)


def _functions_of(library: Path) -> list[_Function]:
    found: dict[str, _Function] = {}
    for path in _sources(library):
        module = _module(path, library)
        for name, node in _definitions(_parsed(path)):
            function = _function(module, f"{module}.{name}", node)
            if function:
                found.setdefault(function.doc_id, function)  # a second definition under an `if` is left out
    return list(found.values())


def _sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if not SKIPPED & set(path.relative_to(folder).parts))


def _module(path: Path, root: Path) -> str:
    return ".".join(part for part in path.relative_to(root).with_suffix("").parts if part != "__init__")


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError):  # templates and broken files exist among real sources
        return ast.Module(body=[], type_ignores=[])


def _definitions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Functions and methods with their qualified names; functions inside functions are part of those."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from _definitions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.If | ast.Try):
            yield from _definitions(child, prefix)


def _function(module: str, doc_id: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> _Function | None:
    """The function as a pair, or None where its docstring or its code says too little (or too much)."""
    query = _paragraphs(ast.get_docstring(node) or "")[0]
    if not _within(len(query.split()), WORDS_OF_QUERY) or "->" in query:  # an arrow: it is a signature, not words
        return None
    node.body = node.body[1:]
    if all(_says_nothing(statement) for statement in node.body):
        return None
    code = ast.unparse(node)
    if not _within(len(code.splitlines()), LINES_OF_CODE):
        return None
    return _Function(doc_id, module, query, code, _normalised(node))


def _says_nothing(statement: ast.stmt) -> bool:
    """`pass`, `...` and `raise NotImplementedError` are the same in functions that have nothing in common."""
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.Pass | ast.Raise)


def _normalised(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return " ".join(names) + "\n" + "\n".join(ast.unparse(statement) for statement in node.body)


def _paragraphs(text: str) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text.strip())]


def _within(count: int, bounds: tuple[int, int]) -> bool:
    return bounds[0] <= count <= bounds[1]


def _without_shared_queries(functions: list[_Function]) -> list[_Function]:
    asked = defaultdict(set)
    for function in functions:
        asked[function.query.lower()].add(function.normalised)
    return [function for function in functions if len(asked[function.query.lower()]) <= SHARED_QUERY]


def _drawn(functions: list[_Function], generator: random.Random, documents: int) -> list[_Function]:
    """At most so many documents, whole modules at a time, each module with at most FUNCTIONS_A_MODULE."""
    by_module = defaultdict(list)
    for function in functions:
        by_module[function.module].append(function)
    kept: list[_Function] = []
    for module in generator.sample(sorted(by_module), len(by_module)):
        of_module = by_module[module]
        kept += generator.sample(of_module, min(len(of_module), FUNCTIONS_A_MODULE, documents - len(kept)))
    return sorted(kept, key=lambda function: function.doc_id)


def _test_modules(functions: list[_Function], generator: random.Random, share: float = 0.25) -> set[str]:
    """Modules for the test split: groups of modules that share anything stay together."""
    group = {function.module: {function.module} for function in functions}
    for alike in _alike(functions).values():
        joined = set().union(*(group[function.module] for function in alike))
        group |= dict.fromkeys(joined, joined)
    test: set[str] = set()
    for module in generator.sample(sorted(group), len(group)):
        if sum(function.module in test for function in functions) >= share * len(functions):
            break
        if len(group[module]) <= max(1, len(group) // 10):  # a large group would be the test split all by itself
            test |= group[module]
    return test


def _alike(functions: Iterable[_Function]) -> dict[str, list[_Function]]:
    """Functions by what they share: the code, or the query."""
    groups = defaultdict(list)
    for function in functions:
        groups[f"code {function.normalised}"].append(function)
        groups[f"query {function.query.lower()}"].append(function)
    return groups


def _judged(functions: list[_Function]) -> tuple[dict[str, str], Qrels]:
    """One query for each distinct docstring; its positives are the functions that bear it, and their copies."""
    groups = _alike(functions)
    queries: dict[str, str] = {}
    qrels: Qrels = {}
    for function in functions:
        bearing = groups[f"query {function.query.lower()}"]
        if bearing[0] is function:
            positives = {copy.doc_id for one in bearing for copy in groups[f"code {one.normalised}"]}
            queries[f"q-{function.doc_id}"] = function.query
            qrels[f"q-{function.doc_id}"] = dict.fromkeys(sorted(positives), 1)
    return queries, qrels


def make_prose(
    folder: Path, *, seed: int = 0, documents: int = 1000, queries: int = 200, packages: Path | None = None
) -> None:
    """Writes a dataset folder from installed packages' docstrings, with the split test alone.

    At most `documents` documents, of which `queries` are asked for. Raises InputError where there are too few.
    """
    root = packages or Path(sysconfig.get_paths()["purelib"])
    generator = random.Random(seed)
    found = _prose_of(root, documents, generator)
    if len(found) < queries:
        raise InputError(f"{root}: {len(found)} docstrings with prose in {', '.join(PACKAGES)}; {queries} are needed")
    asked = sorted(generator.sample(sorted(found), queries))
    _write(
        folder,
        [(doc_id, "", prose) for doc_id, (_, prose) in sorted(found.items())],
        {f"q-{doc_id}": found[doc_id][0] for doc_id in asked},
        {"test": {f"q-{doc_id}": {doc_id: 1} for doc_id in asked}},
    )


def _prose_of(root: Path, documents: int, generator: random.Random) -> dict[str, tuple[str, str]]:
    """doc_id -> (summary, the prose after it), an equal share from each package, no summary and no prose twice."""
    present = [name for name in PACKAGES if (root / name).is_dir()]
    found: dict[str, tuple[str, str]] = {}
    seen: set[str] = set()
    for position, package in enumerate(present, start=1):
        paths = _sources(root / package)
        for path in generator.sample(paths, len(paths)):
            if len(found) >= documents * position // len(present):
                break
            for doc_id, summary, prose in _prose_in(path, _module(path, root)):
                if not {summary, prose} & seen and len(found) < documents:
                    seen |= {summary, prose}
                    found.setdefault(doc_id, (summary, prose))
    return found


def _prose_in(path: Path, module: str) -> Iterator[tuple[str, str, str]]:
    for name, node in _definitions(_parsed(path)):
        summary, *rest = _paragraphs(ast.get_docstring(node) or "")
        prose = []
        for paragraph in rest:
            if re.search(r"[-=]{3,}|>>>|::|^(Args|Returns|Examples?|Parameters|Raises|Notes?|See Also)\b:?", paragraph):
                break  # a section of lists, signatures or code begins
            prose.append(paragraph)
        text = " ".join(prose)
        if _within(len(summary.split()), WORDS_OF_QUERY) and _within(len(text.split()), WORDS_OF_PROSE):
            yield f"{module}.{name}", summary, text


def _write(folder: Path, corpus: list[tuple[str, str, str]], queries: dict[str, str], splits: dict[str, Qrels]) -> None:
    with whole_folder(folder, FolderKind(verb="quickstart")) as temporary:
        write_lines(
            temporary / "corpus.jsonl",
            (json.dumps({"_id": doc_id, "title": title, "text": text}) for doc_id, title, text in corpus),
        )
        write_lines(
            temporary / "queries.jsonl",
            (json.dumps({"_id": query_id, "text": text}) for query_id, text in queries.items()),
        )
        for split, qrels in splits.items():
            lines = [
                f"{query_id}\t{doc_id}\t{relevance}"
                for query_id, judged in qrels.items()
                for doc_id, relevance in judged.items()
            ]
            write_lines(temporary / "qrels" / f"{split}.tsv", ["query-id\tcorpus-id\tscore", *lines])
