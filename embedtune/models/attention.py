"""The implementation of attention that a model computes with, where a recipe names one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

from ..errors import InputError, unknown
from .modules import transformers_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


_MASK: ContextVar[tuple[tuple[int, ...], bool] | None] = ContextVar("mask", default=None)
"""The shape of a chunk's attention mask, and whether it hides padding."""


@contextmanager
def masks_known(features: Mapping[str, Any], padded: bool | None) -> Iterator[None]:
    """Around a forward pass of a chunk whose padding the host knows.

    To skip a mask that hides nothing, transformers reads the mask's values, and so waits for the device at each chunk.
    """
    _answer_from_host()
    mask = features.get("attention_mask")
    known = _MASK.set(None if mask is None or padded is None else (tuple(mask.shape), padded))
    try:
        yield
    finally:
        _MASK.reset(known)


@cache
def _answer_from_host() -> None:
    from transformers import masking_utils

    for name in ("_ignore_causal_mask_sdpa", "_ignore_bidirectional_mask_sdpa"):
        if hasattr(masking_utils, name):  # of this library's versions; others decide as they do
            setattr(masking_utils, name, _told(getattr(masking_utils, name)))


def _told(decide: Callable[..., bool]) -> Callable[..., bool]:
    """transformers' decision to do without a mask, from what is known of the mask where it is the chunk's own."""

    def decide_from_host(padding_mask: Any, *rest: Any, **options: Any) -> bool:
        known = _MASK.get()
        if padding_mask is None or known is None or tuple(padding_mask.shape) != known[0]:
            return decide(padding_mask, *rest, **options)
        return not known[1] and decide(None, *rest, **options)

    return decide_from_host


def refuse_absent(name: str, trust_remote_code: bool) -> None:
    """Raises InputError for an implementation that transformers does not know, or whose package is not installed.

    In place of a missing package transformers would take a kernel from the hub. A kernel is code, so it needs
    trust_remote_code, as does a kernel that is named itself (organisation/name).
    """
    from transformers.modeling_flash_attention_utils import FLASH_ATTENTION_COMPATIBILITY_MATRIX as FLASH
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    known = {"eager", *(key for key in ALL_ATTENTION_FUNCTIONS.valid_keys() if "|" not in key)}
    if "/" in name:
        if not trust_remote_code:
            raise InputError(f"model.attention: {name} is code from the hub; it needs model.trust_remote_code: true")
    elif name not in known:
        raise InputError(f"model.attention: {unknown('attention', name, known)}")
    elif is_flash(name) and not trust_remote_code and not FLASH[int(name[-1])]["general_availability_check"]():
        hint = "; try: pip install flash-attn" if name == "flash_attention_2" else ""
        raise InputError(f"model.attention: {name} needs a GPU and its own package, which is not here{hint}")


def refuse_other(model: SentenceTransformer, name: str, label: str) -> None:
    """Raises InputError where a part of the model computes with another implementation than the named one."""
    implementations = implementations_of(model)
    if not implementations:
        raise InputError(f"model.attention: {label} has no attention whose implementation can be chosen")
    for actual in implementations:
        # a hub kernel that replaces flash attention has a name of its own
        if actual != name and not (is_flash(actual) and is_flash(name)):
            raise InputError(f"model.attention: {label} computes with {actual}, not with {name}; remove the key")


def implementations_of(model: SentenceTransformer) -> list[str]:
    """The names of the implementations that the model's transformers compute with, sorted."""
    return sorted({str(module.config._attn_implementation) for module in transformers_of(model).values()})


def is_flash(name: str) -> bool:
    """Whether the implementation is flash attention, which computes in fp16 and bf16 only, on texts without padding."""
    return "flash" in name


def pad_three_axes(model: SentenceTransformer) -> None:
    """Turns padding on for models that number positions on three axes (Qwen-VL), which do not take texts without
    padding. The saved folder keeps the setting."""
    for transformer in transformers_of(model).values():
        if not getattr(transformer, "can_flatten_inputs", False):
            continue
        config = transformer.config.get_text_config()
        rotary = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
        if "mrope_section" in rotary:
            transformer.unpad_inputs = False


def takes_flat(model: SentenceTransformer) -> bool:
    """Whether the texts of a batch stand in one row without padding, which gives other features."""
    return any(getattr(module, "can_flatten_inputs", False) for module in transformers_of(model).values())
