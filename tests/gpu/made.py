"""Models and data that a machine without a network makes itself: random weights, and texts of made words."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORDS = [f"w{number}" for number in range(5000)]
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """tokens: of a text, with its first and last. small: for `--tiny`, on a CPU."""

    tokens: int
    pairs: int
    small: bool


FULL = Sizes(tokens=256, pairs=8192, small=False)
TINY = Sizes(tokens=24, pairs=96, small=True)


def write_model(folder: Path, name: str, sizes: Sizes) -> Path:
    """`minilm` or `qwen3` (0.6 billion parameters), by its configuration alone, as transformers saves it."""
    import torch
    from transformers import AutoModel, BertConfig, Qwen3Config

    length = 512
    if name == "minilm":
        shape = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
        small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        config: Any = BertConfig(
            vocab_size=30522, max_position_embeddings=length, pad_token_id=0, **(small if sizes.small else shape)
        )
    else:
        shape = {"hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
                 "intermediate_size": 3072, "head_dim": 128, "vocab_size": 151936}  # fmt: skip
        small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
                 "intermediate_size": 64, "head_dim": 16, "vocab_size": 6000}  # fmt: skip
        config = Qwen3Config(max_position_embeddings=length, pad_token_id=0, **(small if sizes.small else shape))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModel.from_config(config)
    model.to(torch.float32 if name == "minilm" else torch.bfloat16).save_pretrained(folder)
    _tokenizer(length).save_pretrained(folder)
    return folder


def _tokenizer(length: int) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate([*SPECIAL, *WORDS])}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=length,
        model_input_names=["input_ids", "attention_mask"],
    )


def write_data(folder: Path, sizes: Sizes) -> Path:
    """A dataset folder: each query holds some words of its document. Every third pair is of the split test."""
    generator = random.Random(0)
    (folder / "qrels").mkdir(parents=True)
    documents = [generator.choices(WORDS, k=sizes.tokens - 2) for _ in range(sizes.pairs)]
    with (folder / "corpus.jsonl").open("w") as corpus, (folder / "queries.jsonl").open("w") as queries:
        for number, words in enumerate(documents):
            few = generator.sample(words, len(words) // 4)
            asked = few + generator.choices(WORDS, k=len(words) - len(few))
            corpus.write(json.dumps({"_id": f"d{number}", "text": " ".join(words)}) + "\n")
            queries.write(json.dumps({"_id": f"q{number}", "text": " ".join(asked)}) + "\n")
    for split in ("train", "test"):
        of_split = [number for number in range(sizes.pairs) if (number % 3 == 0) == (split == "test")]
        lines = [f"q{number}\td{number}\t1\n" for number in of_split]
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return folder
