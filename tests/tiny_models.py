"""Tiny models of real architectures with random weights, built from their configurations without a network."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from pictures import COLOURS, PLACES, SHAPES

WORDS = ["<pad>", "<unk>", "<s>", "<e>", *COLOURS, *SHAPES, *PLACES, "a", "on", "the", "find", "picture", "of", ":"]
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def spread(model: Any) -> Any:
    """The model with larger weights, so that what it gives differs from input to input and there is something to learn
    from; a fresh model's output hardly does."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model


def learned(model: Any, size: float = 0.1) -> Any:
    """The model with adapters that are not 0: each B is drawn at random, of this standard deviation."""
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=size)
    return model


def tokenizer(*, length: int, names: list[str] | None = None) -> Any:
    """Word by word, between <s> and <e>."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A <e>", special_tokens=[("<s>", WORDS.index("<s>")), ("<e>", WORDS.index("<e>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="<e>",
        model_max_length=length,
        model_input_names=names or ["input_ids", "attention_mask"],
    )


def write_clip(folder: Path) -> Path:
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor

    ends = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    text = {"vocab_size": len(WORDS), "max_position_embeddings": 16, "projection_dim": 24, **ends, **SIZES}
    vision = {"image_size": 32, "patch_size": 8, "projection_dim": 24, **SIZES}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
    spread(model).save_pretrained(folder)
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(image_processor=images, tokenizer=tokenizer(length=16)).save_pretrained(folder)
    return folder


def write_words(folder: Path) -> Path:
    """A text encoder that knows the pictures' words, as sentence-transformers saves it."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=16, **SIZES))
    spread(model).save_pretrained(folder / "bare")
    tokenizer(length=16).save_pretrained(folder / "bare")
    modules = [Transformer(str(folder / "bare")), Pooling(SIZES["hidden_size"], "mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder / "words"))
    return folder / "words"


def write_vit(folder: Path) -> Path:
    """A vision model alone."""
    import torch
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ViTModel(ViTConfig(image_size=32, patch_size=8, **SIZES), add_pooling_layer=False)
    spread(model).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def write_siglip(folder: Path) -> Path:
    """Its tokenizer gives no attention mask: every text is padded to the same length, as the model was trained."""
    import torch
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel, SiglipProcessor

    ends = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    text = {"vocab_size": len(WORDS), "max_position_embeddings": 16, "projection_size": 32, **ends, **SIZES}
    vision = {"image_size": 32, "patch_size": 8, **SIZES}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    spread(model).save_pretrained(folder)
    images = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    words = tokenizer(length=16, names=["input_ids"])
    SiglipProcessor(image_processor=images, tokenizer=words).save_pretrained(folder)
    return folder


QWEN = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}
"""Model type -> how transformers' classes begin."""
MARKS = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in c %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
)


def without_video(patch: Any) -> None:
    """Without torchvision, leaves the part for videos, which alone needs it, out of Qwen-VL's processors."""
    import transformers

    if importlib.util.find_spec("torchvision") is not None:
        return
    for name in QWEN.values():
        processor = getattr(transformers, f"{name}Processor")
        patch.setattr(processor, "get_attributes", classmethod(lambda cls: ["image_processor", "tokenizer"]))


def write_qwen(folder: Path, family: str, *, padding_side: str = "right") -> Path:
    import torch
    import transformers

    words = tokenizer(length=512)
    words.add_tokens(MARKS, special_tokens=True)
    words.padding_side = padding_side
    start, end, image, video = (words.convert_tokens_to_ids(mark) for mark in MARKS[2:])
    marks = {"vision_start_token_id": start, "vision_end_token_id": end, "image_token_id": image}
    section = [2, 1, 1] if family == "qwen3_vl" else [1, 1, 2]
    text = {**SIZES, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": len(words), "head_dim": 8}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": section}
    text |= {"max_position_embeddings": 512, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    sizes = {"depth": 2, "hidden_size": 32, "num_heads": 2, "patch_size": 14}
    sizes |= {"spatial_merge_size": 2, "temporal_patch_size": 2}
    later = {**sizes, "out_hidden_size": 32, "intermediate_size": 64}
    vision = {
        "qwen2_vl": {**sizes, "embed_dim": 32, "mlp_ratio": 2},
        "qwen2_5_vl": {**later, "window_size": 56, "fullatt_block_indexes": [1]},
        "qwen3_vl": {**later, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]},
    }[family]
    name = QWEN[family]
    config = getattr(transformers, f"{name}Config")(
        text_config=text, vision_config=vision, video_token_id=video, **marks
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    spread(model).save_pretrained(folder)
    pixels = {"size": {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}, "patch_size": 14}
    images = transformers.Qwen2VLImageProcessorPil(**pixels)
    processor = getattr(transformers, f"{name}Processor")
    parts = {"image_processor": images, "tokenizer": words, "chat_template": TEMPLATE}
    if "video_processor" in processor.get_attributes():
        videos = "Qwen3VLVideoProcessor" if family == "qwen3_vl" else "Qwen2VLVideoProcessor"
        parts["video_processor"] = getattr(transformers, videos)(patch_size=14)
    processor(**parts).save_pretrained(folder)
    return folder


def write_cross_encoder(folder: Path, checkpoint: Path, labels: int = 1) -> Path:
    """A cross-encoder with the checkpoint's weights and a head of random ones."""
    import torch
    from sentence_transformers import CrossEncoder

    torch.manual_seed(0)
    CrossEncoder(str(checkpoint), num_labels=labels, device="cpu").save_pretrained(str(folder))
    return folder
