"""Exact search beside faiss.IndexFlatIP: random unit vectors, the same arrays and threads, by turns in one process.

    OMP_NUM_THREADS=2 python tests/benchmarks/exact_search.py --documents 500000 --queries 10000
        [--k 10 100]         how many documents each query finds
        [--dimensions 384]
        [--alternations 3]   each times faiss and then embedtune
        [--json FILE]        every number, with the machine

Ratios are faiss / embedtune within an alternation: above 1, embedtune takes less. Both find the same documents, except
where their scores are equal but for rounding; anything else ends the benchmark with an error.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from measuring import Timing, environment, timed

ROUNDING = 2e-6  # of an inner product of two unit vectors in float32
COLUMNS = ["k", "faiss s", "embedtune s", "faiss CPU s", "embedtune CPU s", "ratio s", "ratio CPU", "same"]


def unit_vectors(count: int, dimensions: int, seed: int) -> Any:
    rows = np.random.default_rng(seed).standard_normal((count, dimensions), dtype=np.float32)
    for start in range(0, count, 65536):
        block = rows[start : start + 65536]
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return rows


def compare(ours: tuple[Any, Any], theirs: tuple[Any, Any], queries: Any, documents: Any) -> float:
    """The share of results with the same document. Raises SystemExit where scores explain no difference."""
    (scores, rows), (others, other_rows) = ours, theirs
    at, rank = np.nonzero(rows != other_rows)
    apart = np.abs(scores[at, rank] - (queries[at] * documents[other_rows[at, rank]]).sum(axis=1))
    if np.abs(scores - others).max(initial=0) > ROUNDING or apart.max(initial=0) > ROUNDING:
        raise SystemExit("exact_search: embedtune and faiss find different documents")
    return 1 - len(at) / max(1, rows.size)


def measured(documents: int, queries: int, dimensions: int, alternations: int, ks: list[int]) -> list[dict[str, Any]]:
    """Times of both sides, by k and alternation."""
    import faiss
    import torch

    from embedtune.search.exact import exact_search
    from embedtune_cli.output import say

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(dimensions)
    index.add(unit_vectors(documents, dimensions, 0))
    stored = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d)
    asked, rows = unit_vectors(queries, dimensions, 1), []
    for k in ks:
        for number in range(alternations):
            with timed() as of_faiss:
                theirs = index.search(asked, k)
            with timed() as of_ours:
                ours = exact_search(asked, stored, k)
            same = compare(ours, theirs, asked, stored)
            say(f"k {k}, {number + 1}: faiss {of_faiss.seconds:.1f} s, embedtune {of_ours.seconds:.1f} s")
            rows.append({"k": k, "faiss": asdict(of_faiss), "embedtune": asdict(of_ours), "same": same})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("documents", 20_000), ("queries", 500), ("dimensions", 384), ("alternations", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--k", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    settings = {name: value for name, value in vars(arguments).items() if name != "json"}
    sizes = {name: value for name, value in settings.items() if name != "k"}
    rows = measured(**sizes, ks=arguments.k)

    from embedtune.files import write_json
    from embedtune_cli.output import show_table

    if arguments.json:
        write_json(arguments.json, {"environment": environment(), "settings": settings, "rows": rows})
    show_table(COLUMNS, [row_of(k, [row for row in rows if row["k"] == k]) for k in arguments.k], as_json=False)


def row_of(k: int, rows: list[dict[str, Any]]) -> list[Any]:
    """Medians over the alternations."""
    of_faiss, of_ours = ([Timing(**row[side]) for row in rows] for side in ("faiss", "embedtune"))
    cells = [
        median(getattr(one, name) for one in side)
        for name in ("seconds", "cpu_seconds")
        for side in (of_faiss, of_ours)
    ]
    for name in ("seconds", "cpu_seconds"):
        cells.append(median(getattr(a, name) / getattr(b, name) for a, b in zip(of_faiss, of_ours, strict=True)))
    return [k, *(round(cell, 2) for cell in cells), round(min(row["same"] for row in rows), 6)]


if __name__ == "__main__":
    main()
