"""How vectors are stored: their number of dimensions, their precision, and what rescoring reads.

| quantize | bytes for H dimensions | a stored number |
|---|---|---|
| none | 4 H | float32 |
| float16 | 2 H | float16 |
| int8 | H | one of 256 equal steps between the dimension's smallest and largest value in the calibration |
| binary | H / 8, rounded up | whether the value is above 0 |

The codes are those of sentence-transformers' `quantize_embeddings` (uint8, ubinary). Queries stay float32. float16 and
int8 vectors are read back as float32, an int8 code as the middle of its step, and scored with the query. Of binary
vectors the nearest by Hamming distance are found first, `CANDIDATES` or k if that is more; these are scored with the
query, a bit read as +1 or -1 over the root of H. `rescore` keeps a second vector of each document, int8 or float32,
which the last scoring of the candidates reads in place of the stored one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import InputError
from ..types import Items

Quantize = Literal["none", "float16", "int8", "binary"]
Rescore = Literal["int8", "float32"]

CANDIDATES = 1000  # documents of a query that are scored again; a larger k raises it
_BITS = {"none": 32, "float32": 32, "float16": 16, "int8": 8, "binary": 1}


@dataclass(frozen=True, kw_only=True)
class Storage:
    """What a user asks for. calibrate: the documents whose smallest and largest values int8 lies between, by default
    those that are stored."""

    truncate_dim: int | None = None
    quantize: Quantize = "none"
    rescore: Rescore | None = None
    calibrate: Items | None = None

    def __post_init__(self) -> None:
        """Raises InputError for options without effect."""
        if self.rescore is not None and not refines(self.rescore, self.quantize):
            raise InputError(
                f"--rescore {self.rescore} has no effect: vectors stored as {self.quantize} are scored as exactly "
                "without it; leave it out, or choose a smaller --quantize"
            )
        if self.calibrate is not None and "int8" not in (self.quantize, self.rescore):
            raise InputError("--calibrate has no effect: int8 alone has ranges; add --quantize int8 or --rescore int8")

    @property
    def protocol(self) -> dict[str, int | bool | str]:
        """What a result records of it, besides the dimensions; empty for float32."""
        recorded: dict[str, int | bool | str] = {}
        if self.quantize != "none":
            recorded["quantize"] = self.quantize
        if self.rescore is not None:
            recorded["rescore"] = self.rescore
        if self.calibrate is not None:
            recorded["calibration"] = self.calibrate.fingerprint[:12]
        return recorded


def refines(rescore: Rescore, quantize: Quantize) -> bool:
    """Whether a second vector tells more than the stored one."""
    return _BITS[rescore] > _BITS[quantize]


def bytes_of(dimension: int, quantize: Quantize | Rescore) -> int:
    """The bytes of one stored vector."""
    return -(-dimension * _BITS[quantize] // 8)


def dimensions_of(name: str, dimension: int, truncate_dim: int | None) -> int:
    """The number of dimensions to use of a model's. Raises InputError for more than it has."""
    if truncate_dim is not None and not 1 <= truncate_dim <= dimension:
        raise InputError(f"cannot truncate to {truncate_dim} dimensions: {name} has {dimension}")
    return truncate_dim or dimension
