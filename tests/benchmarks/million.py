"""A dataset whose files have a million lines each, and a run, for `data check`, `data split` and `eval --run`.

    python tests/benchmarks/million.py million
    python tests/benchmarks/baseline.py run ../baseline -- data check million
    python tests/benchmarks/baseline.py run ../baseline -- data split million --validation 0.1 --output {output}
    python tests/benchmarks/baseline.py run ../baseline -- eval --run million/bm25.run --data million:train

There are as many documents as queries; each query has one positive, and a tenth of the queries are those of `test`.
Words are drawn by Zipf's law. The same options give the same files.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

WORDS, BLOCK = 50_000, 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lines", type=int, default=1_000_000, help="of each file")
    parser.add_argument("--words", type=int, default=16, help="words in a document; a query has half as many")
    parser.add_argument("--depth", type=int, default=1, help="documents that the run has for each query")
    arguments = parser.parse_args()
    write(arguments.folder, arguments.lines, arguments.words, arguments.depth)


def write(folder: Path, lines: int, words: int = 16, depth: int = 1) -> None:
    """Writes corpus, queries, `qrels/train.tsv`, `qrels/test.tsv` and `bm25.run`."""
    generator = np.random.default_rng(0)
    (folder / "qrels").mkdir(parents=True)
    for name, letter, length in (("corpus", "d", words), ("queries", "q", max(1, words // 2))):
        texts = enumerate(_texts(generator, lines, length))
        _write(folder / f"{name}.jsonl", (f'{{"_id": "{letter}{row}", "text": "{text}"}}' for row, text in texts))
    positives = generator.integers(lines, size=lines)
    for split, rows in (("train", range(lines // 10, lines)), ("test", range(lines // 10))):
        judged = (f"q{row}\td{positives[row]}\t1" for row in rows)
        _write(folder / "qrels" / f"{split}.tsv", ("query-id\tcorpus-id\tscore", *judged))
    _write(folder / "bm25.run", _run_lines(generator, positives, depth))


def _texts(generator: np.random.Generator, count: int, words: int) -> Iterator[str]:
    letters = np.array(list("abcdefghijklmnopqrstuvwxyzé"))
    vocabulary = np.array(
        ["".join(generator.choice(letters, size=length)) for length in generator.integers(2, 12, size=WORDS)]
    )
    share = 1 / np.arange(1, WORDS + 1)
    for start in range(0, count, BLOCK):
        drawn = generator.choice(vocabulary, size=(min(BLOCK, count - start), words), p=share / share.sum())
        yield from map(" ".join, drawn)


def _run_lines(generator: np.random.Generator, positives: np.ndarray, depth: int) -> Iterator[str]:
    """The positive of half of the queries, at a rank by chance, and other documents."""
    for query, positive in enumerate(positives):
        documents = list(dict.fromkeys(generator.integers(len(positives), size=depth)))
        if query % 2 and positive not in documents:
            documents[generator.integers(len(documents))] = positive
        for rank, document in enumerate(documents, start=1):
            yield f"q{query} Q0 d{document} {rank} {20 - rank * 1.37:.4f} bm25"


def _write(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)


if __name__ == "__main__":
    main()
