"""Reads a method's file with `ast`: its signature, its docstring and its SPEC. None of the file's code runs."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError, unknown
from ._sources import MethodSource, fingerprint

# The arguments that a method is called with, by family: positional ones, and those passed by keyword.
ARGUMENTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "mining": (("dataset", "encoder"), ("on_progress",)),
    "filtering": (("scores",), ()),
    "sampling": (("scores", "positive_score"), ("generator",)),
    "batching": (("pairs", "batch_size", "context"), ("generator",)),
    "synthesis": (("scores", "keep"), ("generator",)),
    "weighting": (("scores", "keep"), ()),
    "loss": (("scores", "keep", "log_weights"), ()),
}
_TEXTS = (("text",), ("generator",))  # of a synthesis of texts
_PASSED = {name for _, keywords in ARGUMENTS.values() for name in keywords}
_RESERVED = {"name", "weight"}  # keys of a recipe beside a method's options
_KINDS = {"loss": ("objective", "regulariser"), "synthesis": ("texts", "vectors")}
_TYPES = {"int", "float", "bool", "str", "object", "list", "dict", "Literal"}
_REQUIRED = object()


Need = Literal["teacher", "own", "filter", "made", "lengths", "query_embeddings", "document_embeddings"]


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """What a method's file states beside its signature, as `SPEC = MethodSpec(key=value, ...)` with literal values.

    kind: of a loss: an objective stands alone, a regulariser is added to one. Of a synthesis: whether it makes texts,
        or vectors (more columns of scores).
    needs: what the method does not work without: a teacher's scores; negatives of the query's own; a filter; made
        negatives; for batching, the pairs' lengths or embeddings. needs_if: needs that hold with these options only.
    reads_teacher: whether the method reads the teacher's scores where there is a teacher (`scores.judge`), and needs
        none.
    scheduled: the options of a class that may follow a schedule, because the class reads them from itself at every
        call. Every number option of a function may follow one.
    by_query: whether each query is treated by itself, so that a large batch may be taken some queries at a time; or
        the options with which it is. A loss then reports in its parts what its mean is over (`mean_over`).
    neutral: the options with which the method changes nothing; an objective is then plain InfoNCE.
    cosine: of a filter whose default suits scores from -1 to 1: whether its limit is a cap or a margin.
    same_role: whether a filter's limit also decides between two queries and between two documents.
    limit: of a filter that compares `scores.judge` with a limit: the function that computes the limit, (Q, 1), from
        the scores and the filter's options. The evidence of mining records it.
    ordered: whether the result depends on the order of queries or documents, as where centroids are chosen in turn.
    trial: the options with which the contract tests try the method, on 4 queries and 11 documents.
    experimental: a method that showed no gain where it was tried, or whose paper was read second-hand; listed apart.
    """

    kind: Literal["objective", "regulariser", "texts", "vectors"] | None = None
    needs: tuple[Need, ...] = ()
    needs_if: Mapping[Need, Mapping[str, Any]] | None = None
    reads_teacher: bool = False
    scheduled: tuple[str, ...] = ()
    by_query: bool | Mapping[str, Any] = False
    neutral: Mapping[str, Any] | None = None
    cosine: Literal["cap", "margin"] | None = None
    same_role: bool = False
    limit: Callable[..., Any] | None = None
    ordered: bool = False
    trial: Mapping[str, Any] | None = None
    experimental: bool = False


@dataclass(frozen=True)
class Option:
    """One keyword-only parameter of a method: its name, its type as written, and its default (absent if required)."""

    name: str
    annotation: str
    default: Any = _REQUIRED

    @property
    def required(self) -> bool:
        return self.default is _REQUIRED


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method as its file describes it. symbol: the function's or class's name. spec: without its `limit`."""

    family: str
    name: str
    source: MethodSource
    symbol: str
    docstring: str
    options: tuple[Option, ...]
    spec: MethodSpec

    @property
    def summary(self) -> str:
        return self.docstring.split("\n\n")[0].replace("\n", " ")

    def with_defaults(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options, and the defaults of those that they leave out."""
        return {option.name: option.default for option in self.options} | dict(options)

    @property
    def file(self) -> Path:
        return self.source.path(self.family, self.name)

    @property
    def fingerprint(self) -> str:
        """Of the method's file and of the files that it imports from its own source."""
        return fingerprint(self.source, self.family, self.name)


class _Fault(Exception):
    """What is wrong with a method's file, and at which node."""

    def __init__(self, node: ast.stmt | ast.expr | ast.arg | None, text: str) -> None:
        super().__init__(text)
        self.line = f":{node.lineno}" if node is not None else ""


@lru_cache(maxsize=1024)
def read(family: str, name: str, source: MethodSource, text: str) -> Method:
    """The method in a file's text. Raises InputError that names the file and the line of a fault."""
    try:
        tree = ast.parse(text)
        node = _definition(tree, name)
        spec = _spec(tree, family)
        methods = {part.name: part for part in node.body if isinstance(part, ast.FunctionDef)}
        called = methods.get("forward", methods.get("__call__")) if isinstance(node, ast.ClassDef) else node
        signature = methods.get("__init__") if isinstance(node, ast.ClassDef) else node
        _check_arguments(node, called, family, spec)
        options = tuple(_option(*pair) for pair in _keyword_only(signature) if pair[0].arg not in _PASSED)
    except SyntaxError as error:
        raise InputError(f"{source.path(family, name)}:{error.lineno or 1}: not valid Python: {error.msg}") from None
    except _Fault as fault:
        raise InputError(f"{source.path(family, name)}{fault.line}: {fault}") from None
    docstring = ast.get_docstring(node) or ""
    return Method(
        family=family, name=name, source=source, symbol=node.name, docstring=docstring, options=options, spec=spec
    )


def _definition(tree: ast.Module, name: str) -> ast.FunctionDef | ast.ClassDef:
    camel = "".join(part.capitalize() for part in name.split("_"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in (name, camel):
            return node
    raise _Fault(None, f"expected a function {name} or a class {camel}, which is the method")


def _spec(tree: ast.Module, family: str) -> MethodSpec:
    assigned = [node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SPEC"]
    values: dict[str, Any] = {}
    for node in assigned:
        if not isinstance(node.value, ast.Call) or ast.unparse(node.value.func) != "MethodSpec" or node.value.args:
            raise _Fault(node, "expected SPEC = MethodSpec(key=value, ...)")
        known = [field.name for field in fields(MethodSpec)]
        for keyword in node.value.keywords:
            if keyword.arg not in known:
                raise _Fault(keyword.value, unknown("key of MethodSpec", str(keyword.arg), known))
            if keyword.arg != "limit":  # a function: known once the module is loaded
                values[keyword.arg] = _literal(keyword.value, f"SPEC: {keyword.arg}")
    kinds: tuple[str | None, ...] = _KINDS.get(family, (None,))
    if values.get("kind") not in kinds:
        expected = " or ".join(f"kind={kind!r}" for kind in kinds if kind) or "no kind"
        where = assigned[0] if assigned else None
        raise _Fault(where, f"a method of the family {family} needs SPEC = MethodSpec({expected})")
    return MethodSpec(**values)


def _literal(node: ast.expr, subject: str) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise _Fault(node, f"{subject} must be a literal value, got {ast.unparse(node)}") from None


def _check_arguments(
    node: ast.FunctionDef | ast.ClassDef, called: ast.FunctionDef | None, family: str, spec: MethodSpec
) -> None:
    """A method that could not be called as its family's are is refused before anything runs."""
    positional, keywords = _TEXTS if spec.kind == "texts" else ARGUMENTS[family]
    expected = ", ".join([*positional, "*", *keywords, "OPTIONS"])
    if called is None:
        raise _Fault(node, f"class {node.name} needs a method __call__ or forward({expected})")
    parameters = called.args.posonlyargs + called.args.args
    names = [argument.arg for argument in parameters][isinstance(node, ast.ClassDef) :]
    passed = [argument.arg for argument in called.args.kwonlyargs]
    variadic = called.args.vararg is not None or called.args.kwarg is not None
    if variadic or len(names) != len(positional) or not set(keywords) <= set(passed):
        received = ", ".join([*names, *(["*"] if passed else []), *passed])
        raise _Fault(called, f"expected {called.name}({expected}), got {called.name}({received})")


def _keyword_only(function: ast.FunctionDef | None) -> list[tuple[ast.arg, ast.expr | None]]:
    return list(zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)) if function else []


def _option(argument: ast.arg, default: ast.expr | None) -> Option:
    if argument.arg in _RESERVED:
        raise _Fault(argument, f"option {argument.arg}: a recipe uses this key itself; choose another name")
    if argument.annotation is None:
        raise _Fault(argument, f"option {argument.arg} needs a type, as in {argument.arg}: float = 0.5")
    # Only these names: the annotation is evaluated, and a file is read before anybody has agreed to run it.
    plain = ast.Name | ast.Constant | ast.Subscript | ast.BinOp | ast.BitOr | ast.Tuple | ast.expr_context
    for part in ast.walk(argument.annotation):
        if not isinstance(part, plain) or (isinstance(part, ast.Name) and part.id not in _TYPES):
            raise _Fault(
                argument,
                f"option {argument.arg}: the type {ast.unparse(argument.annotation)} is not one of int, float, bool, "
                "str, list[...], dict[...], Literal[...], alone or with | None",
            )
    value = _REQUIRED if default is None else _literal(default, f"option {argument.arg}: its default")
    return Option(argument.arg, ast.unparse(argument.annotation), value)
