"""What a mining came to: counts, and the sentences that a person reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations
from typing import Any

from .evidence import Evidence


@dataclass(frozen=True)
class Found:
    """One query's candidates. by_place: their mined scores come from several sources and cannot be compared."""

    query_id: str
    evidence: list[Evidence]
    forbidden: int
    by_place: bool


@dataclass(kw_only=True)
class Report:
    """What a mining came to. dropped: filter -> candidates that it would drop, whatever the others say."""

    queries: int = 0
    forbidden: int = 0  # positives, and what reads like them or like the query
    candidates: int = 0
    kept: int = 0
    written: int = 0
    asked: int = 0  # a query, by the sampling
    fewer: int = 0  # queries with less than that
    without: int = 0  # queries with no negative at all
    emptied: int = 0  # of those, queries whose every candidate was dropped
    first_without: str = ""
    sources: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    # "these and those" -> queries for which two filters keep nothing together, though each alone keeps some
    at_odds: Counter[str] = field(default_factory=Counter)
    unstarted: list[str] = field(default_factory=list)  # filters that decide in training only

    @classmethod
    def of(cls, values: dict[str, Any]) -> Report:
        """From what `vars` gave, when it has been JSON since."""
        counters = {name: Counter(values[name]) for name in ("sources", "dropped", "at_odds")}
        return cls(**{**values, **counters})

    def add(self, found: Found, written: int) -> None:
        """One query's part."""
        kept = sum(candidate.keep for candidate in found.evidence)
        self.queries += 1
        self.forbidden += found.forbidden
        self.candidates += len(found.evidence)
        self.kept += kept
        self.written += written
        self.fewer += kept < self.asked
        self.without += kept == 0
        self.emptied += kept == 0 and len(found.evidence) > 0
        self.first_without = self.first_without or ("" if kept else found.query_id)
        verdicts = chain.from_iterable(candidate.filters for candidate in found.evidence)
        self.sources.update(candidate.source for candidate in found.evidence)
        self.dropped.update(verdict.name for verdict in verdicts if not verdict.keep)
        if not kept:
            self.at_odds.update(f"{one} and {other}" for one, other in at_odds(found.evidence))

    def sentences(self) -> list[str]:
        """For a person who watches: what there is, and what falls short."""
        dropped = "; ".join(f"{name} drops {count:,}" for name, count in self.dropped.items())
        said = [f"{self.kept:,} of {self.candidates:,} candidates kept for {self.queries:,} queries"]
        if dropped:
            said[0] += f" ({dropped})"
        if self.fewer:
            said.append(f"{self.fewer:,} queries have fewer than the {self.asked} negatives asked for; none is made up")
        if self.without:
            how = f"{self.emptied:,} because every candidate was dropped" if self.emptied else "nothing was found"
            said.append(f"{self.without:,} queries have no negative of their own ({how}), first {self.first_without!r}")
        if self.at_odds:
            said.append(self.contradiction())
        if self.unstarted:
            said.append(f"{', '.join(self.unstarted)}: learns while training, so it decides in the batches only")
        return said

    def contradiction(self) -> str:
        """Which two filters contradict each other, and how often."""
        first, *others = [(pair, f"{count:,}") for pair, count in self.at_odds.most_common()]
        listed = [f"{first[0]} keep nothing together for {first[1]} of {self.queries:,} queries"]
        listed += [f"{pair} for {count}" for pair, count in others]
        return f"{', '.join(listed)}, though each keeps some"


def at_odds(evidence: Sequence[Evidence]) -> list[tuple[str, str]]:
    """The pairs of filters that keep none of one query's candidates together, though each alone keeps some."""
    kept: dict[str, set[int]] = {}
    for place, candidate in enumerate(evidence):
        for verdict in candidate.filters:
            kept.setdefault(verdict.name, set()).update([place] if verdict.keep else [])
    some = [(name, places) for name, places in kept.items() if places]
    return [(one, other) for (one, these), (other, those) in combinations(some, 2) if not these & those]
