"""Finds, checks and binds methods by family and name.

The file FAMILY/NAME.py is one method: a function NAME, or a class (the name in CamelCase) whose instances are called.
Its keyword-only parameters are its options; what the signature cannot say stands in its SPEC.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from ..errors import InputError, unknown
from ._reading import Method, MethodSpec, Need, Option, read
from ._sources import FAMILIES, load, source_of, sources

# The families whose methods receive Scores, and with them the progress that an option's schedule follows.
SCHEDULED = ("filtering", "synthesis", "weighting", "loss")

_PHRASES = {
    "a valid array": "a list",
    "an object": "a mapping",
    "a valid string": "text",
    "a valid number": "a number",
    "a valid integer": "a whole number",
    "a valid boolean": "true or false",
}


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

    function: Callable[..., Any]
    fixed: dict[str, Any]
    schedules: dict[str, Schedule]

    def __call__(self, scores: Any, *arguments: Any, **keywords: Any) -> Any:
        changing = {name: schedule.at(scores.progress) for name, schedule in self.schedules.items()}
        return self.function(scores, *arguments, **keywords, **self.fixed, **changing)


def names(family: str) -> list[str]:
    """The methods of a family, by file, in all sources."""
    return sorted({name for source in sources() for name in source.names(family)})


def describe(family: str, name: str) -> Method:
    """Reads a method's file. Raises InputError, with the nearest name, for an unknown one, and for a faulty file."""
    source = source_of(family, name)
    try:
        text = source.path(family, name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{source.path(family, name)}: cannot be read as a method: {error}") from None
    return read(family, name, source, text)


def listing(families: Sequence[str]) -> tuple[list[Method], list[str]]:
    """The methods of these families, and a sentence for each whose file is faulty: those stop nobody else."""
    methods, problems = [], []
    for family in families:
        for name in names(family):
            try:
                methods.append(describe(family, name))
            except InputError as error:
                problems.append(str(error))
    return methods, problems


def contract(family: str) -> str:
    """What every method of a family receives and returns, in words."""
    tree = ast.parse((sources()[0].root / family / "__init__.py").read_text(encoding="utf-8"))
    return ast.get_docstring(tree) or ""


def find(name: str) -> list[Method]:
    """The methods of this name, in all families. Raises InputError where there is none."""
    methods = [describe(family, name) for family in FAMILIES if name in names(family)]
    if not methods:
        known = [method for family in FAMILIES for method in names(family)]
        raise InputError(unknown("family or method", name, [*FAMILIES, *known]))
    return methods


def by_query(family: str, name: str, options: dict[str, Any]) -> bool:
    """Whether the method, with these options, treats each query by itself."""
    method = describe(family, name)
    condition = method.spec.by_query
    return condition if isinstance(condition, bool) else _holds(method, options, condition)


def needs(family: str, name: str, options: dict[str, Any]) -> list[Need]:
    """What the method, with these options, does not work without."""
    method = describe(family, name)
    conditional = (method.spec.needs_if or {}).items()
    return [*method.spec.needs, *(need for need, condition in conditional if _holds(method, options, condition))]


def _holds(method: Method, options: Mapping[str, Any], condition: Mapping[str, Any]) -> bool:
    """Whether the options, defaults included, have the condition's values."""
    chosen = method.with_defaults(options)
    return all(chosen[name] == value for name, value in condition.items())


def check(family: str, name: str, options: dict[str, Any]) -> list[tuple[str, str]]:
    """All problems of a choice of method, as (option, sentence); an empty list where it is right."""
    try:
        method = describe(family, name)
    except InputError as error:
        return [("name", str(error))]
    known = {option.name: option for option in method.options}
    problems = [(key, unknown(f"option of {name}", key, known)) for key in options if key not in known]
    for option in method.options:
        if option.name in options:
            problems += [(option.name, problem) for problem in _value_problems(method, option, options)]
        elif option.required:
            problems.append((option.name, f"{name} needs this option ({option.annotation})"))
    return problems


def _value_problems(method: Method, option: Option, options: dict[str, Any]) -> list[str]:
    value = options[option.name]
    if _is_schedule(option, value):
        return _schedule_problems(method, option, value, learned=options.get(f"learn_{option.name}") is True)
    if isinstance(value, float) and not math.isfinite(value):
        return [f"expected a finite number, got {value!r}"]
    try:
        _adapter(option.annotation).validate_python(value, strict=True)
    except ValidationError as error:
        return [f"expected {expectation(error.errors()[0]['msg'])}, got {value!r}"]
    return []


def expectation(message: str) -> str:
    """What pydantic expects, as a user says it: `a whole number` for `Input should be a valid integer`."""
    phrase = message.removeprefix("Input should be ")
    if phrase.startswith("List should have at least 1 item"):
        return "a list that is not empty"
    bound = phrase.startswith(("greater", "less"))
    return _PHRASES.get(phrase, f"a number {phrase}" if bound else phrase)


def _is_schedule(option: Option, value: Any) -> bool:
    return isinstance(value, dict) and "dict" not in option.annotation


def _schedule_problems(method: Method, option: Option, schedule: dict[str, Any], *, learned: bool) -> list[str]:
    """What is wrong with {from: 0, to: 9, over: 0.5} where a number is expected."""
    if learned:
        return ["cannot both be learned and follow a schedule"]
    follows = method.symbol == method.name or option.name in method.spec.scheduled
    if option.annotation != "float" or method.family not in SCHEDULED or not follows:
        return [f"cannot follow a schedule; expected {option.annotation}, got {schedule!r}"]
    numbers = {key: value for key, value in schedule.items() if isinstance(value, int | float) and value is not True}
    if not {"from", "to"} <= numbers.keys() <= {"from", "to", "over"} or len(numbers) < len(schedule):
        return [f"expected a number, or {{from: 0.0, to: 9.0, over: 0.5}}, got {schedule!r}"]
    if not 0 < numbers.get("over", 1.0) <= 1:
        return [f"over is a share of the steps, above 0 and at most 1, got {schedule['over']!r}"]
    return []


def option_schema(annotation: str) -> dict[str, Any]:
    """The JSON Schema of an option's type."""
    return _adapter(annotation).json_schema()


@cache
def _adapter(annotation: str) -> TypeAdapter[Any]:
    return TypeAdapter(eval(annotation, {"Literal": Literal}))  # of names that `_reading` allows


def bind(family: str, name: str, options: dict[str, Any]) -> Any:
    """The method with its options in place: a callable. Raises InputError that names every problem.

    The method's module is imported here, and runs its code. What its first call returns is held to the contract.
    """
    problems = check(family, name, options)
    if problems:
        raise InputError("; ".join(f"{family}.{name}.{key}: {message}" for key, message in problems))
    method = describe(family, name)
    symbol = vars(load(method.source, family, name))[method.symbol]
    from ._returns import checks_first_call, names_file  # torch is loaded by now

    with names_file(method):
        bound = _with_options(symbol, method, options)
    return checks_first_call(method, bound)


def bind_limit(name: str, options: dict[str, Any]) -> Callable[..., Any] | None:
    """The function of a filter's SPEC that computes its limit, with the filter's options; None without one."""
    method = describe("filtering", name)
    spec: MethodSpec = vars(load(method.source, "filtering", name)).get("SPEC", MethodSpec())
    limit: Callable[..., Any] | None = spec.limit and _with_options(spec.limit, method, options)
    return limit


def _with_options(symbol: Any, method: Method, options: dict[str, Any]) -> Any:
    followed = [option.name for option in method.options if _is_schedule(option, options.get(option.name))]
    schedules = {
        name: Schedule(options[name]["from"], options[name]["to"], options[name].get("over", 1.0)) for name in followed
    }
    fixed = {name: value for name, value in options.items() if name not in schedules}
    if isinstance(symbol, type):
        if schedules and not hasattr(symbol, "register_forward_pre_hook"):
            raise InputError(f"{method.file}: {symbol.__name__} must be a torch.nn.Module to follow a schedule")
        return _scheduled_instance(symbol, fixed, schedules)
    return Scheduled(symbol, fixed, schedules) if schedules else partial(symbol, **fixed)


def _scheduled_instance(symbol: type, fixed: dict[str, Any], schedules: dict[str, Schedule]) -> Any:
    """An instance whose options follow schedules: set before every call, from the Scores that it is called with."""
    instance: Any = None
    for end in (1.0, 0.0) if schedules else (0.0,):  # the class checks both ends
        instance = symbol(**fixed, **{name: schedule.at(end) for name, schedule in schedules.items()})

    def set_options(instance: Any, arguments: tuple[Any, ...]) -> None:
        for name, schedule in schedules.items():
            setattr(instance, name, schedule.at(arguments[0].progress))

    if schedules:
        instance.register_forward_pre_hook(set_options)
    return instance
