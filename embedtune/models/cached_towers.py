"""The outputs of a composed model's towers while the towers are frozen, computed once for whole sets and cached."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..types import Item, Items, Role
from . import store
from .beside import Rows, brought, row_index
from .compose import TOWER, tower_output
from .encoder import Encoder
from .modules import weights_fingerprint
from .prepare import kind_of
from .prepared import Prepared, computed_in_blocks


class CachedTowers:
    """Prepares items as their tower's output; only the projection remains to be computed.

    Each set is computed in its own order, so the same sets give the same bits in every run, resumed or not. A set whose
    items are all in earlier sets is not computed again. Items of no set (made ones) are computed alone.
    """

    def __init__(
        self, encoder: Encoder, sets: Sequence[tuple[Items, Role]], *, on_progress: store.Progress | None = None
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
        prepared = []
        for item in items:
            row = self._rows.get(self._encoder.preparer.key(item, role))
            if row is None:
                (row,) = self._computed(self._encoder.preparer([item], role), lambda _: None, role)()
            tower = kind_of(item)[0]
            output = torch.from_numpy(np.array(row[: self._widths[tower]]))
            constant = (("modality", tower), ("task", role))
            prepared.append(Prepared(joined={"sentence_embedding": output[None]}, constant=constant))
        return prepared

    def _blocks(self, items: Items, role: Role) -> Iterator[store.Block]:
        prepare = partial(self._encoder.preparer, role=role)
        return computed_in_blocks(items, prepare, partial(self._computed, role=role))

    def _computed(self, items: Sequence[Prepared], on_done: Callable[[int], None], role: Role) -> Rows:
        """(n, the widest tower's width) of one block; a narrower tower's rows end in zeros."""
        encoder = self._encoder
        rows = torch.zeros(len(items), max(self._widths.values()), device=encoder.device)
        with encoder.at_rest():
            for chunk, output in encoder.by_chunk(items, partial(self._outputs, role)):
                rows[:, : output.shape[1]].index_copy_(0, row_index(chunk, encoder.device), output)
        on_done(len(items))
        return brought(rows)

    def _outputs(self, role: Role, items: list[Prepared]) -> Tensor:
        """(n, the tower's width) on the device."""
        return tower_output(self._encoder.model, self._encoder.features(items, role)).float()
