#!/usr/bin/env bash
# bitsandbytes 0.50.2, on a CPU with AVX-512 BF16: a 4-bit layer that was used once for inference (in evaluation mode,
# on an input without gradient) keeps its weights in a layout without a backward pass, in training mode too. Without a
# bias no gradient reaches the layers below it from then on, and no error says so; with a bias an unrelated one is
# raised. QLoRA that validates before or between its steps trains the adapters above the last 4-bit layer only.
set -euo pipefail
grep -q avx512_bf16 /proc/cpuinfo || { echo "this processor has no avx512_bf16"; exit 0; }
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 bitsandbytes==0.50.2
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import bitsandbytes
import torch

print("bitsandbytes", bitsandbytes.__version__)
torch.manual_seed(0)
values = torch.randn(4, 64)


def gradient(bias: bool, inference: bool) -> str:
    """The gradient of a layer below a 4-bit one, in words."""
    below = torch.nn.Linear(64, 64)
    layer = bitsandbytes.nn.Linear4bit(64, 128, bias=bias, quant_type="nf4", compute_dtype=torch.float32)
    layer.load_state_dict(torch.nn.Linear(64, 128, bias=bias).state_dict())
    layer = layer.to("cpu")
    if inference:
        with torch.no_grad():
            layer.eval()(values)
    try:
        layer.train()(below(values)).sum().backward()
    except RuntimeError as error:
        return f"RuntimeError: {str(error)[:60]}..."
    return "none" if below.weight.grad is None else "there"


seen = {}
for bias in (False, True):
    for inference in (False, True):
        seen[bias, inference] = gradient(bias, inference)
        print(f"bias {bias}, inference before {inference}: gradient below: {seen[bias, inference]}")
assert seen[False, False] == seen[True, False] == "there", f"changed: {seen}"
assert seen[False, True] == "none" and seen[True, True].startswith("RuntimeError"), f"changed: {seen}"
PYTHON
