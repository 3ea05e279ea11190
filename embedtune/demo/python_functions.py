"""Two datasets made on the spot from Python sources that are already on the machine; nothing is imported or run.

`make_functions`: the standard library's functions. A query is the first paragraph of a docstring, its document the
function's code without that docstring. `make_prose`: installed third-party packages' docstrings. A query is the
summary, its document the prose that follows it. Nobody wrote these for retrieval, so they are small and honest data.
"""

from __future__ import annotations

import ast
import random
import re
import sysconfig
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from ..data.records import LabelledQuery
from ..data.writer import FolderWriter
from ..errors import InputError
from ..files import FolderKind, whole_folder
from ..types import Item

MADE = FolderKind(verb="quickstart")
# Tests, whole programs, and what is not the standard library's own.
SKIPPED = {"__pycache__", "dist-packages", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages",
           "test", "tests", "turtledemo"}  # fmt: skip
PACKAGES = ("networkx", "sympy", "scipy", "pandas", "numpy", "torch", "sklearn", "transformers", "rich", "datasets")
FUNCTIONS_A_MODULE = 30  # tkinter alone has hundreds, all alike
TEST_SHARE = 0.25  # of the documents
WORDS_OF_QUERY = range(4, 61)
WORDS_OF_PROSE = range(20, 151)
LINES_OF_CODE = range(2, 41)
_SECTION = re.compile(r"[-=]{3,}|>>>|::|^(Args|Returns|Examples?|Parameters|Raises|Notes?|See Also)\b:?")


def make_functions(folder: Path, *, seed: int = 0, documents: int = 1000, library: Path | None = None) -> None:
    """Writes a dataset folder from the standard library (or another folder of sources), with splits train and test.

    Whole modules go to either split. Of functions with equal code the first is taken, of those with equal docstrings
    none. At most `documents` documents. Raises InputError where the sources are not there.
    """
    library = library or Path(sysconfig.get_paths()["stdlib"])
    by_module = _functions_of(library)
    if len(by_module) < 2:
        raise InputError(f"{library}: no Python sources here; quickstart reads those of the standard library")
    generator = random.Random(seed)
    drawn: list[list[LabelledQuery]] = []
    for module in generator.sample(sorted(by_module), len(by_module)):
        room = min(FUNCTIONS_A_MODULE, documents - sum(map(len, drawn)))
        drawn.append(generator.sample(by_module[module], min(room, len(by_module[module]))))
    most, tested = TEST_SHARE * sum(map(len, drawn)), 0
    with whole_folder(folder, MADE) as temporary, FolderWriter(temporary) as writer:
        for of_module in drawn:
            split = "test" if tested < most else "train"
            tested += len(of_module) if split == "test" else 0
            for pair in of_module:
                writer.add(split, pair)


def _functions_of(library: Path) -> dict[str, list[LabelledQuery]]:
    """module -> its functions whose docstring and code are of a fit length."""
    pairs: dict[str, tuple[str, str, LabelledQuery]] = {}  # the code -> module, query and pair
    for path in _sources(library):
        module = _name_of(path, library)
        for name, node in _definitions(_parsed(path)):
            query, doc_id = _paragraphs(ast.get_docstring(node) or "")[0], f"{module}.{name}"
            # An arrow is part of a signature that stands where words should.
            if len(query.split()) in WORDS_OF_QUERY and "->" not in query and _does_something(node):
                node.body = node.body[1:]
                document = Item(id=doc_id, title=doc_id, text=ast.unparse(node))
                pair = LabelledQuery(where=doc_id, query=Item(id=f"q-{doc_id}", text=query), positives=(document,))
                if len(document.text.splitlines()) in LINES_OF_CODE:
                    pairs.setdefault(_without_name(node), (module, query, pair))
    asked = Counter(query.lower() for _, query, _ in pairs.values())
    by_module: dict[str, dict[str, LabelledQuery]] = defaultdict(dict)
    for module, query, pair in pairs.values():
        if asked[query.lower()] == 1:
            by_module[module].setdefault(pair.where, pair)  # a second definition under an `if` is left out
    return {module: list(by_id.values()) for module, by_id in by_module.items()}


def _does_something(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether there is more than `pass`, `...` and `raise NotImplementedError` behind the docstring."""
    return any(
        not isinstance(statement, ast.Pass | ast.Raise)
        and not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        for statement in node.body
    )


def _without_name(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """The code of a function, equal for copies under other names or with other annotations."""
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return "\n".join([*names, *map(ast.unparse, node.body)])


def _sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if not SKIPPED & set(path.relative_to(folder).parts))


def _name_of(path: Path, root: Path) -> str:
    """A module's name, as it is imported."""
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


def _paragraphs(text: str) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text.strip())]


def make_prose(
    folder: Path, *, seed: int = 0, documents: int = 500, queries: int = 100, packages: Path | None = None
) -> None:
    """Writes a dataset folder from installed packages' docstrings, with the split test alone.

    At most `documents` documents, and a query for each of `queries` of them. Raises InputError where there are fewer.
    """
    root = packages or Path(sysconfig.get_paths()["purelib"])
    generator = random.Random(seed)
    prose = _prose_of(root, documents, generator)
    if len(prose) < queries:
        raise InputError(f"{root}: {len(prose)} docstrings with prose in {', '.join(PACKAGES)}; {queries} are needed")
    asked = set(generator.sample(sorted(prose), queries))
    with whole_folder(folder, MADE) as temporary, FolderWriter(temporary) as writer:
        for doc_id, (summary, text) in sorted(prose.items()):
            document = Item(id=doc_id, text=text)
            if doc_id in asked:
                query = Item(id=f"q-{doc_id}", text=summary)
                writer.add("test", LabelledQuery(where=doc_id, query=query, positives=(document,)))
            else:
                writer.documents.add(document, doc_id)


def _prose_of(root: Path, documents: int, generator: random.Random) -> dict[str, tuple[str, str]]:
    """doc_id -> (summary, the prose after it), an equal share from each package, no summary and no prose twice."""
    present = [name for name in PACKAGES if (root / name).is_dir()]
    prose: dict[str, tuple[str, str]] = {}
    seen: set[str] = set()
    for number, package in enumerate(present, start=1):
        paths, most = _sources(root / package), documents * number // len(present)
        for path in generator.sample(paths, len(paths)):
            if len(prose) >= most:
                break
            for name, node in _definitions(_parsed(path)):
                summary, text = _summary_and_prose(ast.get_docstring(node) or "")
                fits = len(summary.split()) in WORDS_OF_QUERY and len(text.split()) in WORDS_OF_PROSE
                if fits and not {summary, text} & seen and len(prose) < most:
                    seen |= {summary, text}
                    prose.setdefault(f"{_name_of(path, root)}.{name}", (summary, text))
    return prose


def _summary_and_prose(docstring: str) -> tuple[str, str]:
    """The first paragraph, and those behind it up to a section of lists, signatures or code."""
    summary, *rest = _paragraphs(docstring)
    section = next((number for number, paragraph in enumerate(rest) if _SECTION.search(paragraph)), len(rest))
    return summary, " ".join(rest[:section])
