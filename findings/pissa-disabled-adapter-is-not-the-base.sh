#!/usr/bin/env bash
# peft 0.21.2: a LoRA adapter with init_lora_weights="pissa" takes its factors out of the base weights, also when it is
# read back from its folder. With the adapter disabled, or its B set to zero, the model is not the base model.
# Code that measures "base against tuned" by disable_adapter(), or mixes them by scaling B, compares with something else.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 peft==0.21.2 transformers==5.23.0 \
    huggingface-hub==2.4.0 accelerate==1.15.0
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" -W ignore - "$folder" <<'PYTHON'
import sys

import peft
import torch
from transformers import BertConfig, BertModel

print("peft", peft.__version__)
config = BertConfig(
    hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=100
)
ids = torch.arange(1, 9)[None]


def base() -> BertModel:
    torch.manual_seed(0)
    return BertModel(config).eval()


expected = base()(ids).last_hidden_state
differences = {}
for init in (True, "pissa"):
    lora = peft.LoraConfig(r=4, target_modules=["query", "value"], init_lora_weights=init)
    adapted = peft.get_peft_model(base(), lora)
    adapted.save_pretrained(f"{sys.argv[1]}/{init}")
    loaded = peft.PeftModel.from_pretrained(base(), f"{sys.argv[1]}/{init}").eval()
    untouched = (loaded(ids).last_hidden_state - expected).abs().max().item()
    with loaded.disable_adapter():
        differences[init] = (loaded(ids).last_hidden_state - expected).abs().max().item()
    print(f"init {init}: untrained adapter on, {untouched:.1e} from the base; off, {differences[init]:.1e}")
    assert untouched < 1e-5
assert differences[True] == 0 and differences["pissa"] > 1e-4, f"changed: {differences}"
PYTHON
