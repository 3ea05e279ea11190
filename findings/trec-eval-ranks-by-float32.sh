#!/usr/bin/env bash
# pytrec-eval-terrier 0.5.11 (trec_eval's code): scores are compared as 32-bit floats, and equal ones are ranked by
# document id, highest first. Two scores that differ as Python floats may be equal there, and their order turns round.
# Measures that are computed by sorting the 64-bit scores differ from trec_eval's for such runs.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pytrec-eval-terrier==0.5.11 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import pytrec_eval

print("pytrec-eval-terrier", version("pytrec-eval-terrier"))
qrels = {"q1": {"a": 1, "z": 0}}
evaluator = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"})
values = {}
for score in (0.7001, 0.70000001):
    values[score] = evaluator.evaluate({"q1": {"a": score, "z": 0.7}})["q1"]["recip_rank"]
    print(f"relevant a: {score!r}, other z: 0.7 -> reciprocal rank {values[score]}")
assert values == {0.7001: 1.0, 0.70000001: 0.5}, f"changed: {values}"
PYTHON
