"""A dataset of a million lines and a run of another million, for `data check`, `data split` and `eval --run`.

    python tests/benchmarks/million.py million
    python tests/benchmarks/baseline.py run ../baseline --alternations 3 -- data check million
    python tests/benchmarks/baseline.py run ../baseline -- data split million --test 0.1 --output {output}
    python tests/benchmarks/baseline.py run ../baseline -- eval --run million/bm25.run --data million:train

Eight of ten lines are documents, one is a query, one a judgement; the run has ten documents for each query. Words are
drawn by Zipf's law. The same seed gives the same files.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

WORDS, DEPTH, BLOCK = 50_000, 10, 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--words", type=int, default=40, help="words in a document; a query has a fifth")
    arguments = parser.parse_args()
    write(arguments.folder, arguments.lines, arguments.words)


def write(folder: Path, lines: int, words: int) -> None:
    """Writes corpus, queries, `qrels/train.tsv`, `qrels/test.tsv` (a tenth of the queries) and `bm25.run`."""
    generator = np.random.default_rng(0)
    documents, queries = lines * 8 // 10, lines // 10
    (folder / "qrels").mkdir(parents=True)
    texts = _texts(generator, documents, words)
    titled = (f'"title": "{text[:40].rpartition(" ")[0]}", "text": "{text}"' for text in texts)
    _write(folder / "corpus.jsonl", (f'{{"_id": "d{row}", {fields}}}' for row, fields in enumerate(titled)))
    texts = _texts(generator, queries, max(1, words // 5))
    _write(folder / "queries.jsonl", (f'{{"_id": "q{row}", "text": "{text}"}}' for row, text in enumerate(texts)))
    positives = generator.integers(documents, size=queries)
    for split, rows in (("train", range(queries // 10, queries)), ("test", range(queries // 10))):
        judged = (f"q{row}\td{positives[row]}\t1" for row in rows)
        _write(folder / "qrels" / f"{split}.tsv", ("query-id\tcorpus-id\tscore", *judged))
    _write(folder / "bm25.run", _run_lines(generator, positives, documents))


def _texts(generator: np.random.Generator, count: int, words: int) -> Iterator[str]:
    letters = np.array(list("abcdefghijklmnopqrstuvwxyzé"))
    lengths = generator.integers(2, 12, size=WORDS)
    vocabulary = np.array(["".join(generator.choice(letters, size=length)) for length in lengths])
    for start in range(0, count, BLOCK):
        for row in vocabulary[generator.zipf(1.2, size=(min(BLOCK, count - start), words)) % WORDS]:
            yield " ".join(row)


def _run_lines(generator: np.random.Generator, positives: np.ndarray, documents: int) -> Iterator[str]:
    for query, positive in enumerate(positives):
        ranked = list(dict.fromkeys([*generator.integers(documents, size=DEPTH - 1), positive]))
        generator.shuffle(ranked)
        for rank, document in enumerate(ranked, start=1):
            yield f"q{query} Q0 d{document} {rank} {20 - rank * 1.37:.4f} bm25"


def _write(path: Path, lines: Iterator[str] | tuple[str, ...]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)


if __name__ == "__main__":
    main()
