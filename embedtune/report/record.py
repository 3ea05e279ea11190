"""A run folder, read from its files alone: of a run that was stopped, as much as is there.

The recipe is read as plain values, so that a report needs none of the methods that the run was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.jsonl import read_json_object
from ..errors import InputError
from ..evaluate.compare import Compared, Comparison, Group, compare_groups
from ..evaluate.domains import Domain, domains_of, read_summary
from ..evaluate.guarded import Guarded, GuardedSet, read_guard
from ..evaluate.sizes import AtSize, beside_base, read_sizes
from ..evaluate.sources import Measured, Source, read_source
from ..negatives.audit import Audit, audit
from ..negatives.evidence import MiningFiles
from ..recipe import Data, Model, Recipe, plain
from ..recipe.strict_yaml import read as read_yaml
from .learning import Learning, read_learning
from .wording import last_part, model_name

BY_WORDS = "evaluation-bm25"  # BM25's evaluations in a run folder
OF_BASE = "evaluation-base"  # the untouched model's
OF_ORIGIN = "evaluation-origin"  # those of the model that the untouched one came from, where that is a run's
UNMIXED = "model-unmixed"  # the tuned model, where model/ holds a mixture
OF_TRAINING = "Missing: a learning curve"  # what a reader of the card has no use for
EXAMPLES = 6  # of caught false negatives


@dataclass(frozen=True, kw_only=True)
class Mining:
    """One mining of a run: the first, or a refresh at a step, and the audit of its evidence."""

    files: MiningFiles
    audit: Audit

    @property
    def when(self) -> str:
        name = self.files.run.stem
        return f"at step {int(name.removeprefix('step-')):,}" if name.startswith("step-") else "before training"


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """recipe: the resolved recipe's plain values, every key present.
    minings: the first and, where the student mined again, the last.
    base, tuned, bm25: measurements by label, in the recipe's order. mteb: the results of `embedtune eval RUN/model
    --mteb`.
    compared: tuned against base, on the sets that both were evaluated on; None where there are none.
    domains: label in lower case -> whether the recipe evaluates it in or out of domain.
    mined: the files of every mining.
    sizes: of a run with `matryoshka`, the tuned model beside the base at each size, by the recipe's measure.
    origin: of a run that trains another run's model, the measurements of the model that this one came from.
    """

    folder: Path
    recipe: dict[str, Any]
    environment: dict[str, Any]
    summary: dict[str, Any]
    learning: Learning
    mined: list[MiningFiles]
    minings: list[Mining]
    base: dict[str, Measured]
    tuned: dict[str, Measured]
    bm25: dict[str, Measured]
    mteb: dict[str, Measured]
    compared: Compared | None
    domains: dict[str, Domain]
    guard: Guarded | None
    sizes: list[AtSize] = field(default_factory=list)
    origin: dict[str, Measured] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def lineage(self) -> dict[str, Any] | None:
        """Of a run that trains another run's model: `runs`, the nearest first, and `base`, the model of the first."""
        return self.environment.get("lineage")

    @property
    def base_model(self) -> dict[str, Any]:
        """The recipe's block of the model that all of this began with."""
        block: dict[str, Any] = self.lineage["base"] if self.lineage else self.recipe["model"]
        return block

    @property
    def ancestry(self) -> str | None:
        """Of a run that trains another run's model: the models that led to it, in a sentence."""
        if self.lineage is None:
            return None
        names = [last_part(one["run"]) for one in self.lineage["runs"]]
        weights = next(iter(self.lineage["runs"][0]["weights"].values()), "")
        before = ", which came from ".join([*names[1:], model_name(self.lineage["base"])])
        return f"This run trains {names[0]} further (sha256 of its weights {weights[:12]}), which came from {before}."

    @property
    def indexes(self) -> list[str]:
        """Of such a run that is finished: which indexes of the earlier model must be built again."""
        fit = self.summary.get("succession")
        if fit is None or self.lineage is None:
            return []
        name, old, new = last_part(self.lineage["runs"][0]["run"]), fit["deployed"][:12], fit["tuned"][:12]
        if fit["deployed"] == fit["tuned"]:
            return [f"Indexes of {name} fit this model, too: it encodes documents as before (identity {new})."]
        again = f"embedtune index DATA --model {self.folder} --output INDEX --overwrite"
        changed = (
            "have changed: in other stores, too, they do not fit"
            if fit["documents_changed"]
            else ("are the same as before: in other stores they still fit")
        )
        return [
            f"Indexes of {name} do not fit this model: `identity` in their manifest.json begins with {old}, this "
            f"model's with {new}, and `search` refuses them. Build each again: `{again}`.",
            f"Documents' embeddings {changed} ({fit['documents']:,} were compared).",
        ]

    @property
    def measure(self) -> str:
        return str(self.recipe["evaluate"]["measure"])

    @property
    def main(self) -> list[Comparison]:
        """Each dataset by the recipe's measure."""
        comparisons = self.compared.comparisons if self.compared else []
        return [comparison for comparison in comparisons if comparison.measure == self.measure]

    @property
    def groups(self) -> list[str]:
        """The domain of each of `main`."""
        return [self.domain(comparison.dataset) for comparison in self.main]

    @property
    def untouched(self) -> str | None:
        """What to use where a run brought nothing: a sentence; None where model/ holds tuned weights."""
        why = self.summary.get("untouched")
        if why is None:
            return None
        if self.recipe["model"]["compose"] is not None:
            return f"Tuning brought no gain: {why}. model/ holds the composed model as it was before training."
        name = model_name(self.recipe["model"])
        return f"Tuning brought no gain: {why}. Use {name} as it is; this folder has its weights."

    @property
    def notes(self) -> list[str]:
        """What a reader must know before the figures: what is missing, and how it was compared."""
        untouched = [self.untouched] if self.untouched else []
        return [*untouched, *self.missing, *(self.compared.notes if self.compared else [])]

    @property
    def missing(self) -> list[str]:
        """A sentence for everything that a finished run has and this one has not."""
        sentences = []
        learning, folder, evaluate = self.learning, self.folder, self.recipe["evaluate"]
        if not self.summary:
            at = f"after step {learning.steps[-1]:,}" if learning.steps else "before its first step"
            sentences.append(
                f"This run is not finished: it was stopped {at}, or is still going. "
                f"`embedtune train {folder / 'recipe.yaml'} --output {folder} --resume` goes on."
            )
        if self.recipe["negatives"]["mining"] and not any(files.complete for files in self.mined):
            sentences.append("Missing: negatives; they were not mined to the end.")
        if self.summary and not (evaluate["in_domain"] or evaluate["out_of_domain"]):
            sentences.append(
                "Missing: evaluations; the recipe names no dataset in evaluate.in_domain or evaluate.out_of_domain."
            )
        elif not self.summary and not self.tuned:
            sentences.append(
                "Missing: the tuned model's evaluation" + ("." if self.base else ", and the base model's.")
            )
        if not evaluate["out_of_domain"] and evaluate["in_domain"]:
            sentences.append("Not known: what was lost out of domain; evaluate.out_of_domain names no dataset.")
        if learning.steps and learning.curve is None and self.recipe["data"]["validation"] is None:
            sentences.append(f"{OF_TRAINING}; the recipe holds nothing out (data.validation).")
        return sentences

    def domain(self, label: str) -> str:
        names = {"in": "in domain", "out": "out of domain", None: "evaluated"}
        return names[self.domains.get(label.casefold())]

    def first_ranks(self, label: str) -> list[dict[str, int | None]]:
        """query_id -> rank of its first relevant document, before and after."""
        key = label.casefold()
        return [self.base[key].first_ranks, self.tuned[key].first_ranks]

    def guarded(self, label: str) -> GuardedSet | None:
        return next((one for one in self.guard.sets if one.label == label), None) if self.guard else None


def read_record(folder: Path, *, negatives: bool = True, summary: dict[str, Any] | None = None) -> RunRecord:
    """Reads a run folder. negatives: whether its evidence is read, which may be large. summary: of a run that ends
    just now and has not written its own yet.

    Raises InputError where the folder is no run, and where a file in it is damaged or of another version.
    """
    if not (folder / "recipe.yaml").exists():
        raise InputError(_no_run(folder))
    recipe = _recipe(folder / "recipe.yaml")
    summary = read_summary(folder) if summary is None else summary
    evaluate = recipe["evaluate"]
    domains = domains_of(evaluate["in_domain"], evaluate["out_of_domain"], summary)
    base = _source(folder / OF_BASE, "the base model", list(domains))
    tuned = _source(folder / "evaluation", "the tuned model", list(domains))
    groups = [Group(name=source.name, sources=[source]) for source in (base, tuned)]
    mined = [MiningFiles(run) for run in sorted((folder / "negatives").glob("*.run"))]
    kept = [files for files in mined if files.evidence.exists()]
    audited = list(dict.fromkeys([*kept[:1], *kept[-1:]])) if negatives else []
    return RunRecord(
        folder=folder,
        recipe=recipe,
        environment=_json(folder / "environment.json"),
        summary=summary,
        learning=read_learning(folder),
        mined=mined,
        minings=[Mining(files=files, audit=audit(files.run, suspects=EXAMPLES)) for files in audited],
        base=base.measured,
        tuned=tuned.measured,
        bm25=_source(folder / BY_WORDS, "BM25", list(domains)).measured,
        mteb=read_source(folder / "mteb").measured if (folder / "mteb").is_dir() else {},
        compared=compare_groups(groups) if base.measured.keys() & tuned.measured.keys() else None,
        domains=domains,
        guard=read_guard(folder),
        sizes=_sizes(base, tuned),
        origin=_source(folder / OF_ORIGIN, "the model before it", list(domains)).measured,
    )


def _sizes(base: Source, tuned: Source) -> list[AtSize]:
    """Both models at each size, over the datasets on which both were evaluated at several."""
    rows: list[AtSize] = []
    for key in (key for key in tuned.measured if key in base.measured):
        before, after = read_sizes(base.measured[key].where), read_sizes(tuned.measured[key].where)
        if before is not None and after is not None:
            rows += beside_base(tuned.measured[key].label, before, after)
    return rows


def _recipe(path: Path) -> dict[str, Any]:
    """The recipe's values over the defaults of the keys that it does not have. Raises InputError for other YAML."""
    values = read_yaml(path)
    if not isinstance(values, dict) or not all(isinstance(values.get(key), dict) for key in ("model", "data")):
        raise InputError(f"{path}: expected the resolved recipe of a run, with `model` and `data`")
    defaults = plain(Recipe(version=1, model=Model(name="model"), data=Data(train="")))
    return _over(defaults, values, path)


def _over(defaults: dict[str, Any], values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    merged = {**defaults, **values}
    for key, default in defaults.items():
        if isinstance(default, dict) and not isinstance(merged[key], dict):
            raise InputError(f"{path}: {key}: expected a mapping, got {merged[key]!r}")
        if isinstance(default, list) and not isinstance(merged[key], list):
            raise InputError(f"{path}: {key}: expected a list, got {merged[key]!r}")
        if isinstance(default, dict) and "name" not in default:  # a method's options are its own
            merged[key] = _over(default, merged[key], path)
    return merged


def _source(folder: Path, name: str, order: Sequence[str]) -> Source:
    """The evaluations in a folder, in the recipe's order; other datasets come last."""
    if not list(folder.glob("*/measures.json")):
        return Source(name=name, measured={})
    ranks = {label: rank for rank, label in enumerate(order)}
    measured = read_source(folder).measured
    labels = sorted(measured, key=lambda label: ranks.get(label, len(ranks)))
    return Source(name=name, measured={label: measured[label] for label in labels})


def _json(path: Path) -> dict[str, Any]:
    return read_json_object(path) if path.exists() else {}


def _no_run(folder: Path) -> str:
    if not folder.exists():
        return f"{folder}: no such folder; expected a run folder as `embedtune train` writes it"
    if list(folder.glob("**/measures.json")):
        return f"{folder}: holds evaluations but no run (no recipe.yaml); `embedtune compare` reads those"
    return f"{folder}: is no run folder (no recipe.yaml in it)"
