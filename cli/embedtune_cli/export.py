"""`embedtune export`: a model folder for other tools."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from . import options
from .options import FORMAT_HELP, argument, option
from .output import say


def export(
    model: Annotated[
        str, argument("MODEL", "A model folder, a training run's folder, a hub id, or a LoRA adapter's folder.")
    ],
    output: options.OutputFolder,
    form: Annotated[Literal["safetensors", "onnx"], typer.Option("--format", help=FORMAT_HELP)] = "safetensors",
    trust_remote_code: options.TrustRemoteCode = False,
    overwrite: options.Overwrite = False,
    push_to: Annotated[str | None, option("OWNER/NAME", "Also upload the model to the hub.", "--push-to")] = None,
) -> None:
    """Write a complete model folder for serving: an adapter is merged into its base, a run's model keeps its card.

    ONNX needs sentence-transformers\\[onnx].

    Example: embedtune export runs/mine --output exported

    Example: embedtune export runs/mine/adapter --output exported --format onnx

    The network is used by --push-to alone, with the token in HF_TOKEN.
    """
    from embedtune.recipe import Model
    from embedtune.ship.export import export as write_model

    block = Model(name=model, trust_remote_code=trust_remote_code)
    written = write_model(block, output, form=form, push_to=push_to, overwrite=overwrite)
    say(f"written: {written}" + (f", and uploaded as {push_to}" if push_to else ""))
