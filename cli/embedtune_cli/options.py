"""The arguments and flags that several verbs share: one name, one meaning and one help text each.

A metavar that ends in `...` marks a flag that may be given several times.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer


def option(metavar: str, help: str, *names: str, default: str | None = None, **limits: Any) -> Any:
    """A flag with a value. metavar: names the value. default: says what holds without the flag, where it is None."""
    return typer.Option(*names, metavar=metavar, help=help, show_default=default or True, **limits)


def output_option(metavar: str, default: str) -> Any:
    return option(metavar, OUTPUT_HELP, "--output", "-o", default=default)


def model_option(default: str) -> Any:
    return option("MODEL", MODEL_HELP, "--model", "-m", default=default)


def switch(name: str, help: str) -> Any:
    """A flag without a value."""
    return typer.Option(name, help=help)


def argument(metavar: str, help: str, default: str | None = None) -> Any:
    return typer.Argument(metavar=metavar, help=help, show_default=default or True)


Precision = Literal["auto", "fp32", "bf16", "fp16"]

MODEL_HELP = "A model folder, a training run's folder or a hub id."
DATA_HELP = "A dataset folder, or DIR:split for one of its splits."
OUTPUT_HELP = "Where to write the result."
FORMAT_HELP = "The format of the result."
QUANTIZE_HELP = "How documents' vectors are stored: none (float32), float16, int8 or binary. Queries stay float32."
IMAGE_FOLDER_HELP = "A folder in which images are read, if they lie elsewhere."
MEASURES_HELP = "Measures with cut-offs, as in 'nDCG@10 R@100': nDCG, R, RR (MRR), AP (MAP), P, Success, hit."

RecipeArgument = Annotated[
    Path, argument("RECIPE", "A recipe file (YAML); `embedtune recipes list` names those that ship.")
]
DataArgument = Annotated[str, argument("DATA", DATA_HELP)]
FolderArgument = Annotated[Path, argument("DATA", "A dataset folder.")]
NegativesArgument = Annotated[Path, argument("NEGATIVES", "A .run file that `embedtune mine` or a training run wrote.")]

Model = Annotated[str, option("MODEL", MODEL_HELP, "--model", "-m")]
MinedData = Annotated[
    str | None, option("DIR[:SPLIT]", DATA_HELP, "--data", "-d", default="the dataset that was mined")
]
OutputFolder = Annotated[Path, option("DIR", OUTPUT_HELP, "--output", "-o")]
OutputFile = Annotated[Path, option("FILE", OUTPUT_HELP, "--output", "-o")]
Overwrite = Annotated[bool, switch("--overwrite", "Replace an earlier result of this command.")]
Json = Annotated[bool, switch("--json", "Print the result as JSON.")]
Changes = Annotated[list[str], option("KEY=VALUE...", "Change one key of the recipe: train.epochs=2.", "--set")]
MethodFolders = Annotated[
    list[Path], option("DIR...", "A folder of your own methods, laid out as DIR/weighting/NAME.py.", "--methods")
]
Device = Annotated[str, option("DEVICE", "Where the model runs: auto, cpu, cuda, cuda:0 or mps.", "--device")]
ModelPrecision = Annotated[
    Precision, option("FORMAT", "What the model computes in: auto, fp32, bf16 or fp16.", "--precision")
]
MaxLength = Annotated[
    int | None, option("TOKENS", "Cut texts to this length.", "--max-length", default="the model's own", min=1)
]
ChunkTokens = Annotated[
    int | None,
    option(
        "TOKENS",
        "Encode so many tokens at once: it decides memory and speed. They are halved where the memory runs out.",
        "--chunk-tokens",
        default="by device",
        min=1,
    ),
]
TruncateDim = Annotated[
    int | None,
    option("N", "Use only the first N dimensions of the vectors.", "--truncate-dim", default="all", min=1),
]
Quantize = Annotated[Literal["none", "float16", "int8", "binary"], option("FORMAT", QUANTIZE_HELP, "--quantize")]
Rescore = Annotated[
    Literal["int8", "float32"] | None,
    option(
        "FORMAT",
        "Keep a second vector of each document, in which the 1,000 nearest are scored again: int8 or float32.",
        "--rescore",
        default="the stored vectors",
    ),
]
Calibrate = Annotated[
    str | None,
    option(
        "DIR[:SPLIT]",
        "The dataset whose documents give int8 its ranges.",
        "--calibrate",
        default="the documents that are stored",
    ),
]
Passages = Annotated[
    int | None,
    option(
        "TOKENS",
        "Split longer documents into passages of so many tokens of the model; the best one stands for its document.",
        "--passages",
        default="cut at the maximum length",
        min=16,
    ),
]
Stride = Annotated[
    int | None,
    option("TOKENS", "Tokens that neighbouring passages share (transformers' stride).", "--stride", default="0", min=0),
]
TrustRemoteCode = Annotated[
    bool, switch("--trust-remote-code", "Run the Python code in the model's folder. Only if you trust its author.")
]
SkipBad = Annotated[int, option("N", "Leave out up to N bad lines, and list them.", min=0)]
BrokenImages = Annotated[
    float | None,
    option(
        "SHARE",
        "Leave out items whose image cannot be read, up to this share of all items.",
        "--broken-images",
        default="such an image is an error",
        min=0,
        max=1,
    ),
]
Corpus = Annotated[
    list[Path] | None,
    option("FILE...", "Documents, one a row; the pairs hold their ids.", "--corpus", default="texts in the pairs"),
]
IdColumn = Annotated[str, option("COLUMN", "The column of documents' ids.", "--id-column", default="by name")]
TitleColumn = Annotated[str, option("COLUMN", "The column of documents' titles.", "--title-column", default="by name")]
TextColumn = Annotated[
    list[str] | None,
    option("COLUMN...", "A column of documents' texts; several are joined.", "--text-column", default="by name"),
]
ThirdColumn = Annotated[
    Literal["rank", "score"] | None,
    option(
        "KIND",
        "What the last column of a run of 3 columns holds: rank or score.",
        "--third-column",
        default="seen in the file",
    ),
]
Sheet = Annotated[
    Path | None, option("FILE", "Also draw the listed items, with their images, in one .png, .jpg or .webp.", "--sheet")
]
