"""Tiny models of real architectures with random weights, built from their configurations without a network."""

from __future__ import annotations

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
