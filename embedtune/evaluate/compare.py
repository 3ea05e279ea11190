"""Is a run better than the baseline, and is the difference more than chance: per dataset and measure, by query."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..data.dataset import load_dataset, queries_file
from ..data.jsonl import JsonLines
from ..data.relevance import item_key
from ..data.runs import RunFile
from ..errors import InputError, unknown
from .domains import Domain
from .measures import parse_compared
from .results import Protocol, distinct
from .significance import TIE, holm, paired, randomisation_p, t_test_p
from .sources import Measured, Source, read_source, unchanged

# What a protocol without the setting has: results record it only where it is another.
UNRECORDED: Protocol = {
    "quantize": "none",
    "rescore": "none",
    "calibration": "the corpus itself",
    "passage_tokens": "none",
    "passage_stride": "none",
}
_NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_BAR = re.compile(
    rf"\s*(?:(?P<where>\S.*?)\s*:)?\s*(?P<measure>[^\s:]+)\s*<\s*"
    rf"(?:(?P<value>{_NUMBER})|(?P<baseline>baseline)\s*(?:(?P<sign>[+-])\s*(?P<offset>{_NUMBER}))?)\s*"
)
_GROUPS: dict[str, Domain] = {"in_domain": "in", "out_of_domain": "out"}


@dataclass(frozen=True, kw_only=True)
class Group:
    """Sources that are compared as one: a single source, or the seeds of one recipe, whose values are averaged."""

    name: str
    sources: list[Source]

    @property
    def domains(self) -> dict[str, Domain]:
        """Label in lower case -> domain, by the recipe of the first source that is a finished run."""
        return next((source.domains for source in self.sources if source.domains), {})

    def has(self, key: str) -> bool:
        """Whether every source was evaluated on the dataset."""
        return all(key in source.measured for source in self.sources)

    def mean(self, key: str, measure: str) -> float:
        return _mean([source.measured[key].measures[measure] for source in self.sources])

    def values(self, key: str, measure: str, query_ids: Sequence[str]) -> dict[str, float]:
        """query_id -> value, the mean over the seeds."""
        tables = [source.measured[key].values(measure) for source in self.sources]
        return {query_id: _mean([table[query_id] for table in tables]) for query_id in query_ids}

    def by_seed(self, key: str, measure: str, query_ids: Sequence[str]) -> dict[int | None, float]:
        """seed -> mean over the queries; the seed is None for a source that is no training run."""
        tables = {source.seed: source.measured[key].values(measure) for source in self.sources}
        return {seed: _mean([table[query_id] for query_id in query_ids]) for seed, table in tables.items()}


@dataclass(frozen=True, kw_only=True)
class Change:
    """One query's values. text and image (a file) are None for a query without them and for a dataset that is gone."""

    query_id: str
    text: str | None
    image: str | None
    baseline: float
    value: float
    difference: float


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """The test whose sample is the training seeds: does training again show the difference as well?

    means: seed -> mean over the queries. deviation: their standard deviation. difference, p (randomisation), t_p: of
    the seeds that both sides have, paired; against a baseline without seeds, of each seed's difference to it. They are
    None if fewer than two seeds can be paired. p cannot be below 2 / 2^seeds. holm: t_p adjusted over all seed tests.
    """

    means: dict[int, float]
    deviation: float
    difference: float | None = None
    p: float | None = None
    t_p: float | None = None
    holm: float | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One run against the baseline on one dataset by one measure. The difference is value - baseline.

    low, high: its 95% bootstrap interval. p: paired randomisation test; holm: adjusted over all comparisons; t_p:
    paired t-test. negative_flips: the share of queries that were right and no longer are. Means alone allow no test and
    a single query no interval: what they do not determine is None.
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
    """One run by one measure over several datasets: both means, the mean difference (backward transfer), the worst, and
    the number of datasets on which it is lower. Datasets are not pooled into one sample, so there is no test."""

    measure: str
    run: str
    datasets: int
    baseline: float
    value: float
    mean: float
    worst: float
    worst_dataset: str
    lower: int


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The comparisons with one baseline. notes: sentences on how they were made that a reader must know.

    domains: run -> label in lower case -> domain, by the run's recipe or else by the baseline's; empty without either.
    """

    baseline: str
    comparisons: list[Comparison]
    across: list[Across]
    notes: list[str]
    domains: dict[str, dict[str, Domain]]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar for the mean of a measure. It is missed below `number`, or below the baseline's mean + number.

    where: the dataset or the group of datasets that it holds for; None for all.
    """

    where: str | None
    measure: str
    number: float
    of_baseline: bool
    text: str


def compare(
    baseline: str | Path | RunFile,
    others: Sequence[str | Path | RunFile],
    *,
    measures: str | Sequence[str] | None = None,
    data: Sequence[str] = (),
    strict: bool = False,
    changes: int = 10,
) -> Compared:
    """Compares evaluation folders, run folders, TREC runs or mteb's results with the first of them.

    measures: those to compare, by default all that every source has. data: datasets (`DIR:split`) by whose judgements
    all runs are measured again; TREC runs need it. Several datasets take a folder with a run's file for each, named by
    its label, or one file for all if no query id is judged in two of them. strict:
    refuse sources that cover different queries instead of comparing them on the queries that all have. changes: the
    number of most gained and lost queries that are kept. Runs
    of one recipe with several seeds are compared as one. Raises InputError for a path that holds nothing to compare,
    and for results on different data.
    """
    if not others:
        raise InputError(f"nothing to compare {baseline} with; name at least one other run")
    names = parse_compared(measures) if measures is not None else None
    datasets = distinct([load_dataset(name) for name in data])
    sources = [
        read_source(path if isinstance(path, RunFile) else Path(path), datasets, names) for path in (baseline, *others)
    ]
    return compare_groups(by_recipe(sources), measures=names, strict=strict, changes=changes)


def by_recipe(sources: Sequence[Source]) -> list[Group]:
    """Sources in their order; runs whose recipes differ in the seed alone are one group.

    A second run with the same seed is a repetition and stays a group of its own.
    """
    repetitions: Counter[tuple[str | None, int | None]] = Counter()
    groups: dict[tuple[str | int, int], list[Source]] = {}
    for index, source in enumerate(sources):
        repetitions[source.recipe, source.seed] += 1
        key = index if source.recipe is None else source.recipe
        groups.setdefault((key, repetitions[source.recipe, source.seed]), []).append(source)
    return [Group(name=_name(group), sources=group) for group in groups.values()]


def _name(sources: Sequence[Source]) -> str:
    if len(sources) == 1:
        return sources[0].name
    stems = {re.sub(r"[-_./]*(seed)?[-_.]*[0-9]+$", "", source.name) for source in sources}
    stem = stems.pop() if len(stems) == 1 else ""
    return f"{stem or sources[0].name} ({len(sources)} seeds)"


def compare_groups(
    groups: Sequence[Group],
    *,
    measures: Sequence[str] | None = None,
    primary: str | None = None,
    strict: bool = False,
    changes: int = 10,
) -> Compared:
    """Compares each group with the first. Raises InputError if they share no dataset or no measure.

    primary: the measure whose tests Holm's correction counts; None: those of all measures.
    """
    baseline, *others = groups
    if not others:
        raise InputError(f"{baseline.name}: the runs differ in their seed alone; there is no other recipe to compare")
    keys = list(dict.fromkeys(key for group in groups for source in group.sources for key in source.measured))
    comparisons: list[Comparison] = []
    notes = [_left_out(key, group) for key in keys for group in groups if not group.has(key)]
    for key in keys:
        present = [group for group in others if group.has(key)]
        if present and baseline.has(key):
            on_dataset, its_notes = _on_dataset(key, [baseline, *present], measures, strict, changes)
            comparisons += on_dataset
            notes += its_notes
    if not comparisons:
        first, rest = (
            ", ".join(sorted({key for group in side for source in group.sources for key in source.measured}))
            for side in ([baseline], others)
        )
        raise InputError(f"{baseline.name} and the others share no dataset: it has {first}; they have {rest}")
    comparisons = _adjusted(comparisons, primary)
    domains = {group.name: group.domains or baseline.domains for group in others}
    return Compared(
        baseline=baseline.name, comparisons=comparisons, across=_across(comparisons), notes=notes, domains=domains
    )


def _left_out(key: str, group: Group) -> str:
    evaluated = "a seed was not evaluated on it" if len(group.sources) > 1 else "it was not evaluated on it"
    return f"{key}: left out for {group.name}: {evaluated}"


def _on_dataset(
    key: str, groups: Sequence[Group], measures: Sequence[str] | None, strict: bool, changes: int
) -> tuple[list[Comparison], list[str]]:
    """The comparisons of one dataset with the first group, and the notes on them."""
    baseline, *others = groups
    parts = [source.measured[key] for group in groups for source in group.sources]
    label, names = parts[0].label, _measures(parts, measures)
    means_only = [part for part in parts if part.per_query is None]
    if means_only:
        note = f"{label}: {means_only[0].where} holds means only, so no test is possible; means are compared"
        return [_of_means(key, name, baseline, other) for other in others for name in names], [note]
    shared, notes = _shared_queries(parts, strict)
    notes += _protocol_differences(label, parts)
    texts = _Texts(parts)
    if not texts:
        notes.append(f"{label}: queries are shown by id only: the dataset's folder is not there any more")
    comparisons = []
    for other in others:
        identical = True
        for name in names:
            before, after = (group.values(key, name, shared) for group in (baseline, other))
            identical = identical and before == after
            gained, lost = _largest_changes(before, after, changes, texts)
            comparison = Comparison(
                dataset=label,
                measure=name,
                run=other.name,
                **vars(paired(before, after)),
                seeds=_seeds(*(group.by_seed(key, name, shared) for group in (baseline, other))),
                gained=gained,
                lost=lost,
            )
            comparisons.append(comparison)
        if identical:
            notes.append(f"{label}: {other.name} and {baseline.name} are identical: every query has the same values")
        if comparison.seeds is not None and comparison.seeds.difference is None:
            notes.append(f"{label}: {other.name} and {baseline.name} share fewer than two seeds: seeds are not tested")
    return comparisons, notes


def _protocol_differences(label: str, parts: Sequence[Measured]) -> list[str]:
    """A note for each setting of the retrieval that is not the same in all parts that record it. Of a setting in
    UNRECORDED the absence is recorded."""
    settings = dict.fromkeys(name for part in parts for name in part.protocol)
    notes = []
    for name in settings:
        protocols = [UNRECORDED | part.protocol for part in parts if part.protocol]
        values = dict.fromkeys(protocol[name] for protocol in protocols if name in protocol)
        if len(values) > 1:
            listed = " and ".join(map(str, values))
            notes.append(f"{label}: DIFFERENT SETTINGS: {name} is {listed}, which changes the values by itself")
    return notes


def _measures(parts: Sequence[Measured], wanted: Sequence[str] | None) -> list[str]:
    """The measures to compare: those wanted, or all that every part has."""
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


def _of_means(key: str, measure: str, baseline: Group, other: Group) -> Comparison:
    before, after = baseline.mean(key, measure), other.mean(key, measure)
    return Comparison(
        dataset=baseline.sources[0].measured[key].label,
        measure=measure,
        run=other.name,
        baseline=before,
        value=after,
        difference=after - before,
    )


def _shared_queries(parts: Sequence[Measured], strict: bool) -> tuple[list[str], list[str]]:
    """The queries that all parts have, in the first one's order, and a note if some have more.

    Raises InputError if the parts were measured on different data.
    """
    first, label = parts[0], parts[0].label
    shared = set.intersection(*(set(part.query_ids) for part in parts))
    for part in parts[1:]:
        if part.fingerprint != first.fingerprint and not _same_judgements(first, part, shared):
            raise InputError(
                f"{label}: {first.where} and {part.where} were evaluated on different data (documents, queries or "
                "judgements changed), so their values cannot be compared; measure both again with --data DIR"
            )
    if not shared:
        raise InputError(f"{label}: there is no query that all runs have")
    notes = []
    if any(len(part.query_ids) > len(shared) for part in parts):
        listed = ", ".join(dict.fromkeys(f"{part.where} has {len(part.query_ids)}" for part in parts))
        if strict:
            raise InputError(f"{label}: the runs cover different queries ({listed}; all share {len(shared)}): --strict")
        notes.append(f"{label}: DIFFERENT QUERIES: {listed}; compared on the {len(shared)} that all have")
    return [query_id for query_id in first.query_ids if query_id in shared], notes


def _same_judgements(one: Measured, other: Measured, shared: Iterable[str]) -> bool:
    """Whether both folders, unchanged since, have the same corpus, and the same text and judgements of each query."""
    data, other_data = unchanged(one), unchanged(other)
    if data is None or other_data is None or data.corpus.fingerprint != other_data.corpus.fingerprint:
        return False
    return all(
        data.qrels[query_id] == other_data.qrels[query_id]
        and item_key(data.queries[query_id]) == item_key(other_data.queries[query_id])
        for query_id in shared
    )


class _Texts:
    """Query texts: those that the results keep, and those of the first dataset folder that is still there."""

    def __init__(self, parts: Sequence[Measured]) -> None:
        files = [queries_file(str(part.folder)) for part in parts if part.folder is not None]
        file = next((file for file in files if file.exists()), None)
        self._kept = {query_id: text for part in parts for query_id, text in part.texts.items()}
        self._queries = JsonLines(file) if file is not None else None

    def __bool__(self) -> bool:
        return bool(self._kept) or self._queries is not None

    def of(self, query_id: str) -> tuple[str | None, str | None]:
        """The query's text (its image's name if it has none) and its image's file, None for what is not known."""
        if query_id in self._kept:
            return self._kept[query_id], None
        if self._queries is None or query_id not in self._queries:
            return None, None
        item = self._queries[query_id]
        return item.shown or None, str(item.image) if item.image is not None else None


def _largest_changes(
    before: Mapping[str, float], after: Mapping[str, float], count: int, texts: _Texts
) -> tuple[tuple[Change, ...], tuple[Change, ...]]:
    """At most `count` queries that gained most, and as many that lost most, the largest change first."""
    differences = {query_id: after[query_id] - before[query_id] for query_id in before}
    order = sorted(differences, key=lambda query_id: (-abs(differences[query_id]), query_id))

    def change(query_id: str) -> Change:
        text, image = texts.of(query_id)
        return Change(
            query_id=query_id,
            text=text,
            image=image,
            baseline=before[query_id],
            value=after[query_id],
            difference=differences[query_id],
        )

    gained = [query_id for query_id in order if differences[query_id] > TIE][:count]
    lost = [query_id for query_id in order if differences[query_id] < -TIE][:count]
    return tuple(map(change, gained)), tuple(map(change, lost))


def _seeds(before: Mapping[int | None, float], after: Mapping[int | None, float]) -> Seeds | None:
    """The test over the seeds, from seed -> mean of either side; None for a run with a single seed."""
    means = {seed: value for seed, value in after.items() if seed is not None}
    if len(means) < 2:
        return None
    centre = _mean(list(means.values()))
    deviation = math.sqrt(math.fsum((value - centre) ** 2 for value in means.values()) / (len(means) - 1))
    # A baseline without seeds (a model as it came) does not vary with them; a single trained run does.
    without_seeds = None in before
    differences = [
        value - before[None if without_seeds else seed]
        for seed, value in means.items()
        if without_seeds or seed in before
    ]
    if len(differences) < 2:
        return Seeds(means=means, deviation=deviation)
    return Seeds(
        means=means,
        deviation=deviation,
        difference=_mean(differences),
        p=randomisation_p(differences),
        t_p=t_test_p(differences),
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _adjusted(comparisons: Sequence[Comparison], primary: str | None = None) -> list[Comparison]:
    """With Holm's adjustment over the primary measure's tests by query, and apart from them over those by seed."""
    counted = [one for one in comparisons if primary in (None, one.measure)]
    by_query = iter(holm([one.p for one in counted if one.p is not None]))
    by_seed = iter(holm([one.seeds.t_p for one in counted if one.seeds and one.seeds.t_p is not None]))
    adjusted = []
    for one in comparisons:
        if primary not in (None, one.measure):
            adjusted.append(one)
            continue
        seeds = one.seeds
        if seeds is not None and seeds.t_p is not None:
            seeds = replace(seeds, holm=next(by_seed))
        adjusted.append(replace(one, holm=next(by_query) if one.p is not None else None, seeds=seeds))
    return adjusted


def _across(comparisons: Sequence[Comparison]) -> list[Across]:
    """Each run's gains and losses over all datasets, if there are several."""
    rows = []
    for run, measure in dict.fromkeys((one.run, one.measure) for one in comparisons):
        of_run = [one for one in comparisons if (one.run, one.measure) == (run, measure)]
        if len(of_run) > 1:
            worst = min(of_run, key=lambda one: one.difference)
            rows.append(
                Across(
                    measure=measure,
                    run=run,
                    datasets=len(of_run),
                    baseline=_mean([one.baseline for one in of_run]),
                    value=_mean([one.value for one in of_run]),
                    mean=_mean([one.difference for one in of_run]),
                    worst=worst.difference,
                    worst_dataset=worst.dataset,
                    lower=sum(one.difference < -TIE for one in of_run),
                )
            )
    return rows


def parse_bar(text: str) -> Bar:
    """Reads `MEASURE < NUMBER`, `MEASURE < baseline`, `baseline - NUMBER` or `baseline + NUMBER`.

    A dataset's label, `in_domain` or `out_of_domain` may stand in front, with a colon. Raises InputError with an
    example, and for a bar that always or never holds.
    """
    form = _BAR.fullmatch(text)
    if form is None:
        raise InputError(
            f"--fail-if {text!r}: expected MEASURE < NUMBER or MEASURE < baseline - NUMBER, with a dataset in front "
            "or not, as in 'nDCG@10 < baseline - 0.01', 'scifact: nDCG@10 < 0.6' or 'out_of_domain: R@10 < baseline'"
        )
    (measure,) = parse_compared([form["measure"]])
    number = float(form["value"] or form["offset"] or 0)
    if number > 1 or (number == 1 and form["offset"]):
        raise InputError(f"--fail-if {text!r}: {number:g} is too large: measures are from 0 to 1, as in 0.01")
    return Bar(
        where=form["where"],
        measure=measure,
        number=-number if form["sign"] == "-" else number,
        of_baseline=form["baseline"] is not None,
        text=" ".join(text.split()),
    )


def misses(bar: Bar, compared: Compared) -> list[str]:
    """A sentence for every dataset and run that misses the bar.

    Raises InputError for a dataset of the bar that was not compared, or not by the bar's measure: it would pass unseen.
    """
    missed = []
    for run in compared.domains:
        of_run = [one for one in compared.comparisons if one.run == run]
        known = {one.dataset.casefold(): one.dataset for one in of_run}
        for label in known if bar.where is None else _labels(bar, run, compared):
            if label not in known:
                compared_on = ", ".join(known.values())
                raise InputError(f"--fail-if {bar.text!r}: {run} was not compared on {label}, but on {compared_on}")
            measures = {one.measure: one for one in of_run if one.dataset == known[label]}
            if bar.measure not in measures:
                message = unknown("measure", bar.measure, measures)
                raise InputError(f"--fail-if {bar.text!r}: on {known[label]}, {message}")
            missed += _missed(bar, measures[bar.measure])
    return missed


def _labels(bar: Bar, run: str, compared: Compared) -> list[str]:
    """The labels in lower case of the dataset or group that a bar names."""
    where = str(bar.where)
    group = re.sub(r"[\s-]", "_", where.casefold())
    if group not in _GROUPS:
        return [where.casefold()]
    domains = compared.domains[run]
    if not domains:
        datasets = ", ".join(dict.fromkeys(one.dataset for one in compared.comparisons))
        raise InputError(
            f"--fail-if {bar.text!r}: a recipe says what is {group}, and neither {run} nor {compared.baseline} is the "
            f"folder of a finished run; name a dataset instead ({datasets})"
        )
    labels = [label for label, domain in domains.items() if domain == _GROUPS[group]]
    if not labels:
        raise InputError(f"--fail-if {bar.text!r}: the recipe of {run} names no dataset in evaluate.{group}")
    return labels


def _missed(bar: Bar, one: Comparison) -> list[str]:
    bound = one.baseline + bar.number if bar.of_baseline else bar.number
    if one.value >= bound - TIE:
        return []
    digits = next((digits for digits in range(4, 9) if round(one.value, digits) != round(bound, digits)), 9)
    sign = "-" if bar.number < 0 else "+"
    by = f" (the baseline's {one.baseline:.{digits}f} {sign} {abs(bar.number):g})" if bar.of_baseline else ""
    return [f"{one.dataset}: {bar.measure} of {one.run} is {one.value:.{digits}f}, below {bound:.{digits}f}{by}"]
