#!/usr/bin/env bash
# torch 2.13.0: AdamW(fused=True) on a CPU changes a parameter without counting up its version counter, which every
# other in-place change does, AdamW(fused=False) included.
# A cache that tells by `_version` whether weights have changed keeps serving the weights of before the step.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch

print("torch", torch.__version__)
counts = {}
for fused in (False, True):
    weight = torch.nn.Parameter(torch.ones(4))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=fused)
    weight.grad = torch.ones(4)
    before, value = weight._version, weight.detach().clone()
    optimizer.step()
    assert not torch.equal(value, weight.detach()), "the step changes the weight"
    counts[fused] = weight._version - before
    print(f"fused={fused}: the weight has changed, its version counter went up by {counts[fused]}")
assert counts[False] > 0 == counts[True], f"changed: {counts}"
PYTHON
