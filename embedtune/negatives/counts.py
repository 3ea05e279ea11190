"""The counts of mined candidates, and the sentences that report them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations
from typing import Any

from .evidence import Evidence


@dataclass(kw_only=True)
class MiningReport:
    """Counts over all queries of a job.

    forbidden: retrieved documents that are positives, or have the text of a positive or of the query itself.
    asked: negatives that the sampling draws for a query. fewer: queries that keep fewer candidates than that.
    without: queries that keep none. emptied: those among them whose candidates were all dropped.
    dropped: filter -> candidates that this filter drops, whether or not others drop them too.
    at_odds: "A and B" -> queries where two filters keep nothing together, though each alone keeps some.
    unstarted: filters that learn in training, and therefore decide in the batches only.
    """

    queries: int = 0
    forbidden: int = 0
    candidates: int = 0
    kept: int = 0
    written: int = 0
    asked: int = 0
    fewer: int = 0
    without: int = 0
    emptied: int = 0
    first_without: str = ""
    sources: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    at_odds: Counter[str] = field(default_factory=Counter)
    unstarted: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, values: dict[str, Any]) -> MiningReport:
        """A report from its `vars`, read back from JSON."""
        counters = {name: Counter(values[name]) for name in ("sources", "dropped", "at_odds")}
        return cls(**{**values, **counters})

    def add(self, query_id: str, evidence: Sequence[Evidence], *, forbidden: int, written: int) -> None:
        """Adds one query."""
        kept = sum(candidate.keep for candidate in evidence)
        self.queries += 1
        self.forbidden += forbidden
        self.candidates += len(evidence)
        self.kept += kept
        self.written += written
        self.fewer += kept < self.asked
        self.without += kept == 0
        self.emptied += kept == 0 and len(evidence) > 0
        self.first_without = self.first_without or ("" if kept else query_id)
        verdicts = chain.from_iterable(candidate.filters for candidate in evidence)
        self.sources.update(candidate.source for candidate in evidence)
        self.dropped.update(verdict.name for verdict in verdicts if not verdict.keep)
        if not kept:
            self.at_odds.update(f"{one} and {other}" for one, other in at_odds(evidence))

    def sentences(self) -> list[str]:
        """What was kept, and what is missing."""
        dropped = "; ".join(f"{name} drops {count:,}" for name, count in self.dropped.items())
        first = f"{self.kept:,} of {self.candidates:,} candidates kept for {self.queries:,} queries"
        sentences = [f"{first} ({dropped})" if dropped else first]
        if self.fewer:
            sentences.append(f"{_queries(self.fewer)} fewer than the {self.asked} negatives that are asked for")
        if self.without:
            counts = {"all dropped": self.emptied, "no candidate": self.without - self.emptied}
            reasons = ", ".join(f"{reason}: {count:,}" for reason, count in counts.items() if count)
            first = self.first_without
            sentences.append(f"{_queries(self.without)} no negative ({reasons}), the first is {first}")
        if self.at_odds:
            sentences.append(self.contradiction())
        if self.unstarted:
            names = ", ".join(self.unstarted)
            sentences.append(f"{names}: learns in training, so it drops nothing here and decides in the batches only")
        return sentences

    def contradiction(self) -> str:
        """The pairs of filters that contradict each other, and for how many queries."""
        first, *others = [(pair, f"{count:,}") for pair, count in self.at_odds.most_common()]
        listed = [f"{first[0]} keep no candidate in common for {first[1]} of {self.queries:,} queries"]
        listed += [f"{pair} for {count}" for pair, count in others]
        return f"{', '.join(listed)}, though each filter alone keeps some"


def at_odds(evidence: Sequence[Evidence]) -> list[tuple[str, str]]:
    """The pairs of filters that keep none of one query's candidates together, though each alone keeps some."""
    kept: dict[str, set[int]] = {}
    for row, candidate in enumerate(evidence):
        for verdict in candidate.filters:
            kept.setdefault(verdict.name, set()).update([row] if verdict.keep else [])
    some = [(name, rows) for name, rows in kept.items() if rows]
    return [(one, other) for (one, first), (other, second) in combinations(some, 2) if not first & second]


def _queries(count: int) -> str:
    return "1 query has" if count == 1 else f"{count:,} queries have"
