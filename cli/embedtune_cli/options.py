"""The arguments and flags that several verbs share: one name, one meaning and one help text each.

A metavar that ends in `...` marks a flag that may be given several times.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Precision = Literal["auto", "fp32", "bf16", "fp16"]

MODEL_HELP = "A model folder, a run folder or a hub id."
DATA_HELP = "A dataset folder, or DIR:split for one of its splits."
OUTPUT_HELP = "Where to write the result."
FORMAT_HELP = "The format of the result."
IMAGE_FOLDER_HELP = "A folder in which images are read, if they lie elsewhere."
MEASURES_HELP = "Measures, as in 'nDCG@10 R@100': nDCG, R, RR, AP, P, Success or hit, each with its cut-off."

RecipeArgument = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="A recipe file (YAML); `embedtune recipes list` names those that ship.")
]
DataArgument = Annotated[str, typer.Argument(metavar="DATA", help=DATA_HELP)]
FolderArgument = Annotated[Path, typer.Argument(metavar="DATA", help="A dataset folder.")]
NegativesArgument = Annotated[
    Path, typer.Argument(metavar="NEGATIVES", help="A .run file that `embedtune mine` or a training run wrote.")
]

Model = Annotated[str, typer.Option("--model", "-m", metavar="MODEL", help=MODEL_HELP)]
MinedData = Annotated[
    str | None,
    typer.Option("--data", "-d", metavar="DIR[:SPLIT]", help=DATA_HELP, show_default="the dataset that was mined"),
]
OutputFolder = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help=OUTPUT_HELP)]
OutputFile = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help=OUTPUT_HELP)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result of this command.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Changes = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE...", help="Change one key of the recipe: train.epochs=2.")
]
MethodFolders = Annotated[
    list[Path],
    typer.Option(
        "--methods", metavar="DIR...", help="A folder of your own methods, laid out as DIR/weighting/NAME.py."
    ),
]
Device = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="Where the model runs: auto, cpu, cuda, cuda:0 or mps.")
]
ModelPrecision = Annotated[Precision, typer.Option("--precision", help="The number format that the model computes in.")]
MaxLength = Annotated[
    int | None,
    typer.Option(
        "--max-length", min=1, metavar="TOKENS", help="Cut texts to this length.", show_default="the model's own"
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code", help="Run the Python code in the model's folder. Only if you trust its author."
    ),
]
BrokenImages = Annotated[
    float | None,
    typer.Option(
        "--broken-images",
        min=0,
        max=1,
        metavar="SHARE",
        help="Leave out items whose image cannot be read, up to this share of all items.",
        show_default="such an image is an error",
    ),
]
Sheet = Annotated[
    Path | None,
    typer.Option(
        "--sheet", metavar="FILE", help="Also draw the listed items, with their images, in one .png, .jpg or .webp."
    ),
]
