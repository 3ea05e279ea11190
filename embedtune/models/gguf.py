"""Models in GGUF files, as llama.cpp's quantised ones: they are written once as a plain transformers checkpoint."""

from __future__ import annotations

import importlib.util
import io
from contextlib import redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import InputError, reason
from ..files import link

ENDING = ".gguf"


def refuse_without_reader(file: Path) -> None:
    """Raises InputError where the package that reads GGUF is not installed."""
    if importlib.util.find_spec("gguf") is None:
        raise InputError(f"model {file}: reading GGUF needs the package gguf: pip install 'embedtune[gguf]'")


def write_checkpoint(file: Path, folder: Path) -> None:
    """Writes the file's configuration, tokenizer and weights, de-quantised to float32, into an empty folder.

    transformers refuses to save a model that it has read from GGUF, so the weights move into a plain one. It sees the
    file alone: code or adapters that stand beside it are not read. Raises InputError for a file that it cannot read.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    disable_progress_bar()
    set_verbosity_error()
    with TemporaryDirectory(prefix="embedtune-") as alone:
        link(file, Path(alone) / "model.gguf")
        options = {"gguf_file": "model.gguf", "local_files_only": True, "trust_remote_code": False}
        try:
            with redirect_stderr(io.StringIO()):  # a progress bar that no setting turns off
                tokenizer = AutoTokenizer.from_pretrained(alone, **options)
                model = AutoModel.from_pretrained(alone, dtype="float32", **options)
        except Exception as error:  # each kind of damage, and each architecture without a reader, has its own
            raise InputError(f"model {file}: transformers cannot read this GGUF file: {reason(error)}") from error
    config = type(model.config).from_dict({**model.config.to_dict(), "quantization_config": None})
    del config.quantization_config, config._name_or_path
    with torch.device("meta"):
        plain = type(model)(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
