"""`embedtune export`: a model ready to leave."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .output import say


def export(
    model: Annotated[str, typer.Argument(help="A run folder, a model folder or hub id, or a LoRA adapter's folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    form: Annotated[
        Literal["safetensors", "onnx"], typer.Option("--format", help="onnx needs sentence-transformers\\[onnx].")
    ] = "safetensors",
    push_to: Annotated[
        str | None, typer.Option("--push-to", metavar="OWNER/NAME", help="Also upload it to the hub under this name.")
    ] = None,
) -> None:
    """Write a model whole: an adapter merged into its base, a run's model with its card; for any serving tool.

    Example: embedtune export runs/mine --output exported

    Example: embedtune export runs/mine/adapter --output exported --format onnx

    Only --push-to uses the network (and HF_TOKEN).
    """
    from embedtune.ship.merge import export as run

    written = run(model, output, form=form, push_to=push_to)
    say(f"written: {written}" + (f", and uploaded as {push_to}" if push_to else ""))
