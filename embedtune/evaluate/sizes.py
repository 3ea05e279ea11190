"""Quality against bytes: one model's vectors at several sizes and precisions, each tested against the whole vectors.

Everything is encoded once. A cell is one way to store the documents' vectors; the reference stores all dimensions as
float32. Each cell's values of the first measure are compared with the reference's by query, and the p-values of all
cells of a dataset are adjusted together (Holm).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pydantic import TypeAdapter, ValidationError

from ..errors import InputError, unknown
from ..recipe.measures import parse
from ..search.storage import Quantize, Rescore, bytes_of, dimensions_of, refines
from ..types import Dataset
from .results import Evaluation, write
from .retrieval import Encoded, Retrieval, encode, evaluate_encoded
from .significance import holm, paired

if TYPE_CHECKING:
    from ..models.encoder import Encoder, Progress

SIZES, PLOT = "sizes.json", "sizes.svg"  # beside measures.json


@dataclass(frozen=True, kw_only=True)
class StoredAs:
    """One way to store a vector."""

    dimensions: int
    quantize: Quantize = "none"
    rescore: Rescore | None = None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One way to store vectors, and what it gives.

    bytes: of one vector that is searched. rescore_bytes: of the second one that candidates are scored with, else 0.
    measures: measure -> mean. values: those of the first measure, in the order of the queries. difference: the mean
    less the reference's, with its 95% interval, p-value, and that adjusted over all cells; None for the reference.
    """

    dimensions: int
    quantize: Quantize
    rescore: Rescore | None
    bytes: int
    rescore_bytes: int
    measures: dict[str, float]
    values: list[float] = field(repr=False)
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    holm: float | None = None


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The cells of one model on one dataset, the reference first. measure: the one that is tested."""

    measure: str
    query_ids: list[str] = field(repr=False)
    cells: list[Cell]


@dataclass(frozen=True, kw_only=True)
class AtSize:
    """A tuned model beside its base, both with vectors of so many dimensions in float32, by one measure.

    bytes: of one vector. difference: tuned - base, with its 95% interval and p-value. of_whole: what the tuned model's
    vectors lose by being cut: their mean less that of its whole vectors (0 for the whole ones).
    """

    dataset: str
    measure: str
    dimensions: int
    bytes: int
    base: float
    tuned: float
    difference: float
    low: float | None
    high: float | None
    p: float
    of_whole: float


def beside_base(dataset: str, base: Sizes, tuned: Sizes) -> list[AtSize]:
    """Both models at each size that both have, the largest first. Raises InputError where their queries differ."""
    rows = []
    before = {cell.dimensions: cell for cell in base.cells if cell.quantize == "none"}
    for cell in tuned.cells:
        other = before.get(cell.dimensions)
        if cell.quantize != "none" or other is None:
            continue
        test = paired(
            dict(zip(base.query_ids, other.values, strict=True)), dict(zip(tuned.query_ids, cell.values, strict=True))
        )
        rows.append(
            AtSize(
                dataset=dataset,
                measure=tuned.measure,
                dimensions=cell.dimensions,
                bytes=cell.bytes,
                base=test.baseline,
                tuned=test.value,
                difference=test.difference,
                low=test.low,
                high=test.high,
                p=test.p,
                of_whole=cell.difference or 0.0,
            )
        )
    return sorted(rows, key=lambda row: -row.dimensions)


def stored_ways(sizes: str | None, quantize: str, rescore: Rescore | None, whole: int) -> list[StoredAs]:
    """The cells that `--sizes 384,64 --quantize none,int8` names: each size at each precision.

    whole: the model's dimensions, the size where none is named. Raises InputError for a name or number that is none,
    one given twice, more dimensions than the model has, and a rescoring that reads no more than any precision holds.
    """
    named = [name.strip() for name in sizes.split(",")] if sizes is not None else [str(whole)]
    for name in named:
        if not (name.isascii() and name.isdigit()):
            raise InputError(f"--sizes {sizes}: expected numbers of dimensions, as in 384,128,64; got {name!r}")
    numbers = [dimensions_of("the model", whole, int(name)) for name in named]
    precisions = parse_quantize(quantize)
    for option, values in (("--sizes", numbers), ("--quantize", precisions)):
        if len(set(values)) < len(values):
            raise InputError(f"{option}: expected each value once, got {', '.join(map(str, values))}")
    if rescore is not None and not any(refines(rescore, precision) for precision in precisions):
        raise InputError(f"--rescore {rescore} has no effect with --quantize {quantize}: it holds no more")
    return [
        StoredAs(dimensions=n, quantize=precision, rescore=rescore if rescore and refines(rescore, precision) else None)
        for n in numbers
        for precision in precisions
    ]


def parse_quantize(names: str) -> list[Quantize]:
    """The precisions in `none,int8`. Raises InputError for one that is unknown."""
    known: tuple[Quantize, ...] = get_args(Quantize)
    precisions = []
    for name in names.split(","):
        if name.strip() not in known:
            raise InputError(f"--quantize: {unknown('precision', name.strip(), known)}")
        precisions += [precision for precision in known if precision == name.strip()]
    return precisions


def evaluate_sizes(
    encoder: Encoder,
    dataset: Dataset,
    wanted: Sequence[StoredAs],
    *,
    measures: Sequence[str],
    retrieval: Retrieval,
    output: Path | None = None,
    draw: Callable[[Mapping[str, Sizes]], str] | None = None,
    on_progress: Progress | None = None,
) -> tuple[Evaluation, Sizes]:
    """The evaluation of the whole vectors, and all cells. With an output, the evaluation's folder also holds the cells
    as sizes.json and, where `draw` makes one from label -> cells, their plot as sizes.svg."""
    names = parse(measures)
    encoded = encode(encoder, dataset, retrieval.calibrate, on_progress=on_progress)
    whole = replace(retrieval, truncate_dim=None, quantize="none", rescore=None, calibrate=None)
    evaluation = evaluate_encoded(encoder, dataset, encoded, names, whole)
    reference = StoredAs(dimensions=encoder.dimension)
    cells = [_cell(reference, evaluation)]
    for stored in wanted:
        if stored != reference:
            cells.append(_cell(stored, _evaluated(encoder, dataset, encoded, names, retrieval, stored)))
    sizes = Sizes(measure=names[0], query_ids=encoded.query_ids, cells=_tested(cells, encoded.query_ids))
    evaluation.files[SIZES] = json.dumps(asdict(sizes), indent=1) + "\n"
    if output is not None:
        if draw is not None:
            evaluation.files[PLOT] = draw({evaluation.label: sizes})
        write(evaluation, output)
    return evaluation, sizes


def _evaluated(
    encoder: Encoder, dataset: Dataset, encoded: Encoded, names: Sequence[str], retrieval: Retrieval, stored: StoredAs
) -> Evaluation:
    ranged = "int8" in (stored.quantize, stored.rescore)
    as_stored = replace(
        retrieval,
        truncate_dim=stored.dimensions,
        quantize=stored.quantize,
        rescore=stored.rescore,
        calibrate=retrieval.calibrate if ranged else None,
    )
    return evaluate_encoded(encoder, dataset, encoded, names, as_stored)


def _cell(stored: StoredAs, evaluation: Evaluation) -> Cell:
    return Cell(
        **vars(stored),
        bytes=bytes_of(stored.dimensions, stored.quantize),
        rescore_bytes=bytes_of(stored.dimensions, stored.rescore) if stored.rescore is not None else 0,
        measures=evaluation.measures,
        values=list(next(iter(evaluation.per_query.values())).values()),
    )


def _tested(cells: Sequence[Cell], query_ids: Sequence[str]) -> list[Cell]:
    """The cells with their tests against the first."""
    before = dict(zip(query_ids, cells[0].values, strict=True))
    tests = [paired(before, dict(zip(query_ids, cell.values, strict=True))) for cell in cells[1:]]
    adjusted = holm([test.p for test in tests])
    tested = [
        replace(cell, difference=test.difference, low=test.low, high=test.high, p=test.p, holm=p)
        for cell, test, p in zip(cells[1:], tests, adjusted, strict=True)
    ]
    return [cells[0], *tested]


def read_sizes(folder: Path) -> Sizes | None:
    """The cells that stand in an evaluation's folder, None without any. Raises InputError for a damaged file."""
    file = folder / SIZES
    if not file.is_file():
        return None
    try:
        return TypeAdapter(Sizes).validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{file}: damaged ({where}: {first['msg']}); evaluate again") from None
