"""What a run gained and cost, as rows with every digit, as tables for people, and in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..evaluate.compare import Comparison
from ..evaluate.guarded import HALF, Guarded
from ..evaluate.significance import paired
from .record import RunRecord, read_record
from .wording import difference_with_interval, model_name, plural, rounded, rounded_difference

CONFIDENT = 0.05
MOST_NAMED = 3  # datasets in one sentence


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The tuned model against the untouched one on one dataset by one measure, or on a slice of its queries.

    untouched, tuned, bm25: means over the queries; bm25 is None where it was not measured. low, high: the 95% interval
    of the difference. verdict: better, worse or unclear, by the test with Holm's correction, and for a slice or a
    number of dimensions by its interval; means where there is no test. guard: within budget, over budget, or None for
    a set that is not guarded. dimensions: of the embeddings, None for all. chosen_on: the queries that chose alpha,
    which do not report. base, base_difference, base_low, base_high: where the untouched model is an earlier run's, the
    model that this one came from, and the tuned model against it.
    """

    dataset: str
    domain: str
    measure: str
    slice: str | None = None
    dimensions: int | None = None
    queries: int | None
    bm25: float | None = None
    untouched: float
    tuned: float
    difference: float
    low: float | None
    high: float | None
    p_holm: float | None = None
    verdict: str
    guard: str | None = None
    alpha: float | None = None
    chosen_on: str | None = None
    base: float | None = None
    base_difference: float | None = None
    base_low: float | None = None
    base_high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table, and a sentence that belongs below it."""

    title: str
    columns: list[str]
    rows: list[list[object]]
    note: str | None = None


def outcomes(record: RunRecord) -> list[Outcome]:
    """Every dataset by every measure, in the recipe's order."""
    return [_outcome(record, comparison) for comparison in (record.compared.comparisons if record.compared else [])]


def sizes(record: RunRecord) -> list[Outcome]:
    """Every dataset at each number of dimensions that the run was trained for, by the recipe's measure."""
    queries = {one.dataset.casefold(): one.queries for one in record.main}
    return [
        Outcome(
            dataset=one.dataset,
            domain=record.domain(one.dataset),
            measure=one.measure,
            dimensions=one.dimensions,
            queries=queries.get(one.dataset.casefold()),
            untouched=one.base,
            tuned=one.tuned,
            difference=one.difference,
            low=one.low,
            high=one.high,
            verdict=_by_interval(one.low, one.high),
        )
        for one in record.sizes
    ]


def slices(record: RunRecord) -> list[Outcome]:
    """Every slice of every dataset's queries, by the recipe's measure."""
    rows = []
    for comparison in record.main:
        key, measure = comparison.dataset.casefold(), comparison.measure
        base, tuned = record.base[key], record.tuned[key]
        if base.per_query is None or tuned.per_query is None:
            continue
        bm25 = record.bm25[key].values(measure) if key in record.bm25 else {}
        for name, query_ids in sorted(tuned.slices.items()):
            shared = [query_id for query_id in query_ids if query_id in base.per_query[measure]]
            values = [{q: part.values(measure)[q] for q in shared} for part in (base, tuned)]
            pair = paired(*values)
            words = [bm25[query_id] for query_id in shared if query_id in bm25]
            rows.append(
                Outcome(
                    dataset=comparison.dataset,
                    domain=record.domain(comparison.dataset),
                    measure=measure,
                    slice=name,
                    queries=pair.queries,
                    bm25=sum(words) / len(words) if len(words) == len(shared) else None,
                    untouched=pair.baseline,
                    tuned=pair.value,
                    difference=pair.difference,
                    low=pair.low,
                    high=pair.high,
                    verdict=_by_interval(pair.low, pair.high),
                )
            )
    return rows


def _outcome(record: RunRecord, c: Comparison) -> Outcome:
    bm25 = record.bm25.get(c.dataset.casefold())
    guarded, guard, alpha = record.guarded(c.dataset), None, None
    if record.guard and guarded and c.measure == record.guard.measure:
        guard, alpha = "over budget" if guarded.missed else "within budget", record.guard.chosen
    return Outcome(
        dataset=c.dataset,
        domain=record.domain(c.dataset),
        measure=c.measure,
        queries=c.queries,
        bm25=bm25.measures.get(c.measure) if bm25 is not None else None,
        untouched=c.baseline,
        tuned=c.value,
        difference=c.difference,
        low=c.low,
        high=c.high,
        p_holm=c.holm,
        verdict=_verdict(c),
        guard=guard,
        alpha=alpha,
        chosen_on=guarded.chosen_on if guarded else None,
        **_against_base(record, c.dataset, c.measure),
    )


def _against_base(record: RunRecord, dataset: str, measure: str) -> dict[str, Any]:
    """The fields about the model that the untouched one came from; none where it was not measured."""
    origin, tuned = record.origin.get(dataset.casefold()), record.tuned[dataset.casefold()]
    if origin is None or measure not in origin.measures:
        return {}
    means = {"base": origin.measures[measure], "base_difference": tuned.measures[measure] - origin.measures[measure]}
    if origin.per_query is None or tuned.per_query is None:
        return means
    pair = paired(origin.values(measure), tuned.values(measure))
    return {**means, "base_low": pair.low, "base_high": pair.high}


def _verdict(c: Comparison) -> str:
    if c.holm is None:
        return "means"
    return "unclear" if c.holm >= CONFIDENT else "better" if c.difference > 0 else "worse"


def _by_interval(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "unclear"
    return "better" if low > 0 else "worse" if high < 0 else "unclear"


def as_json(record: RunRecord) -> dict[str, Any]:
    """The whole outcome with every digit."""
    return {
        "sentences": sentences(record),
        "outcome": [asdict(one) for one in outcomes(record)],
        "slices": [asdict(one) for one in slices(record)],
        "sizes": [asdict(one) for one in sizes(record)],
        "guard": asdict(record.guard) if record.guard else None,
        "lineage": record.lineage and {**record.lineage, **(record.summary.get("succession") or {})},
    }


def outcome_of(run: Path) -> dict[str, Any]:
    """The outcome of a run folder, as `as_json` gives it."""
    return as_json(read_record(run, negatives=False))


def tables(record: RunRecord, *, others: bool = True) -> list[Table]:
    """The tables that end a run, rounded for people: each domain by the recipe's measure, the guard's verdict in words,
    slices, sizes, and the other measures (others)."""
    rows, measure = outcomes(record), record.measure
    main = [one for one in rows if one.measure == measure]
    domains = dict.fromkeys(one.domain for one in main)
    before = "untouched" if record.lineage is None else "deployed"
    made = [_table(f"{measure} {domain}", [one for one in main if one.domain == domain], before) for domain in domains]
    if record.guard and made:
        made[-1] = replace(made[-1], note=guard_sentence(record.guard))
    beside = {
        (f"{measure} by slices of the queries", "slice"): slices(record),
        (f"{measure} with fewer dimensions", "dimensions"): sizes(record),
        ("Other measures", "measure"): [one for one in rows if others and one.measure != measure],
    }
    return made + [_table(title, listed, before, key) for (title, key), listed in beside.items() if listed]


def plain_tables(record: RunRecord) -> list[Table]:
    """The same for programs: every field in a column of its own, unrounded."""
    note = guard_sentence(record.guard) if record.guard else None
    made = []
    for title, rows in {"Outcome": outcomes(record), "Slices": slices(record), "Sizes": sizes(record)}.items():
        lines = [asdict(one) for one in rows]
        columns = [name for name in (lines[0] if lines else ()) if any(line[name] is not None for line in lines)]
        if lines:
            made.append(Table(title=title, columns=columns, rows=[[line[name] for name in columns] for line in lines]))
    return [replace(made[0], note=note), *made[1:]] if made else []


def _table(title: str, rows: Sequence[Outcome], before: str, key: str = "dataset") -> Table:
    """before: what the model is called that was trained further. key: the column beside the dataset, if it is another
    one."""
    with_bm25, with_base = (any(getattr(one, name) is not None for one in rows) for name in ("bm25", "base"))
    columns = ["dataset", *([key] if key != "dataset" else []), "queries", *(["BM25"] if with_bm25 else []),
               *(["base"] if with_base else []), before, "tuned", "difference [95% interval]", "verdict",
               *(["against base [95% interval]"] if with_base and key == "dataset" else [])]  # fmt: skip
    lines: list[list[object]] = []
    for one in rows:
        beside = [] if key == "dataset" else [getattr(one, key)]
        bm25 = [rounded(one.bm25)] if with_bm25 else []
        base = [rounded(one.base)] if with_base else []
        values = [one.queries, *bm25, *base, rounded(one.untouched), rounded(one.tuned)]
        change = one.base_difference
        against = "" if change is None else difference_with_interval(change, one.base_low, one.base_high)
        lines.append([one.dataset, *beside, *values, with_interval(one), one.verdict, against][: len(columns)])
    return Table(title=title, columns=columns, rows=lines)


def with_interval(one: Outcome) -> str:
    return difference_with_interval(one.difference, one.low, one.high)


def sentences(record: RunRecord) -> list[str]:
    """Three sentences for somebody who decides: what is better, how sure that is, and what it cost elsewhere.

    Empty where the run has no comparison by the recipe's measure.
    """
    rows = [one for one in outcomes(record) if one.measure == record.measure]
    inside, elsewhere = ([one for one in rows if (one.domain == "out of domain") is out] for out in (False, True))
    if not rows:
        return []
    return [_gain(record, inside), _certainty(inside or elsewhere), _cost(record, elsewhere)]


def _gain(record: RunRecord, rows: Sequence[Outcome]) -> str:
    name = model_name(record.recipe["model"])
    if not rows:
        return "Not known is what tuning gained: the recipe names no dataset in evaluate.in_domain."
    better = [one for one in rows if one.verdict == "better"]
    worse = [one for one in rows if one.verdict == "worse"]
    if record.summary.get("untouched"):
        return f"Tuning brought nothing: the model is {name} as it was before."
    shown = better or worse or rows
    verb = "finds more than before" if better else "finds less than before" if worse else "is not shown to find more"
    listed = "; ".join(_values(one) for one in shown[:MOST_NAMED])
    rest = f"; and on {plural(len(shown) - MOST_NAMED, 'other dataset')}" if len(shown) > MOST_NAMED else ""
    also = f" On {_names(worse)} it finds less." if better and worse else ""
    return f"{name}, tuned, {verb}: {listed}{rest}.{also}"


def _values(one: Outcome) -> str:
    bm25 = f", and BM25, which needs no model, has {rounded(one.bm25)}" if one.bm25 is not None else ""
    return f"{one.measure} on {one.dataset} went from {rounded(one.untouched)} to {rounded(one.tuned)}{bm25}"


def _certainty(rows: Sequence[Outcome]) -> str:
    one = max(rows, key=lambda row: abs(row.difference))
    if one.queries is None or one.low is None:
        return f"How sure this is cannot be said: there are means alone of {one.dataset}."
    span = f"{rounded_difference(one.low)} to {rounded_difference(one.high)}"
    over = f"over {plural(one.queries, 'query')} of {one.dataset}"
    if one.verdict == "unclear":
        return f"That is no more than chance could do: {over} the change is {span} with 95% confidence."
    return f"That is more than chance: {over} the change is {span} with 95% confidence, for one training."


def _cost(record: RunRecord, rows: Sequence[Outcome]) -> str:
    if not rows:
        return "Not known is what it cost elsewhere: the recipe names no dataset in evaluate.out_of_domain."
    worse = [one for one in rows if one.verdict == "worse"]
    if worse:
        lost = "; ".join(f"{one.dataset} {with_interval(one)}" for one in worse[:MOST_NAMED])
        rest = f", and {plural(len(worse) - MOST_NAMED, 'other dataset')}" if len(worse) > MOST_NAMED else ""
        text = f"It cost something elsewhere: {lost}{rest}"
    else:
        changes = "; ".join(f"{one.dataset} {with_interval(one)}" for one in rows[:MOST_NAMED])
        text = f"No loss is shown elsewhere: {changes}"
    return f"{text}.{' ' + guard_sentence(record.guard) if record.guard else ''}"


def _names(rows: Sequence[Outcome]) -> str:
    return ", ".join(one.dataset for one in rows)


def guard_sentence(guard: Guarded) -> str:
    """The guard's verdict and its alpha in words."""
    over = [one.label for one in guard.sets if one.missed]
    budget = f"a drop of at most {guard.largest_drop:g} {guard.measure}"
    verdict = f"The guard's budget ({budget}) is " + (f"missed on {', '.join(over)}" if over else "kept")
    if guard.chosen is None:
        return f"{verdict}; nothing was mixed."
    mixed = {0.0: "the untouched model's weights", 1.0: "the tuned weights, unmixed"}.get(
        guard.chosen, f"{guard.chosen:.0%} tuned and {1 - guard.chosen:.0%} untouched weights"
    )
    halves = any(one.chosen_on == HALF for one in guard.sets)
    reports = "; measured on the half of each set's queries that did not choose it" if halves else ""
    return f"{verdict} with alpha {guard.chosen:g}: {mixed}{reports}."
