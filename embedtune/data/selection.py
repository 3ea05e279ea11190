"""Some items of a set, as a set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..files import fingerprint_of
from ..types import Item, Items


class Selection:
    """The items with these ids, in this order; they are read through the original set."""

    def __init__(self, items: Items, ids: Sequence[str]) -> None:
        self._items, self._ids = items, list(ids)
        self._rows = {item_id: row for row, item_id in enumerate(self._ids)}
        self.fingerprint = fingerprint_of(items.fingerprint, *self._ids)

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._rows

    def __getitem__(self, item_id: str) -> Item:
        return self._items[self._ids[self._rows[item_id]]]

    def __iter__(self) -> Iterator[Item]:
        return (self._items[item_id] for item_id in self._ids)

    def row(self, item_id: str) -> int:
        return self._rows[item_id]
