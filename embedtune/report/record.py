"""What a run folder holds, read from its files alone: of a run that was killed, as much as there is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..data.dataset import load_dataset
from ..errors import InputError
from ..evaluate.compare import Compared, Group, compare_groups
from ..evaluate.guarded import Guarded, read_guard
from ..evaluate.results import distinct
from ..evaluate.sources import Measured, read_source
from ..negatives.audit import Audit, audit
from ..negatives.evidence import MiningFiles
from ..recipe import Evaluate, Recipe, load_recipe
from .learning import Learning, read_learning

SUMMARY = "summary.json"  # written last: a run with it is finished
Domain = Literal["in", "out"]
BASE, TUNED = "evaluation-base", "evaluation"
EXAMPLES = 6  # of caught false negatives


@dataclass(frozen=True, kw_only=True)
class Mining:
    """One mining of a run: the first, or a refresh at a step, and what its evidence shows."""

    files: MiningFiles
    found: Audit

    @property
    def when(self) -> str:
        name = self.files.run.stem
        return f"at step {int(name.removeprefix('step-')):,}" if name.startswith("step-") else "before training"


@dataclass(frozen=True, kw_only=True)
class Record:
    """minings: the first and, where the student mined again, the last.
    base, tuned: what was measured, by label, in the recipe's order. mteb: what `embedtune eval RUN/model --mteb` filed.
    compared: tuned against base, on the sets that both were evaluated on; None where there are none.
    domains: label, in small letters -> what the recipe evaluates it for.
    missing: a sentence for everything that is not there and should be.
    """

    folder: Path
    recipe: Recipe
    environment: dict[str, Any]
    summary: dict[str, Any]
    learning: Learning
    minings: list[Mining]
    refreshes: int
    base: dict[str, Measured]
    tuned: dict[str, Measured]
    mteb: dict[str, Measured]
    compared: Compared | None
    domains: dict[str, Domain]
    guard: Guarded | None
    missing: list[str]

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def measure(self) -> str:
        return self.recipe.evaluate.measure

    def domain(self, label: str) -> str:
        """`in domain`, `out of domain`, or `evaluated` where that is not known."""
        found = self.domains.get(label.casefold())
        return "evaluated" if found is None else f"{found} domain" if found == "in" else f"{found} of domain"


def read_record(folder: Path, *, negatives: bool = True, summary: dict[str, Any] | None = None) -> Record:
    """Reads a run folder. negatives: whether its evidence is read, which may be large. summary: of a run that ends just
    now, whose own is not written yet.

    Raises InputError where it is none, and where a file in it is damaged or of another version.
    """
    if not (folder / "recipe.yaml").exists():
        raise InputError(_no_run(folder))
    recipe = load_recipe(folder / "recipe.yaml")
    summary = read_summary(folder) if summary is None else summary
    environment = _json(folder / "environment.json")
    domains = domains_of(recipe.evaluate, summary)
    base, tuned = (_measured(folder / place, list(domains)) for place in (BASE, TUNED))
    compared = _before_and_after(folder, list(domains)) if base.keys() & tuned.keys() else None
    learning = read_learning(folder)
    runs = sorted((folder / "negatives").glob("*.run"))
    mined = [files for files in map(MiningFiles, runs) if files.evidence.exists()]
    shown = list(dict.fromkeys([*mined[:1], *mined[-1:]])) if negatives else []
    minings = [Mining(files=files, found=audit(files.run, suspects=EXAMPLES)) for files in shown]
    return Record(
        folder=folder,
        recipe=recipe,
        environment=environment,
        summary=summary,
        learning=learning,
        minings=minings,
        refreshes=max(0, len(mined) - 1),
        base=base,
        tuned=tuned,
        mteb=read_source(folder / "mteb").measured if (folder / "mteb").is_dir() else {},
        compared=compared,
        domains=domains,
        guard=read_guard(folder),
        missing=_missing(folder, recipe, summary, learning, base, tuned),
    )


def domains_of(evaluate: Evaluate, summary: dict[str, Any]) -> dict[str, Domain]:
    """Label, in small letters -> in or out of domain. A finished run's summary has its sets in the recipe's order.

    Of an unfinished run the datasets themselves say; where those are gone, nothing does.
    """
    labels = list(summary.get("tuned", ()))
    if not labels:
        try:
            named = [load_dataset(name) for name in (*evaluate.in_domain, *evaluate.out_of_domain)]
            labels = [dataset.label for dataset in distinct(named)]
        except InputError:
            return {}
    inside = len(evaluate.in_domain)
    return {label.casefold(): "in" if place < inside else "out" for place, label in enumerate(labels)}


def read_summary(folder: Path) -> dict[str, Any]:
    """A finished run's summary; empty where it is not finished."""
    return _json(folder / SUMMARY)


def _measured(folder: Path, order: Sequence[str]) -> dict[str, Measured]:
    """What a folder of evaluations holds, in the recipe's order."""
    found = read_source(folder).measured if list(folder.glob("*/measures.json")) else {}
    return {label: found[label] for label in sorted(found, key=lambda label: place_of(label, order))}


def _before_and_after(folder: Path, order: Sequence[str]) -> Compared:
    """The tuned model's evaluation against the base model's."""
    names = {"the base model": BASE, "the tuned model": TUNED}
    sources = [dataclasses.replace(read_source(folder / place), name=name) for name, place in names.items()]
    found = compare_groups([Group(name=source.name, sources=[source]) for source in sources])
    ordered = sorted(found.comparisons, key=lambda comparison: place_of(comparison.dataset, order))
    return dataclasses.replace(found, comparisons=ordered)


def place_of(label: str, order: Sequence[str]) -> int:
    """Where a dataset stands in the recipe; the others come last."""
    return order.index(label.casefold()) if label.casefold() in order else len(order)


def _json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None
    return found


def _no_run(folder: Path) -> str:
    if not folder.exists():
        return f"{folder}: no such folder; expected a run folder as `embedtune train` writes it"
    if list(folder.glob("**/measures.json")):
        return f"{folder}: holds evaluations but no run (no recipe.yaml); `embedtune compare` reads those"
    return f"{folder}: is no run folder (no recipe.yaml in it)"


def _missing(
    folder: Path,
    recipe: Recipe,
    summary: dict[str, Any],
    learning: Learning,
    base: dict[str, Measured],
    tuned: dict[str, Measured],
) -> list[str]:
    """What a finished run would have."""
    said = []
    if not summary:
        at = f"after step {learning.steps[-1]:,}" if learning.steps else "before its first step"
        said.append(
            f"This run is not finished: it was stopped {at}, or is still going. "
            f"`embedtune train {folder / 'recipe.yaml'} --output {folder} --resume` goes on."
        )
    mined = [files for files in map(MiningFiles, (folder / "negatives").glob("*.run")) if files.complete]
    if recipe.negatives.mining and not mined:
        said.append("Missing: negatives; they were not mined to the end.")
    if summary and not (recipe.evaluate.in_domain or recipe.evaluate.out_of_domain):
        said.append(
            "Missing: evaluations; the recipe names no dataset in evaluate.in_domain or evaluate.out_of_domain."
        )
    elif not summary and not tuned:
        said.append("Missing: the tuned model's evaluation" + ("." if base else ", and the base model's."))
    if not recipe.evaluate.out_of_domain and recipe.evaluate.in_domain:
        said.append("Not known: what was lost out of domain; evaluate.out_of_domain names no dataset.")
    if learning.steps and learning.curve is None and recipe.data.validation is None:
        said.append("Missing: a learning curve; the recipe holds nothing out (data.validation).")
    return said
