"""Tiny random text models in the layouts of their families' folders on the hub: files, keys, prompts, tokenizers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tiny_models import SIZES, WORDS, spread

OLD = "sentence_transformers.models"
LENGTH = 24
DECODER = {**SIZES, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 64}
INSTRUCTION = "Instruct: find the picture of the shape\nQuery:"
GEMMA = {
    "query": "task: search result | query: ",
    "document": "title: none | text: ",
    "STS": "task: similarity | query: ",
}


def words_of(special: list[str], template: str, **keys: Any) -> Any:
    """A tokenizer word by word. special: the first tokens of its vocabulary. template: what it puts around a text."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: n for n, word in enumerate([*special, *(w for w in WORDS if not w.startswith("<"))])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    around = [(token, vocabulary[token]) for token in template.split() if token in vocabulary]
    made.post_processor = processors.TemplateProcessing(single=template, special_tokens=around)
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", model_max_length=LENGTH, **keys)


def write(folder: Path, backbone: Any, words: Any, pooling: str | None, **layout: Any) -> Path:
    """Saves the parts as their hub folders have them; a bare checkpoint without pooling.

    layout: dense (the sizes behind the pooling), normalize, prompts, truncate_dim, length (max_seq_length; None: no
    sentence_bert_config.json).
    """
    spread(backbone).save_pretrained(folder)
    words.save_pretrained(folder)
    if pooling is None:
        return folder
    hidden = backbone.config.hidden_size
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    flags = {f"pooling_mode_{key}": key == pooling for key in ("cls_token", "mean_tokens", "max_tokens", "lasttoken")}
    write_json(folder / "1_Pooling/config.json", {"word_embedding_dimension": hidden, **flags, "include_prompt": True})
    for size in layout.get("dense", ()):
        modules.append((f"{len(modules)}_Dense", "Dense"))
        write_dense(folder / modules[-1][0], hidden, size)
        hidden = size
    if layout.get("normalize", True):
        modules.append((f"{len(modules)}_Normalize", "Normalize"))
    entries = [{"idx": n, "name": str(n), "path": p, "type": f"{OLD}.{kind}"} for n, (p, kind) in enumerate(modules)]
    write_json(folder / "modules.json", entries)
    if (length := layout.get("length", LENGTH)) is not None:
        write_json(folder / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False})
    settings = {"prompts": layout.get("prompts", {}), "default_prompt_name": None, "similarity_fn_name": "cosine"}
    if "truncate_dim" in layout:
        settings["truncate_dim"] = layout["truncate_dim"]
    write_json(folder / "config_sentence_transformers.json", settings)
    return folder


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_dense(folder: Path, inputs: int, outputs: int) -> None:
    import torch
    from safetensors.torch import save_file

    identity = "torch.nn.modules.linear.Identity"
    config = {"in_features": inputs, "out_features": outputs, "bias": False, "activation_function": identity}
    write_json(folder / "config.json", config)
    save_file({"linear.weight": torch.randn(outputs, inputs) / inputs**0.5}, folder / "model.safetensors")


def bert_words(**keys: Any) -> Any:
    marks = {"pad_token": "<pad>", "cls_token": "<s>", "sep_token": "<e>"}
    return words_of(["<pad>", "<unk>", "<s>", "<e>"], "<s> $A <e>", **marks, **keys)


def roberta_words() -> Any:
    marks = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    return words_of(["<s>", "<pad>", "</s>", "<unk>"], "<s> $A </s>", **marks)


def decoder_words(*, pad: bool, end: str = "", **keys: Any) -> Any:
    """As a decoder's, which begins with <s>. pad: whether it has a padding token. end: "<e>" where it appends that."""
    marks = {"bos_token": "<s>", "eos_token": "<e>", **({"pad_token": "<pad>"} if pad else {})}
    return words_of(["<pad>", "<unk>", "<s>", "<e>"], f"<s> $A {end}".strip(), **marks, **keys)


def vocabulary(words: Any) -> dict[str, Any]:
    return {"vocab_size": len(words)}


def bert(folder: Path) -> Path:
    """all-MiniLM-L6-v2, with a length of its own below its positions and cut embeddings."""
    from transformers import BertConfig, BertModel

    words = bert_words()
    model = BertModel(BertConfig(**vocabulary(words), **SIZES, max_position_embeddings=64))
    return write(folder, model, words, "mean_tokens", length=16, truncate_dim=20)


def xlm_roberta(folder: Path) -> Path:
    """bge-m3: the first token; usable positions are two fewer."""
    from transformers import XLMRobertaConfig, XLMRobertaModel

    words = roberta_words()
    config = XLMRobertaConfig(**vocabulary(words), **SIZES, max_position_embeddings=LENGTH + 2, pad_token_id=1)
    return write(folder, XLMRobertaModel(config), words, "cls_token")


def mpnet(folder: Path) -> Path:
    """all-mpnet-base-v2."""
    from transformers import MPNetConfig, MPNetModel

    words = roberta_words()
    config = MPNetConfig(**vocabulary(words), **SIZES, max_position_embeddings=LENGTH + 2, pad_token_id=1)
    return write(folder, MPNetModel(config), words, "mean_tokens")


def modernbert(folder: Path) -> Path:
    """modernbert-embed: prompts with a space at their end, no Normalize."""
    from transformers import ModernBertConfig, ModernBertModel

    words = bert_words()
    marks = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    config = ModernBertConfig(**vocabulary(words), **SIZES, max_position_embeddings=64, local_attention=8, **marks)
    prompts = {"query": "find: ", "document": "a picture: "}
    return write(folder, ModernBertModel(config), words, "mean_tokens", normalize=False, prompts=prompts)


def nomic_bert(folder: Path) -> Path:
    """nomic-embed-text-v1.5, in transformers' own implementation."""
    from transformers import NomicBertConfig, NomicBertModel

    words = bert_words()
    config = NomicBertConfig(**vocabulary(words), **SIZES, max_position_embeddings=64, pad_token_id=0)
    return write(folder, NomicBertModel(config), words, "mean_tokens", prompts={"query": "find: ", "document": "on: "})


def t5(folder: Path) -> Path:
    """gtr-t5-base: the encoder alone, then a Dense without bias."""
    from transformers import T5Config, T5EncoderModel

    words = words_of(["<pad>", "</s>", "<unk>"], "$A </s>", pad_token="<pad>", eos_token="</s>")
    sizes = {"d_model": 32, "d_ff": 64, "d_kv": 16, "num_layers": 2, "num_heads": 2}
    model = T5EncoderModel(T5Config(**vocabulary(words), **sizes, pad_token_id=0, eos_token_id=1))
    return write(folder, model, words, "mean_tokens", dense=[24])


def deberta_v2(folder: Path) -> Path:
    from transformers import DebertaV2Config, DebertaV2Model

    words = bert_words()
    relative = {
        "relative_attention": True,
        "position_buckets": 8,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
    }
    config = DebertaV2Config(**vocabulary(words), **SIZES, max_position_embeddings=64, type_vocab_size=0, **relative)
    return write(folder, DebertaV2Model(config), words, "mean_tokens", normalize=False)


def qwen3(folder: Path) -> Path:
    """Qwen3-Embedding: padded on the left, an end of text behind each text, a chat template that is not used, no
    sentence_bert_config.json."""
    from transformers import Qwen3Config, Qwen3Model

    words = decoder_words(pad=True, end="<e>", padding_side="left")
    words.chat_template = "{% for m in messages %}be kind: {{ m['content'] }}{% endfor %}"
    model = Qwen3Model(Qwen3Config(**vocabulary(words), **DECODER, pad_token_id=0))
    prompts = {"query": INSTRUCTION, "document": ""}
    return write(folder, model, words, "lasttoken", length=None, prompts=prompts)


def gemma3(folder: Path) -> Path:
    """EmbeddingGemma: both directions, sliding windows, two Dense layers, prompts by task."""
    from transformers import Gemma3TextConfig, Gemma3TextModel

    words = decoder_words(pad=True, end="<e>")
    windows = {"sliding_window": 9, "layer_types": ["sliding_attention", "full_attention"]}
    config = Gemma3TextConfig(
        **vocabulary(words), **DECODER, **windows, use_bidirectional_attention=True, query_pre_attn_scalar=16
    )
    return write(folder, Gemma3TextModel(config), words, "mean_tokens", dense=[64, 32], prompts=GEMMA)


def mistral(folder: Path) -> Path:
    """e5-mistral: no prompts of its own, an end of text behind each text, which also pads."""
    from transformers import MistralConfig, MistralModel

    words = decoder_words(pad=False, end="<e>")
    words.pad_token = "<e>"
    config = MistralConfig(**vocabulary(words), **DECODER, sliding_window=None)
    return write(folder, MistralModel(config), words, "lasttoken")


def llama(folder: Path) -> Path:
    """A bare decoder as it was pretrained: no padding token, no pooling."""
    from transformers import LlamaConfig, LlamaModel

    words = decoder_words(pad=False)
    return write(folder, LlamaModel(LlamaConfig(**vocabulary(words), **DECODER)), words, None)


def static(folder: Path) -> Path:
    """static-retrieval-mrl: a matrix of token embeddings in a folder of its own."""
    import torch
    from safetensors.torch import save_file

    words = bert_words()
    (folder / "0_StaticEmbedding").mkdir(parents=True)
    words.backend_tokenizer.save(str(folder / "0_StaticEmbedding" / "tokenizer.json"))
    rows = {"embedding.weight": torch.randn(len(words), 32)}
    save_file(rows, folder / "0_StaticEmbedding" / "model.safetensors")
    kind = "sentence_transformers.models.StaticEmbedding"
    write_json(folder / "modules.json", [{"idx": 0, "name": "0", "path": "0_StaticEmbedding", "type": kind}])
    write_json(folder / "config_sentence_transformers.json", {"prompts": {}, "similarity_fn_name": "cosine"})
    return folder


def model2vec(folder: Path) -> Path:
    """potion-base: model2vec's own files, with sentence-transformers' modules.json beside them."""
    import torch
    from safetensors.torch import save_file

    words = bert_words()
    folder.mkdir(parents=True)
    words.backend_tokenizer.save(str(folder / "tokenizer.json"))
    save_file({"embeddings": torch.randn(len(words), 32)}, folder / "model.safetensors")
    write_json(folder / "config.json", {"model_type": "model2vec", "hidden_dim": 32, "normalize": True})
    kinds = [(".", "StaticEmbedding"), ("1_Normalize", "Normalize")]
    entries = [{"idx": n, "name": str(n), "path": p, "type": f"{OLD}.{kind}"} for n, (p, kind) in enumerate(kinds)]
    write_json(folder / "modules.json", entries)
    return folder


WRITERS: dict[str, Callable[[Path], Path]] = {
    made.__name__: made
    for made in (
        bert, xlm_roberta, mpnet, modernbert, nomic_bert, t5, deberta_v2,
        qwen3, gemma3, mistral, llama, static, model2vec,
    )
}  # fmt: skip


def write_family(folder: Path, name: str) -> Path:
    """The family's model, the same at each call."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return WRITERS[name](folder)
