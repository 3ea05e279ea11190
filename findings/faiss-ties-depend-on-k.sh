#!/usr/bin/env bash
# faiss-cpu 1.15.1: which of several equal vectors stands first in a flat index depends on k.
# For k hits the order is row k-1, ..., 1, 0, so that the first hit of k=1 is not the first hit of k=5.
# Whoever compares a search for one hit with a search for many sees another winner for the same query.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet faiss-cpu==1.15.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import faiss
import numpy as np

print("faiss", faiss.__version__)
vectors = np.full((8, 16), 0.25, dtype=np.float32)
index = faiss.IndexFlatIP(16)
index.add(vectors)
first_hits = []
for k in (1, 2, 3, 5, 8):
    scores, rows = index.search(vectors[:1], k)
    assert len(set(scores[0].tolist())) == 1, "the scores are equal"
    print(f"k={k}: rows {rows[0].tolist()}")
    first_hits.append(int(rows[0, 0]))
assert first_hits == [0, 1, 2, 4, 7], f"changed: the first hits are now {first_hits}"
PYTHON
