#!/usr/bin/env bash
# datasets 5.2.0: a JSON-lines column that holds strings and numbers becomes the feature `Json`, and its strings are
# parsed as JSON when they are read: the id "007" comes back as the number 7, the id "null" as None.
# Ids of a corpus and of its judgements then no longer match, and nothing says so.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 pyarrow==26.0.1 huggingface-hub==2.4.0
HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1 "$folder/venv/bin/python" - "$folder" <<'PYTHON'
import json
import sys
from pathlib import Path

import datasets

print("datasets", datasets.__version__)
folder = Path(sys.argv[1])
rows = [{"_id": "007"}, {"_id": 8}, {"_id": "null"}]
(folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
table = datasets.load_dataset("json", data_files=str(folder / "corpus.jsonl"), split="train", cache_dir=str(folder))
print("feature:", table.features["_id"])
print("written:", [row["_id"] for row in rows])
print("read:   ", table["_id"][:])
assert table["_id"][:] == [7, 8, None], "changed: the ids are read in another way now"
PYTHON
