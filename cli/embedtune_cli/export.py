"""`embedtune export`: a model folder for other tools."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from . import options
from .options import DATA_HELP, FORMAT_HELP, argument, option
from .output import say, show_json, show_table


def export(
    model: Annotated[
        str, argument("MODEL", "A model folder, a training run's folder, a hub id, or a LoRA adapter's folder.")
    ],
    output: options.OutputFolder,
    form: Annotated[Literal["safetensors", "onnx"], typer.Option("--format", help=FORMAT_HELP)] = "safetensors",
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16", "int8"],
        typer.Option(
            "--dtype", help="The number format of the weights. auto: as in the model's files. int8: --format onnx."
        ),
    ] = "auto",
    data: Annotated[list[str] | None, option("DIR[:SPLIT]...", DATA_HELP, "--data", "-d")] = None,
    trust_remote_code: options.TrustRemoteCode = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    push_to: Annotated[str | None, option("OWNER/NAME", "Also upload the model to the hub.", "--push-to")] = None,
) -> None:
    """Write a complete model folder for serving: an adapter is merged into its base, a run's model keeps its card.

    --format onnx adds onnx/model.onnx, from token ids to the embedding; it needs embedtune\\[onnx]. The graph is
    compared with the model over 300 texts: where a cosine is below 0.9999 nothing is written.
    --dtype prints what it costs: cosine, size, speed, and nDCG@10 on --data.

    Example: embedtune export runs/mine --output exported

    Example: embedtune export runs/mine --output exported --format onnx --dtype int8 --data data/mine

    The network is used by --push-to alone, with the token in HF_TOKEN.
    """
    from embedtune.recipe import Model
    from embedtune.ship.export import Target
    from embedtune.ship.export import export as write_model

    block = Model(name=model, trust_remote_code=trust_remote_code)
    target = Target(form=form, dtype=dtype, data=data or ())
    exported = write_model(block, output, target=target, push_to=push_to, overwrite=overwrite)
    rows = [
        {
            "form": cost.form, "MB": cost.bytes / 1e6, "lowest cosine": cost.lowest, "mean cosine": cost.mean,
            "texts per second": cost.texts_per_second,
            **{f"{label} nDCG@10": value for label, value in cost.values.items()},
        }
        for cost in exported.costs
    ]  # fmt: skip
    if as_json:
        show_json({"folder": str(exported.folder), "forms": rows})
    elif rows:
        show_table(list(rows[0]), [list(row.values()) for row in rows], as_json=False)
    say(f"written: {exported.folder}" + (f", and uploaded as {push_to}" if push_to else ""))
