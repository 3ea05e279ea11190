"""What a composed model's towers give while they are frozen: computed once for whole sets, kept on disk by content."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from ..types import Item, Items, Role
from . import store
from .compose import TOWER, tower_output
from .prepare import kind_of
from .prepared import Prepared, chunks, computed_in_blocks
from .shared import Block
from .weights import weights_fingerprint

if TYPE_CHECKING:
    from .encoder import Encoder, Progress


class FrozenTowers:
    """Prepares items as their tower's output, of which only the projection is left to be computed.

    Every set is computed in its own order, so the same sets give the same bits in every run, resumed or not; one whose
    items are all in sets before it is not computed. Items of no set (made ones) are computed alone.
    """

    def __init__(
        self, encoder: Encoder, sets: Sequence[tuple[Items, Role]], *, on_progress: Progress | None = None
    ) -> None:
        self._encoder = encoder
        routes = encoder.model[0].sub_modules
        self._widths = {name: int(route[TOWER - 1].get_embedding_dimension()) for name, route in routes.items()}
        towers = torch.nn.ModuleDict({name: torch.nn.ModuleList(route[:TOWER]) for name, route in routes.items()})
        fingerprint = encoder.fingerprint_of(weights_fingerprint(towers), encoder.preparer.processing)
        self._rows: dict[Hashable, npt.NDArray[np.float32]] = {}
        for items, role in sets:
            keys = [encoder.preparer.key(item, role) for item in items]
            if all(key in self._rows for key in keys):
                continue
            stored = store.Key(encoder=fingerprint, role=role, items=items.fingerprint, count=len(items))
            shape = (len(items), max(self._widths.values()))
            rows = store.cached(stored, shape, partial(self._blocks, items, role), on_progress)
            self._rows.update(zip(keys, rows, strict=True))

    def __call__(self, items: Sequence[Item], role: Role) -> list[Prepared]:
        found = []
        for item in items:
            row = self._rows.get(self._encoder.preparer.key(item, role))
            if row is None:
                (row,) = self._computed([item], role, lambda _: None)
            name = kind_of(item)[0]
            output = torch.from_numpy(np.array(row[: self._widths[name]]))
            constant = (("modality", name), ("task", role))
            found.append(Prepared(joined={"sentence_embedding": output[None]}, constant=constant))
        return found

    def _blocks(self, items: Items, role: Role) -> Iterator[Block]:
        return computed_in_blocks(items, lambda some, on_done: self._computed(some, role, on_done))

    def _computed(self, items: Sequence[Item], role: Role, on_done: Callable[[int], None]) -> npt.NDArray[np.float32]:
        """(n, the widest tower's width) of one block, zeros behind a narrower tower's."""
        rows = np.zeros((len(items), max(self._widths.values())), dtype=np.float32)
        self._fill(rows, items, role)
        on_done(len(items))
        return rows

    def _fill(self, rows: npt.NDArray[np.float32], items: Sequence[Item], role: Role) -> None:
        with self._encoder.at_rest():
            prepared = self._encoder.preparer(items, role)
            for chunk in chunks(prepared, self._encoder.tokens_at_once):
                features = self._encoder.features([prepared[row] for row in chunk], role)
                output = tower_output(self._encoder.model, features).float().cpu().numpy()
                rows[chunk, : output.shape[1]] = output
