"""Opens model folders through sentence-transformers: every failure is one line, and no weight is random unnoticed."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from ..errors import InputError
from .folders import first_line

Loaded = TypeVar("Loaded", bound=nn.Module)


def opened(label: str, load: Callable[[], Loaded], *, new_weights: Sequence[str] | None = None) -> Loaded:
    """The model that `load` opens; its `missing_weights` are those that the checkpoint lacks. label: names it in
    errors. new_weights: patterns of names, as the recipe has them; None for a teacher.

    Raises InputError for a folder that cannot be opened, and for missing weights that no pattern matches: transformers
    fills them with random numbers.
    """
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    disable_progress_bar()  # the command line shows the progress
    set_verbosity_error()  # weights that are missing are an error below
    try:
        with _missing_weights() as missing:
            model = load()
    except Exception as error:  # a foreign folder fails in as many ways as there are libraries that read it
        raise InputError(f"{label}: {_reason(error, teacher=new_weights is None)}") from error
    if not _reads_pooler(model):  # most checkpoints have no pooler
        missing = [name for name in missing if "pooler." not in name]
    unexpected = [name for name in missing if not any(fnmatchcase(name, pattern) for pattern in new_weights or ())]
    if unexpected:
        hint = "" if new_weights is None else f", or name them, as in model.new_weights: [{unexpected[0]}]"
        raise InputError(
            f"{label}: {len(unexpected)} weights are not in the checkpoint and would be random numbers, first "
            f"{unexpected[0]!r}; use a complete checkpoint{hint}"
        )
    model.missing_weights = missing  # type: ignore[assignment]
    return model


def transformer_in(folder: Path, weights: dict[str, Any], *, trust_remote_code: bool) -> Any:
    """The sentence-transformers module of a bare transformers checkpoint. weights: how transformers loads them.

    A checkpoint of texts reads them as they are. sentence-transformers would put those for a model with a chat template
    into the template, with its system prompt, but for models that are saved as embedders.
    """
    from sentence_transformers.sentence_transformer.modules import Transformer

    local: dict[str, Any] = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    model = {**weights, "use_safetensors": True}
    module = Transformer(str(folder), model_kwargs=model | local, processor_kwargs=local, config_kwargs=dict(local))
    if set(module.modality_config) == {"text", "message"}:
        del module.modality_config["message"]
        module.input_formatter.supported_modalities = ["text"]
    return module


@contextmanager
def _missing_weights() -> Iterator[list[str]]:
    """Lists the weights that models lack which are loaded meanwhile."""
    from transformers import PreTrainedModel

    missing: list[str] = []
    original = PreTrainedModel.__dict__["from_pretrained"]

    def from_pretrained(cls: Any, *args: Any, **kwargs: Any) -> Any:
        model, info = original.__func__(cls, *args, **{**kwargs, "output_loading_info": True})
        missing.extend(sorted(info["missing_keys"]))
        return (model, info) if kwargs.get("output_loading_info") else model

    PreTrainedModel.from_pretrained = classmethod(from_pretrained)
    try:
        yield missing
    finally:
        PreTrainedModel.from_pretrained = original


def _reads_pooler(model: nn.Module) -> bool:
    """Whether the output passes through the transformers' poolers."""
    configs = [getattr(module, "modality_config", None) or {} for module in model.modules()]
    return any(entry["method_output_name"] != "last_hidden_state" for config in configs for entry in config.values())


def _reason(error: BaseException, *, teacher: bool) -> str:
    text = f"{error} {error.__cause__ or ''}".lower()
    if "unrecognized processing class" in text:  # transformers drops the error of each kind of processor that it tries
        return (
            "cannot be loaded: its tokenizer or processor cannot be opened; tokenizer.json, tokenizer_config.json or "
            "preprocessor_config.json is damaged or missing"
        )
    absent = importlib.util.find_spec("torchvision") is None
    if "torchvision" in text or (absent and ("video processor" in text or "video_processor" in text)):
        return (  # missing, or built for another torch, and then transformers itself cannot be imported
            "needs torchvision, which is not here or was built for another torch: pip install 'embedtune[vlm]', or the "
            "torchvision that is made for your torch"
        )
    if "trust_remote_code" in text:
        hint = "run it with --trust-remote-code, or model.trust_remote_code in a recipe"
        return "has code of its own; " + ("a teacher's is never run" if teacher else hint)
    # sentence-transformers passes a module's config.json as arguments
    if isinstance(error, TypeError) and "argument" in text:
        return f"cannot be loaded: the config.json of a module lacks a key or has an unknown one ({first_line(error)})"
    return f"cannot be loaded: {first_line(error)}"
