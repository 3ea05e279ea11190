"""Is it better, and is it real: runs against a baseline, per dataset and measure, paired by query."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.dataset import load_dataset
from ..data.relevance import item_key
from ..errors import InputError
from .changes import Change, Texts, largest_changes
from .measures import parse_compared
from .results import distinct
from .significance import TIE, holm, paired, randomisation_p, t_test_p
from .sources import Measured, Source, read_source, unchanged


@dataclass(frozen=True, kw_only=True)
class Group:
    """What is compared as one: a source, or the seeds of one recipe. Per query, its values are the seeds' means."""

    name: str
    sources: list[Source]


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """The test whose sample is the training seeds: does training again show the difference as well?

    means: seed -> mean over the queries. deviation: their standard deviation. difference, p (randomisation), t_p: of
    the seeds that both sides have, paired; against a baseline that has no seeds, of each seed's difference to it. None
    where fewer than two can be paired. p cannot be below 2 / 2^seeds. holm: t_p adjusted over all seed tests.
    """

    means: dict[int, float]
    deviation: float
    difference: float | None = None
    p: float | None = None
    t_p: float | None = None
    holm: float | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One run against the baseline, on one dataset, by one measure. The difference is value - baseline.

    low, high: its 95% bootstrap interval. p: paired randomisation; holm: adjusted over all comparisons; t_p: paired
    t-test. negative_flips: the share of queries that were right and no longer are. What is None cannot be said: from
    means alone there is no test, from one query no interval.
    """

    dataset: str
    measure: str
    run: str
    baseline: float
    value: float
    difference: float
    queries: int | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    holm: float | None = None
    t_p: float | None = None
    wins: int | None = None
    ties: int | None = None
    losses: int | None = None
    negative_flips: float | None = None
    seeds: Seeds | None = None
    gained: tuple[Change, ...] = ()
    lost: tuple[Change, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Across:
    """One run by one measure over several datasets: the mean difference (backward transfer), the worst, and on how many
    it is lower. Datasets are not pooled into one sample, so there is no test."""

    measure: str
    run: str
    datasets: int
    mean: float
    worst: float
    worst_dataset: str
    lower: int


@dataclass(frozen=True, kw_only=True)
class Compared:
    """notes: what a reader must know of how it was compared, a sentence each."""

    baseline: str
    comparisons: list[Comparison]
    across: list[Across]
    notes: list[str]


def compare(
    baseline: str | Path,
    others: Sequence[str | Path],
    *,
    measures: str | Sequence[str] | None = None,
    data: Sequence[str] = (),
    strict: bool = False,
    changes: int = 10,
) -> Compared:
    """Compares evaluation folders, run folders, TREC runs or mteb's results with the first of them.

    measures: those to compare; absent, all that every one of them has. data: datasets (`DIR:split`) by whose judgements
    all runs are measured again; TREC runs need it. strict: refuse what would otherwise be compared on the queries that
    all have. changes: how many of the most gained and lost queries are kept. Runs of one recipe with several seeds are
    compared as one. Raises InputError for paths that hold nothing to compare, and for results on different data.
    """
    if not others:
        raise InputError(f"nothing to compare {baseline} with; name at least one other run")
    names = parse_compared(measures) if measures is not None else None
    datasets = distinct([load_dataset(name) for name in data])
    sources = [read_source(Path(path), datasets, names) for path in (baseline, *others)]
    return compare_groups(by_recipe(sources), measures=names, strict=strict, changes=changes)


def by_recipe(sources: Sequence[Source]) -> list[Group]:
    """Sources in their order; runs whose recipes differ in the seed alone are one group.

    The same seed twice is a repeated run, and is compared for itself.
    """
    found: list[list[Source]] = []
    for source in sources:
        home = next(
            (
                group
                for group in found
                if source.recipe is not None
                and group[0].recipe == source.recipe
                and all(other.seed != source.seed for other in group)
            ),
            None,
        )
        if home is None:
            found.append([source])
        else:
            home.append(source)
    return [Group(name=_name(group), sources=group) for group in found]


def _name(sources: Sequence[Source]) -> str:
    if len(sources) == 1:
        return sources[0].name
    stems = {re.sub(r"[-_./]*(seed)?[-_.]*[0-9]+$", "", source.name) for source in sources}
    stem = stems.pop() if len(stems) == 1 else ""
    return f"{stem or sources[0].name} ({len(sources)} seeds)"


def compare_groups(
    groups: Sequence[Group], *, measures: Sequence[str] | None = None, strict: bool = False, changes: int = 10
) -> Compared:
    """Compares each group with the first. Raises InputError where there is nothing that both have."""
    baseline, others = groups[0], groups[1:]
    if not others:
        raise InputError(f"{baseline.name}: the runs differ in their seed alone; there is no other recipe to compare")
    labels = list(dict.fromkeys(key for source in baseline.sources for key in source.measured))
    notes, comparisons = _left_out(groups, labels), []
    for key in labels:
        present = [group for group in groups if _has(group, key)]
        if present[:1] == [baseline] and len(present) > 1:
            comparisons += _on_dataset(key, present, measures, strict, changes, notes)
    if not comparisons:
        theirs = ", ".join(sorted({key for group in others for source in group.sources for key in source.measured}))
        raise InputError(
            f"{baseline.name} and the others share no dataset: it has {', '.join(labels)}; they have {theirs}"
        )
    comparisons = adjusted(comparisons)
    return Compared(baseline=baseline.name, comparisons=comparisons, across=across(comparisons), notes=notes)


def across(comparisons: Sequence[Comparison]) -> list[Across]:
    """What each run gained or lost over all datasets, where there are several."""
    found = []
    for run, measure in dict.fromkeys((comparison.run, comparison.measure) for comparison in comparisons):
        own = [comparison for comparison in comparisons if (comparison.run, comparison.measure) == (run, measure)]
        if len(own) > 1:
            worst = min(own, key=lambda comparison: comparison.difference)
            found.append(
                Across(
                    measure=measure,
                    run=run,
                    datasets=len(own),
                    mean=math.fsum(comparison.difference for comparison in own) / len(own),
                    worst=worst.difference,
                    worst_dataset=worst.dataset,
                    lower=sum(comparison.difference < -TIE for comparison in own),
                )
            )
    return found


def _has(group: Group, key: str) -> bool:
    return all(key in source.measured for source in group.sources)


def _left_out(groups: Sequence[Group], labels: Sequence[str]) -> list[str]:
    every = dict.fromkeys([*labels, *(key for group in groups for source in group.sources for key in source.measured)])
    return [
        f"{key}: left out for {group.name}: "
        + ("a seed" if len(group.sources) > 1 else "it")
        + " was not evaluated on it"
        for key in every
        for group in groups
        if not _has(group, key)
    ]


def _on_dataset(
    key: str, groups: Sequence[Group], measures: Sequence[str] | None, strict: bool, changes: int, notes: list[str]
) -> list[Comparison]:
    parts = [source.measured[key] for group in groups for source in group.sources]
    names = _measures(parts, measures)
    label, baseline = parts[0].label, groups[0]
    means_only = [part for part in parts if part.per_query is None]
    if means_only:
        notes.append(f"{label}: {means_only[0].where} holds means only, so no test is possible; means are compared")
        return [_of_means(label, key, name, baseline, other) for other in groups[1:] for name in names]
    shared = _shared_queries(label, parts, strict, notes)
    kept = {query_id: text for part in parts for query_id, text in part.texts.items()}
    texts = Texts([part.folder for part in parts if part.folder is not None], kept)
    if texts.file is None and not kept:
        notes.append(f"{label}: queries are shown by id only: the dataset's folder is not there any more")
    before = {name: _averaged(baseline, key, name, shared) for name in names}
    found = []
    for other in groups[1:]:
        after = {name: _averaged(other, key, name, shared) for name in names}
        if before == after:
            notes.append(f"{label}: {other.name} and {baseline.name} are identical: every query has the same values")
        for name in names:
            gained, lost = largest_changes(before[name], after[name], changes, texts)
            found.append(
                Comparison(
                    dataset=label,
                    measure=name,
                    run=other.name,
                    **vars(paired(before[name], after[name])),
                    seeds=_seeds(baseline, other, key, name, shared),
                    gained=gained,
                    lost=lost,
                )
            )
        if (seeds := found[-1].seeds) is not None and seeds.difference is None:
            notes.append(f"{label}: {other.name} and {baseline.name} share fewer than two seeds: seeds are not tested")
    return found


def _measures(parts: Sequence[Measured], wanted: Sequence[str] | None) -> list[str]:
    for part in parts:
        for name in wanted or ():
            if name not in part.measures:
                raise InputError(
                    f"{part.where}: {name} was not measured; it has {', '.join(part.measures)} "
                    "(--data DIR measures its run again)"
                )
    names = list(wanted or (name for name in parts[0].measures if all(name in part.measures for part in parts)))
    if not names:
        raise InputError(f"{parts[0].label}: no measure that all have; --data DIR measures the runs again")
    return names


def _of_means(label: str, key: str, measure: str, baseline: Group, other: Group) -> Comparison:
    before, after = (
        math.fsum(source.measured[key].measures[measure] for source in group.sources) / len(group.sources)
        for group in (baseline, other)
    )
    return Comparison(
        dataset=label, measure=measure, run=other.name, baseline=before, value=after, difference=after - before
    )


def _shared_queries(label: str, parts: Sequence[Measured], strict: bool, notes: list[str]) -> list[str]:
    """The queries that all have, in the first one's order. Raises InputError where the data is not the same."""
    shared = set.intersection(*(part.query_ids for part in parts))
    first = parts[0]
    for part in parts[1:]:
        if part.fingerprint != first.fingerprint and not _same_judgements(first, part, shared):
            raise InputError(
                f"{label}: {first.where} and {part.where} were evaluated on different data (documents, queries or "
                "judgements changed), so their values cannot be compared; measure both again with --data DIR"
            )
    if not shared:
        raise InputError(f"{label}: there is no query that all runs have")
    counts = {str(part.where): len(part.query_ids) for part in parts}
    if any(count > len(shared) for count in counts.values()):
        listed = ", ".join(f"{where} has {count}" for where, count in counts.items())
        if strict:
            raise InputError(f"{label}: the runs cover different queries ({listed}; all share {len(shared)}): --strict")
        notes.append(f"{label}: DIFFERENT QUERIES: {listed}; compared on the {len(shared)} that all have")
    assert first.per_query is not None
    return [query_id for query_id in next(iter(first.per_query.values())) if query_id in shared]


def _same_judgements(one: Measured, other: Measured, shared: Iterable[str]) -> bool:
    """Whether the shared queries are searched for in the same documents and judged alike, by the datasets' folders."""
    left, right = unchanged(one), unchanged(other)
    if left is None or right is None or left.corpus.fingerprint != right.corpus.fingerprint:
        return False
    return all(
        left.qrels[query_id] == right.qrels[query_id]
        and item_key(left.queries[query_id]) == item_key(right.queries[query_id])
        for query_id in shared
    )


def _averaged(group: Group, key: str, measure: str, query_ids: Sequence[str]) -> dict[str, float]:
    """query_id -> value, the mean over the group's seeds."""
    tables = [_values(source, key, measure) for source in group.sources]
    return {query_id: math.fsum(table[query_id] for table in tables) / len(tables) for query_id in query_ids}


def _values(source: Source, key: str, measure: str) -> dict[str, float]:
    return (source.measured[key].per_query or {})[measure]


def _seeds(baseline: Group, other: Group, key: str, measure: str, query_ids: Sequence[str]) -> Seeds | None:
    if len(other.sources) < 2:
        return None
    before, after = (_seed_means(group, key, measure, query_ids) for group in (baseline, other))
    means = {seed: value for seed, value in after.items() if seed is not None}
    centre = math.fsum(means.values()) / len(means)
    deviation = math.sqrt(math.fsum((value - centre) ** 2 for value in means.values()) / (len(means) - 1))
    # A baseline without seeds (a model as it came) does not vary with them; a single trained run does.
    differences = [
        value - before[None if None in before else seed]
        for seed, value in means.items()
        if None in before or seed in before
    ]
    if len(differences) < 2:
        return Seeds(means=means, deviation=deviation)
    return Seeds(
        means=means,
        deviation=deviation,
        difference=math.fsum(differences) / len(differences),
        p=randomisation_p(differences),
        t_p=t_test_p(differences),
    )


def _seed_means(group: Group, key: str, measure: str, query_ids: Sequence[str]) -> dict[int | None, float]:
    found = {}
    for source in group.sources:
        values = _values(source, key, measure)
        found[source.seed] = math.fsum(values[query_id] for query_id in query_ids) / len(query_ids)
    return found


def adjusted(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """With Holm's adjustment over all tests by query, and apart from them over all tests by seed."""
    tested = [(place, found.p) for place, found in enumerate(comparisons) if found.p is not None]
    seeded = [
        (place, found.seeds.t_p)
        for place, found in enumerate(comparisons)
        if found.seeds is not None and found.seeds.t_p is not None
    ]
    by_query, by_seed = _holm_by_place(tested), _holm_by_place(seeded)
    result = []
    for place, found in enumerate(comparisons):
        seeds = found.seeds and dataclasses.replace(found.seeds, holm=by_seed.get(place))
        result.append(dataclasses.replace(found, holm=by_query.get(place), seeds=seeds))
    return result


def _holm_by_place(tests: Sequence[tuple[int, float]]) -> dict[int, float]:
    return dict(zip([place for place, _ in tests], holm([p for _, p in tests]), strict=True))
