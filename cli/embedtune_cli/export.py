"""`embedtune export`: a model folder for other tools."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from .options import FORMAT_HELP, MODEL_HELP, OutputFolder, Overwrite, TrustRemoteCode
from .output import say


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=f"{MODEL_HELP} Or the folder of a LoRA adapter.")],
    output: OutputFolder,
    form: Annotated[Literal["safetensors", "onnx"], typer.Option("--format", help=FORMAT_HELP)] = "safetensors",
    trust_remote_code: TrustRemoteCode = False,
    overwrite: Overwrite = False,
    push_to: Annotated[
        str | None, typer.Option("--push-to", metavar="OWNER/NAME", help="Also upload the model to the hub.")
    ] = None,
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
