"""What another form of a model costs: its cosine to the model, nDCG@10, size and speed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..evaluate.retrieval import evaluate
from ..models.encoder import Encoder
from ..types import Dataset, Item

MEASURE = "nDCG@10"
TEXTS = 300
LONGEST = 512  # words; of a model of long texts the first 512 tokens tell as much, in minutes
BATCHES = (1, 2, 7, 32)  # texts at once


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One form of a model beside the model in float32.

    form: the file and its number format. bytes: of the files that hold the weights. lowest, mean: cosine to the model's
    own embeddings over TEXTS texts; None for the model itself. texts_per_second: of these texts, batches of mixed
    lengths, on this machine. values: dataset -> nDCG@10.
    """

    form: str
    bytes: int
    lowest: float | None
    mean: float | None
    texts_per_second: float
    values: Mapping[str, float]


def sample_items(longest: int | None) -> list[Item]:
    """English texts of all lengths, from one word to about the model's longest: parts of Python's own documentation."""
    from pydoc_data.topics import topics

    words = " ".join(topics[name] for name in sorted(topics)).split()
    counts = np.linspace(1, min(longest or LONGEST, LONGEST), TEXTS).astype(int)
    starts = [151 * number % (len(words) - LONGEST) for number in range(TEXTS)]
    texts = [" ".join(words[start : start + count]) for start, count in zip(starts, counts, strict=True)]
    return [Item(id=str(number), text=text) for number, text in enumerate(texts)]


def sample_pictures(folder: Path, count: int) -> list[Item]:
    """Pictures of noise, written into the folder, for a model that reads no text."""
    from PIL import Image

    generator, items = np.random.default_rng(0), []
    for number in range(count):
        file = folder / f"{number}.png"
        Image.fromarray(generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file)
        items.append(Item(id=str(number), image=file))
    return items


class Costs:
    """Measures forms of one model. Its own embeddings are computed once."""

    def __init__(self, model: Encoder, data: Sequence[Dataset]) -> None:
        self._items, self._data = sample_items(model.max_length), data
        self._vectors, self._seconds = _vectors(model, self._items)
        self._model = model

    def of_model(self) -> Cost:
        """Of the model itself, in float32."""
        size = 4 * sum(tensor.numel() for tensor in self._model.model.state_dict().values())
        return self._cost("model, float32", size, self._model, None, self._seconds)

    def of(self, form: str, files: Sequence[Path], other: Encoder) -> Cost:
        """other: computes the embeddings of that form."""
        vectors, seconds = _vectors(other, self._items)
        size = sum(file.stat().st_size for file in files)
        return self._cost(form, size, other, _cosines(vectors, self._vectors), seconds)

    def _cost(
        self,
        form: str,
        size: int,
        encoder: Encoder,
        cosines: npt.NDArray[np.float64] | None,
        seconds: float,
    ) -> Cost:
        return Cost(
            form=form,
            bytes=size,
            lowest=None if cosines is None else float(cosines.min()),
            mean=None if cosines is None else float(cosines.mean()),
            texts_per_second=len(self._items) / seconds,
            values={each.label: evaluate(encoder, each, measures=[MEASURE]).measures[MEASURE] for each in self._data},
        )


def _vectors(encoder: Encoder, items: Sequence[Item]) -> tuple[npt.NDArray[np.float32], float]:
    """(n, H) document embeddings, encoded in batches of texts of mixed lengths, and the seconds that it took."""
    prepared = encoder.prepare(items, "document")
    rows = np.empty((len(items), encoder.dimension), dtype=np.float32)
    order = np.random.default_rng(0).permutation(len(items))
    start = number = 0
    began = time.perf_counter()
    with encoder.at_rest():
        while start < len(items):
            batch = order[start : start + BATCHES[number % len(BATCHES)]]
            rows[batch] = encoder.forward([prepared[row] for row in batch], "document").float().cpu().numpy()
            start, number = start + len(batch), number + 1
    return rows, time.perf_counter() - began


def _cosines(vectors: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(n,), of rows (n, H); NaN for a row without a length or with numbers that are not finite."""
    one, two = vectors.astype(np.float64), others.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
        return np.asarray((one * two).sum(axis=1) / lengths)
