"""Finds methods by file name: one file is one method, and its signature is its options.

A method `simans` of the family `sampling` is the file `methods/sampling/simans.py`, which defines a function
`simans` or a class `Simans` (CamelCase of the file name) whose instances are called. Its keyword-only parameters are
its options. Files are read with `ast`, not imported, so listing and checking methods needs no torch.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from ..errors import InputError, unknown

FAMILIES = ("mining", "filtering", "sampling", "batching", "synthesis", "weighting", "loss")
# The families whose methods get Scores, and with them the progress that an option's schedule follows.
SCHEDULED = ("filtering", "synthesis", "weighting", "loss")
# Arguments that the caller gives, never the recipe.
GIVEN = {"generator", "on_progress"}
_REQUIRED = object()


@dataclass(frozen=True)
class Option:
    """One keyword-only parameter of a method: its name, its type as written, and its default (absent if required)."""

    name: str
    annotation: str
    default: Any = _REQUIRED

    @property
    def required(self) -> bool:
        return self.default is _REQUIRED


@dataclass(frozen=True)
class Schedule:
    """An option that changes while training: from `start` to `end`, evenly, over the first share of the steps."""

    start: float
    end: float
    over: float = 1.0

    def at(self, progress: float) -> float:
        return self.start + (self.end - self.start) * min(1.0, progress / self.over)


@dataclass(frozen=True)
class Scheduled:
    """A function whose options follow schedules. Its first argument is the Scores, which carry the progress."""

    function: Any
    fixed: dict[str, Any]
    schedules: dict[str, Schedule]

    def __call__(self, scores: Any, *arguments: Any, **given: Any) -> Any:
        changing = {name: schedule.at(scores.progress) for name, schedule in self.schedules.items()}
        return self.function(scores, *arguments, **given, **self.fixed, **changing)


@dataclass(frozen=True)
class Method:
    """A method as its file describes it."""

    family: str
    name: str
    symbol: str
    summary: str
    docstring: str
    options: tuple[Option, ...]
    kind: str | None  # the file's KIND, where its family tells methods apart by one
    needs: tuple[str, ...]  # the file's NEEDS: what the method does not work without
    scheduled: tuple[str, ...]  # the file's SCHEDULED: a class's options that it reads from itself at every call
    # the file's BY_QUERY: whether it treats each query by itself, so that a batch may be taken in parts; or the options
    # with which it does
    by_query: bool | dict[str, Any]
    # the file's COSINE, of a filter whose default is meant for scores from -1 to 1: whether it is a "cap" or a "margin"
    cosine: str | None


def names(family: str) -> list[str]:
    """The methods of a family, by file."""
    folder = Path(__file__).parent / family
    return sorted(file.stem for file in folder.glob("[a-z]*.py"))


@cache
def describe(family: str, name: str) -> Method:
    """Reads a method's file. Raises InputError, with the nearest name, where there is none."""
    if name not in names(family):
        raise InputError(unknown(f"{family} method", name, names(family)))
    tree = ast.parse((Path(__file__).parent / family / f"{name}.py").read_text(encoding="utf-8"))
    camel = "".join(part.capitalize() for part in name.split("_"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _method(family, name, node, node, _constants(tree))
        if isinstance(node, ast.ClassDef) and node.name == camel:
            init = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
            return _method(family, name, node, init, _constants(tree))
    raise TypeError(f"embedtune/{family}/{name}.py must define a function {name} or a class {camel}")


def find(name: str) -> list[Method]:
    """The methods of this name, in whichever families. Raises InputError where there is none."""
    found = [describe(family, name) for family in FAMILIES if name in names(family)]
    if not found:
        known = [method for family in FAMILIES for method in names(family)]
        raise InputError(unknown("family or method", name, [*FAMILIES, *known]))
    return found


def by_query(family: str, name: str, options: dict[str, Any]) -> bool:
    """Whether the method, with these options, treats each query by itself."""
    method = describe(family, name)
    if isinstance(method.by_query, bool):
        return method.by_query
    chosen = {option.name: options.get(option.name, option.default) for option in method.options}
    return all(chosen[option] == value for option, value in method.by_query.items())


def _method(
    family: str,
    name: str,
    node: ast.FunctionDef | ast.ClassDef,
    signature: ast.FunctionDef | None,
    constants: dict[str, ast.expr],
) -> Method:
    docstring = ast.get_docstring(node) or ""
    options = _options(signature) if signature else ()
    kind, cosine = (ast.literal_eval(constants[name]) if name in constants else None for name in ("KIND", "COSINE"))
    needs, scheduled = (
        ast.literal_eval(constants[name]) if name in constants else () for name in ("NEEDS", "SCHEDULED")
    )
    by_query = ast.literal_eval(constants["BY_QUERY"]) if "BY_QUERY" in constants else False
    summary = docstring.split("\n\n")[0].replace("\n", " ")
    return Method(family, name, node.name, summary, docstring, options, kind, needs, scheduled, by_query, cosine)


def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    return {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}


def _options(function: ast.FunctionDef) -> tuple[Option, ...]:
    found = []
    for argument, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        if argument.arg in GIVEN:
            continue
        if argument.annotation is None:
            raise TypeError(f"{function.name}: option {argument.arg} needs a type")
        value = _REQUIRED if default is None else ast.literal_eval(default)
        found.append(Option(argument.arg, ast.unparse(argument.annotation), value))
    return tuple(found)


def check(family: str, name: str, options: dict[str, Any]) -> list[tuple[str, str]]:
    """All problems of a choice of method, as (option, sentence); an empty list where it is right."""
    try:
        method = describe(family, name)
    except InputError as error:
        return [("name", str(error))]
    known = {option.name: option for option in method.options}
    problems = [(key, unknown(f"option of {name}", key, known)) for key in options if key not in known]
    for option in method.options:
        if option.name not in options:
            if option.required:
                problems.append((option.name, f"{name} needs this option ({option.annotation})"))
            continue
        if isinstance(options[option.name], dict) and "dict" not in option.annotation:
            learned = options.get(f"learn_{option.name}") is True
            found = _schedule_problems(method, option, options[option.name], learned)
            problems += [(option.name, problem) for problem in found]
            continue
        try:
            _adapter(option.annotation).validate_python(options[option.name], strict=True)
        except ValidationError as error:
            problems.append((option.name, f"{error.errors()[0]['msg']}, got {options[option.name]!r}"))
    return problems


def _schedule_problems(method: Method, option: Option, given: dict[str, Any], learned: bool) -> list[str]:
    """What is wrong with {from: 0, to: 9, over: 0.5} where a number is expected."""
    if learned:
        return ["cannot both be learned and follow a schedule"]
    follows = method.symbol == method.name or option.name in method.scheduled
    if option.annotation != "float" or method.family not in SCHEDULED or not follows:
        return [f"cannot follow a schedule; expected {option.annotation}, got {given!r}"]
    numbers = {key: value for key, value in given.items() if isinstance(value, int | float) and value is not True}
    if not {"from", "to"} <= numbers.keys() <= {"from", "to", "over"} or len(numbers) < len(given):
        return [f"expected a number, or {{from: 0.0, to: 9.0, over: 0.5}}, got {given!r}"]
    if not 0 < numbers.get("over", 1.0) <= 1:
        return [f"over is a share of the steps, above 0 and at most 1, got {given['over']!r}"]
    return []


@cache
def _adapter(annotation: str) -> TypeAdapter[Any]:
    return TypeAdapter(eval(annotation, {"Literal": Literal}))  # our own source files' annotations


def bind(family: str, name: str, options: dict[str, Any]) -> Any:
    """The method with its options in place: a callable. Raises InputError that names every problem."""
    problems = check(family, name, options)
    if problems:
        raise InputError("; ".join(f"{family}.{name}.{key}: {message}" for key, message in problems))
    method = describe(family, name)
    symbol = getattr(import_module(f".{family}.{name}", __package__), method.symbol)
    annotations = {option.name: option.annotation for option in method.options}
    schedules = {
        name: Schedule(value["from"], value["to"], value.get("over", 1.0))
        for name, value in options.items()
        if isinstance(value, dict) and "dict" not in annotations[name]
    }
    fixed = {name: value for name, value in options.items() if name not in schedules}
    if isinstance(symbol, type):
        return _scheduled_instance(symbol, fixed, schedules)
    return Scheduled(symbol, fixed, schedules) if schedules else partial(symbol, **fixed)


def _scheduled_instance(symbol: type, fixed: dict[str, Any], schedules: dict[str, Schedule]) -> Any:
    """An instance whose options follow schedules: set before every call, from the Scores that it is called with."""
    instance: Any = None
    for end in (1.0, 0.0) if schedules else (0.0,):  # both ends are checked as an option is
        instance = symbol(**fixed, **{name: schedule.at(end) for name, schedule in schedules.items()})

    def set_options(instance: Any, arguments: tuple[Any, ...]) -> None:
        for name, schedule in schedules.items():
            setattr(instance, name, schedule.at(arguments[0].progress))

    if schedules:
        instance.register_forward_pre_hook(set_options)
    return instance
