"""Reads and writes recipes: one YAML file, checked once at the edge, all problems reported together."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from ..errors import InputError, reason, unknown
from ..files import write_text
from ..methods import expectation, use_folders
from .folders import method_folders
from .keys import block_of, keys_of
from .rules import broken_rules
from .schema import RECORDED, Recipe, plain
from .strict_yaml import parse as parse_yaml
from .upgrade import upgraded, with_present_keys


def load_recipe(
    path: str | Path, overrides: Sequence[str] = (), *, methods: Sequence[Path] = (), start: str | Path | None = None
) -> Recipe:
    """Reads and checks a recipe file.

    overrides: `train.epochs=2` strings, as `--set` takes them. methods: folders with methods of the user's own, besides
    those that the recipe names; the recipe then names them too. start: the folder of a run whose model is trained in
    place of the recipe's. Raises InputError that lists every problem with its key and, for unknown names, the nearest
    valid one.
    """
    source = Path(path)
    values = read_values(source)
    if start is not None:
        _start_from(values, Path(start))
    for override in overrides:
        _override(values, override)
    return _checked(values, str(source), _folders(values, source, methods), recorded=False)


def load_recorded(path: Path) -> Recipe:
    """Reads a run's recipe as it was recorded. Its methods are not looked up: they may not be installed here."""
    values = read_values(path)
    return _checked(values, str(path), values.get("methods", []), recorded=True)


def check_recipe(values: Mapping[str, Any], source: str = "recipe") -> Recipe:
    """Checks plain values (as from YAML) that a program has made. Raises InputError listing all problems."""
    return _checked(dict(values), source, _folders(values, None, ()), recorded=False)


def upgrade_recipe(file: Path) -> dict[str, str]:
    """Rewrites a recipe file's old keys, and nothing else of its text. Returns them: old path -> new path.

    Raises InputError for a file that is no recipe, and where an old and its new key are both given.
    """
    with_present_keys(read_values(file), str(file))
    text, renamed = upgraded(read_text(file))
    if renamed:
        write_text(file.resolve(), text)  # of a link, the file that it leads to
    return renamed


def read_values(source: Path) -> dict[str, Any]:
    """The values of a recipe file, unchecked. Raises InputError for a file that is absent or not valid YAML."""
    values = parse_yaml(read_text(source), str(source))
    if not isinstance(values, dict):
        raise InputError(f"{source}: expected a mapping with version, model and data at the top")
    return values


def read_text(source: Path) -> str:
    """The text of a recipe file. Raises InputError for a file that is absent or cannot be read."""
    try:
        return source.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{source}: no such recipe; `embedtune recipes list` names those that ship") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{source}: cannot be read as a recipe: {reason(error)}") from None


def _folders(values: Mapping[str, Any], recipe_file: Path | None, allowed: Sequence[Path]) -> Any:
    """The recipe's folders of methods, whose methods are known from here on; a faulty value is left to the schema."""
    named = values.get("methods", [])
    named = [named] if isinstance(named, str) else named
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        return named
    folders = method_folders(named, recipe_file, allowed)
    use_folders(folders)
    return folders


def _checked(values: dict[str, Any], source: str, folders: Any, *, recorded: bool) -> Recipe:
    values = copy.deepcopy({**values, "methods": folders})
    with_present_keys(values, source)
    try:
        # As JSON: strict about numbers and text, while a mapping still becomes a dataclass.
        text = json.dumps(values, default=str)
        recipe = TypeAdapter(Recipe).validate_json(text, context={RECORDED: recorded})
        problems = [] if recorded else broken_rules(recipe)
    except ValidationError as error:
        problems = _sentences(error.errors())
    if problems:
        head = f"{source}: {len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise InputError("\n".join([head, *(f"  {line}" for line in problems)]))
    return recipe


def _sentences(errors: Sequence[Any]) -> list[str]:
    """A sentence for each problem that pydantic names, the key's path first.

    What a key may be of several types is refused by each of them: these are one sentence.
    """
    sentences: list[str] = []
    expected: dict[str, list[str]] = {}  # where -> what pydantic expects there
    inputs: dict[str, Any] = {}
    for error in errors:
        location = [part for part in error["loc"] if isinstance(part, int) or not _is_union_branch(str(part))]
        where = ".".join(map(str, location))
        if error["type"] == "unexpected_keyword_argument":
            sentences.append(f"{where}: {unknown('key', str(location[-1]), _keys_at(location[:-1]))}")
        elif error["type"] == "missing":
            sentences.append(f"{where}: missing; it must be given")
        elif error["type"] == "problems":
            problems = error["ctx"]["problems"]
            sentences += [f"{'.'.join(filter(None, [where, key]))}: {sentence}" for key, sentence in problems]
        elif error["type"] == "value_error":
            sentences.append(f"{where}: {error['ctx']['error']}")
        else:
            expected.setdefault(where, []).append(expectation(error["msg"]))
            inputs[where] = error["input"]
    return sentences + [
        f"{where or 'recipe'}: expected {' or '.join(parts)}, got {inputs[where]!r}"
        for where, parts in expected.items()
    ]


def _is_union_branch(part: str) -> bool:
    return "[" in part or part in {"float", "int", "str", "none"} or part.startswith(("function-", "constrained-"))


def _keys_at(location: Sequence[Any]) -> list[str]:
    """The keys that are valid in the block at a path."""
    kind: Any = Recipe
    for part in location:
        kind = kind and block_of(keys_of(kind).get(str(part)))
    return list(keys_of(kind)) if kind else []


def _start_from(values: dict[str, Any], run: Path) -> None:
    """Puts a run's model in place of the recipe's. It has its own pooling, and nothing that is drawn at random."""
    if not run.is_dir():
        raise InputError(f"--from {run}: no such folder; expected a run's folder, as `embedtune train` writes it")
    if not (run / "recipe.yaml").is_file() or (run / "modules.json").is_file():
        raise InputError(
            f"--from {run}: expected a run's folder, as `embedtune train` writes it (recipe.yaml, model/); name a "
            f"model that is no run's with --set model.name={run}"
        )
    model = values.get("model")
    block = model if isinstance(model, dict) else {}
    kept = {key: value for key, value in block.items() if key not in ("compose", "pooling", "new_weights")}
    values["model"] = kept | {"name": str(run)}


def _override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputError(f"--set {override}: expected key=value, as in --set train.epochs=2")
    target: Any = values
    *parents, last = key.split(".")
    for part in parents:
        if isinstance(target, list) and part.isdigit() and int(part) < len(target):
            target = target[int(part)]
        elif isinstance(target, dict):
            if target.get(part) is None:
                target[part] = {}
            target = target[part]
        else:
            raise InputError(f"--set {override}: {part!r} is no key of a mapping")
    value = parse_yaml(text, f"--set {key}")
    if isinstance(target, list) and last.isdigit() and int(last) < len(target):
        target[int(last)] = value
    elif isinstance(target, dict):
        target[last] = value
    else:
        raise InputError(f"--set {override}: {last!r} cannot be set there")


def dump(recipe: Recipe) -> str:
    """The recipe as YAML that `load_recipe` reads back to the same recipe: complete, every default written out."""
    return str(yaml.safe_dump(plain(recipe), sort_keys=False, allow_unicode=True, width=120))
