"""Which implementation of attention a model computes with, where a recipe asks for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InputError, unknown
from .towers import transformers_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def refuse_absent(asked: str, trust_remote_code: bool) -> None:
    """Raises InputError for an implementation that transformers does not know, or whose package is not here.

    Where a package is missing transformers would take a kernel from the hub, which is code: with trust_remote_code
    alone, as is a kernel that is named itself (organisation/name).
    """
    from transformers.modeling_flash_attention_utils import FLASH_ATTENTION_COMPATIBILITY_MATRIX as FLASH
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    known = {"eager", *(name for name in ALL_ATTENTION_FUNCTIONS.valid_keys() if "|" not in name)}
    if "/" in asked:
        if not trust_remote_code:
            raise InputError(f"model.attention: {asked} is code from the hub; it needs model.trust_remote_code: true")
    elif asked not in known:
        raise InputError(f"model.attention: {unknown('attention', asked, known)}")
    elif is_flash(asked) and not trust_remote_code and not FLASH[int(asked[-1])]["general_availability_check"]():
        how = "; try: pip install flash-attn" if asked == "flash_attention_2" else ""
        raise InputError(f"model.attention: {asked} needs a GPU and its own package, which is not here{how}")


def attention_argument(asked: str | None) -> dict[str, str]:
    """As transformers takes it; absent, it chooses."""
    return {} if asked is None else {"attn_implementation": asked}


def refuse_other(loaded: SentenceTransformer, asked: str, label: str) -> None:
    """Raises InputError where a part of the model computes with another implementation than the one asked for."""
    found = implementations(loaded)
    if not found:
        raise InputError(f"model.attention: {label} has no attention that could be chosen")
    for name in found:
        if name != asked and not (is_flash(name) and is_flash(asked)):  # a kernel in its place has a name of its own
            raise InputError(f"model.attention: {label} computes with {name}, not with {asked}; remove the key")


def implementations(loaded: SentenceTransformer) -> list[str]:
    """What the model's transformers compute with, in order of name."""
    return sorted({str(module.config._attn_implementation) for module in transformers_of(loaded).values()})


def is_flash(name: str) -> bool:
    """Whether it is one of flash attention's, which know fp16 and bf16 alone, and texts without padding."""
    return "flash" in name


def pad_where_it_must(loaded: SentenceTransformer) -> None:
    """Models that number positions on three axes (Qwen-VL) do not take texts without padding; sentence-transformers
    leaves it to the user to say so. The saved folder keeps it."""
    for transformer in transformers_of(loaded).values():
        if not getattr(transformer, "can_flatten_inputs", False):
            continue
        config = transformer.config.get_text_config()
        rotary = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
        if "mrope_section" in rotary:
            transformer.unpad_inputs = False


def takes_flat(loaded: SentenceTransformer) -> bool:
    """Whether texts are put together without padding, one after another: then features have another form."""
    return any(getattr(module, "can_flatten_inputs", False) for module in transformers_of(loaded).values())
