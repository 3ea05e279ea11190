"""How indexing and searching grow with the number of documents: random unit vectors, embedtune's own functions.

    python tests/benchmarks/scale.py [--documents 5000 50000 500000] [--kinds exact hnsw ivfpq] [--dimensions 384]
        [--intrinsic 32]     the vectors lie near a subspace of so many dimensions, as real embeddings do; absent: none
        [--limit 3600]       seconds after which a measurement is stopped
        [--json FILE]        every number, with the machine

Each measurement is a process of its own. `build` is `embedtune index` without the encoding: build_index.build on a
corpus whose embeddings are there already; its recall@10 is against exact search, over 1,000 queries. `search` opens the
index memory-mapped and asks 1,000 queries at once, then 100 one by one. `mine` is exact search as mining does it: 1,000
queries, the best 100, over embeddings that stay on disk.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from measuring import HERE, Failed, Timing, environment, measure, peak_memory_mib, timed

QUERIES, ALONE, DEPTH = 1000, 100, 100
COLUMNS = ["documents", "kind", "build s", "build CPU s", "build MiB", "index MiB", "bytes/vector", "search ms/query",
           "search CPU ms/query", "one query ms", "search MiB", "recall@10"]  # fmt: skip


class Given:
    """Stands for an encoder: the embeddings are there, and an item's id is its row."""

    name = identity = document_identity = "random unit vectors"
    max_length, similarity, passages, device = None, "cosine", None, "cpu"

    def __init__(self, folder: Path) -> None:
        self._rows = {role: np.load(folder / f"{role}.npy", mmap_mode="r") for role in ("query", "document")}
        self.dimension = self._rows["document"].shape[1]

    def prompt(self, role: str) -> None:
        return None

    def split(self, corpus: Any) -> Any:
        return corpus

    def encode(self, items: Any, role: str, *, on_progress: Any = None) -> Any:
        if role == "document":
            return self._rows[role]
        return self._rows[role][[int(item.id) for item in items]]


def make(folder: Path, documents: int, dimensions: int, intrinsic: int | None) -> dict[str, Any]:
    """Vectors as .npy files, and a corpus and queries with their rows as ids."""
    generator = np.random.default_rng(0)
    basis = generator.standard_normal((intrinsic, dimensions)) if intrinsic else None
    for role, count in (("document", documents), ("query", QUERIES)):
        rows = np.lib.format.open_memmap(folder / f"{role}.npy", mode="w+", dtype=np.float32, shape=(count, dimensions))
        for start in range(0, count, 65536):
            block = rows[start : start + 65536]
            drawn = generator.standard_normal(block.shape)
            if basis is not None:  # a tenth of the length is noise in all dimensions
                inside = generator.standard_normal((len(block), len(basis))) @ basis
                drawn = inside / np.linalg.norm(inside, axis=1, keepdims=True) + 0.1 * drawn / dimensions**0.5
            block[:] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        with (folder / ("corpus.jsonl" if role == "document" else "queries.jsonl")).open("w") as file:
            file.writelines(f'{{"_id": "{row}", "text": "item {row}"}}\n' for row in range(count))
    return {}


def build(folder: Path, kind: str) -> dict[str, Any]:
    from unittest import mock

    from embedtune.search import build as build_index
    from embedtune.search import faiss_kinds as nearest

    source = build_index.read_source(str(folder))
    of_faiss, built = nearest.build, {}

    def building(*arguments: Any) -> Any:
        with timed() as timing:
            index = of_faiss(*arguments)
        built.update(asdict(timing), memory_mib=peak_memory_mib())
        return index

    encoder: Any = Given(folder)
    with mock.patch.object(nearest, "build", building), timed() as whole:
        manifest = build_index.build(encoder, source, folder / kind, kind=kind, overwrite=True)
    size = (folder / kind / "index.faiss").stat().st_size
    return {**built, "whole": asdict(whole), "parameters": manifest.parameters, "recall": manifest.recall,
            "index_mib": size / 2**20, "bytes_per_vector": size / len(source.documents)}  # fmt: skip


def search(folder: Path, kind: str) -> dict[str, Any]:
    from embedtune.data.jsonl import JsonLines
    from embedtune.search.folder import open_index

    encoder: Any = Given(folder)
    queries = JsonLines(folder / "queries.jsonl")
    with timed() as opened:
        index = open_index(folder / kind)
    index.search(encoder, [queries["0"]], 10)  # reads the pages that every query needs
    with timed() as together:
        index.search(encoder, queries, 10)
    with timed() as alone:
        for row in range(ALONE):
            index.search(encoder, [queries[str(row)]], 10)
    return {"open": asdict(opened), "together": asdict(together), "alone": asdict(alone),
            **_for_each(together), "ms_alone": 1000 * alone.seconds / ALONE,
            "memory_mib": peak_memory_mib()}  # fmt: skip


def mine(folder: Path, kind: str) -> dict[str, Any]:
    from embedtune.search.exact import exact_search, tie_order

    encoder = Given(folder)
    documents, queries = encoder.encode(None, "document"), np.load(folder / "query.npy")
    order = tie_order([str(row) for row in range(len(documents))])
    with timed() as timing:
        exact_search(queries, documents, DEPTH, similarity="cosine", tie_order=order)
    return {**asdict(timing), **_for_each(timing), "memory_mib": peak_memory_mib()}


def _for_each(timing: Timing) -> dict[str, float]:
    ms = 1000 / QUERIES
    return {"ms_per_query": ms * timing.seconds, "cpu_ms_per_query": ms * timing.cpu_seconds}


STEPS = {"build": build, "search": search, "mine": mine}


def main() -> None:
    arguments = read_arguments()
    if arguments.step:
        folder, kind = arguments.of
        print(json.dumps(STEPS[arguments.step](Path(folder), kind)))
        return
    from embedtune.files import write_json
    from embedtune_cli.output import say, show_table

    rows: list[dict[str, Any]] = []
    for documents in arguments.documents:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
            make(Path(name), documents, arguments.dimensions, arguments.intrinsic)
            for kind in [*arguments.kinds, "mine"]:
                say(f"{documents:,} documents: {kind}")
                rows.append({"documents": documents, "kind": kind, **_measured(Path(name), kind, arguments.limit)})
                if arguments.json:
                    settings = {"dimensions": arguments.dimensions, "intrinsic": arguments.intrinsic}
                    write_json(arguments.json, {"environment": environment(), "settings": settings, "rows": rows})
    show_table(COLUMNS, [_row(row) for row in rows], as_json=False)


def _measured(folder: Path, kind: str, limit: float) -> dict[str, Any]:
    """The steps of a kind; one that failed or was stopped says so in place of its numbers."""
    found: dict[str, Any] = {}
    for step in ("mine",) if kind == "mine" else ("build", "search"):
        command = [sys.executable, str(HERE / "scale.py"), "--step", step, "--of", str(folder), kind]
        try:
            found[step] = measure(command, limit=limit)
        except Failed as reason:
            return {**found, "failed": f"{step}: {reason}"}
    return found


def _row(row: dict[str, Any]) -> list[object]:
    built, searched = row.get("build", {}), row.get("search", row.get("mine", {}))
    recall = built.get("recall") or {}
    return [
        row["documents"],
        f"{row['kind']} ({row['failed']})" if "failed" in row else row["kind"],
        *(built.get(name) for name in ("seconds", "cpu_seconds", "memory_mib", "index_mib", "bytes_per_vector")),
        *(searched.get(name) for name in ("ms_per_query", "cpu_ms_per_query", "ms_alone", "memory_mib")),
        recall.get("value"),
    ]


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, nargs="+", default=[5_000, 50_000, 500_000])
    parser.add_argument("--kinds", nargs="+", default=["exact", "hnsw", "ivfpq"], choices=["exact", "hnsw", "ivfpq"])
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--intrinsic", type=int)
    parser.add_argument("--limit", type=float, default=3600)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="where the vectors are kept meanwhile")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--of", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
