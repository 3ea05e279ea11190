"""`embedtune mine`: hard negatives from a recipe or a dataset."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from . import options
from .options import argument, model_option, option, output_option
from .output import progress, say, say_left_out, show_json, show_table

if TYPE_CHECKING:
    from embedtune.recipe import Recipe

PEER = "Named as in sentence-transformers' mine_hard_negatives"
peer = partial(option, rich_help_panel=PEER)


def mine(
    source: Annotated[str, argument("RECIPE|DATA", "A recipe file, or a dataset folder (DIR or DIR:split).")],
    changes: options.Changes = [],  # noqa: B006
    methods: options.MethodFolders = [],  # noqa: B006
    model: Annotated[str | None, model_option("the recipe's model")] = None,
    output: Annotated[Path | None, output_option("FILE", "negatives/RECIPE.run in the dataset")] = None,
    teacher: Annotated[
        str | None,
        option(
            "MODEL",
            "The model whose scores the filters use: an encoder, or cross-encoder:NAME.",
            default="the model that mines",
        ),
    ] = None,
    num_negatives: Annotated[
        int | None,
        peer("N", "Write at most N negatives for each query.", default="all that the filters keep"),
    ] = None,
    range_min: Annotated[
        int | None, peer("N", "After the filters, skip each query's N highest-scoring candidates.")
    ] = None,
    range_max: Annotated[int | None, peer("N", "Retrieve N candidates for each query.")] = None,
    relative_margin: Annotated[
        float | None,
        peer("SHARE", "Drop candidates from the positive's score less this share of it upward (0.05: from 95% of it)."),
    ] = None,
    absolute_margin: Annotated[
        float | None,
        peer("SCORE", "Drop candidates that score at or above the positive's score minus this number."),
    ] = None,
    max_score: Annotated[
        float | None, peer("SCORE", "Drop candidates that the teacher scores at or above this number.")
    ] = None,
    sampling_strategy: Annotated[
        Literal["top", "random"] | None,
        typer.Option(
            rich_help_panel=PEER,
            help="Which of the kept candidates to write: the best ones or a random draw.",
            show_default="the recipe's sampling",
        ),
    ] = None,
    max_length: options.MaxLength = None,
    chunk_tokens: options.ChunkTokens = None,
    passages: options.Passages = None,
    stride: options.Stride = None,
    trust_remote_code: options.TrustRemoteCode = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Mine hard negatives, filter out the false ones, and write the evidence for `embedtune audit`.

    Example: embedtune mine recipes/text/scifact-mined.yaml --output mined.run

    Example: embedtune mine data/scifact:train --model sentence-transformers/all-MiniLM-L6-v2 --output mined.run
    --num-negatives 4 --relative-margin 0.05

    Writes a TREC run, and beside it the evidence (.jsonl) and a summary (.json). After a kill, the same command
    continues. Several processes share the encoding: torchrun --nproc-per-node 2 -m embedtune_cli mine ...
    """
    from embedtune import distributed
    from embedtune.data.dataset import load_training
    from embedtune.recipe import passages_of_flags
    from embedtune.recipe.mining_flags import Flags, adjusted

    block = {
        "name": model,
        "max_length": max_length,
        "chunk_tokens": chunk_tokens,
        "passages": passages_of_flags(passages, stride),
        "trust_remote_code": trust_remote_code,
    }
    recipe = _recipe(source, changes, methods, block, output)
    flags = Flags(
        num_negatives=num_negatives,
        range_min=range_min,
        range_max=range_max,
        relative_margin=relative_margin,
        absolute_margin=absolute_margin,
        max_score=max_score,
        sampling_strategy=sampling_strategy,
        teacher=teacher,
    )
    recipe = adjusted(recipe, flags)
    dataset = load_training(recipe.data)
    if not distributed.leads():
        from embedtune.train.negatives import encode_for_recipe

        encode_for_recipe(recipe, dataset)
        return
    say_left_out(dataset.left_out)
    target = output or dataset.folder / "negatives" / f"{Path(source).stem}.run"

    from embedtune.negatives.evidence import MiningFiles, check_output
    from embedtune.train.negatives import mine_recipe

    check_output(MiningFiles(target), overwrite=overwrite)

    with progress("mining") as show:
        report = mine_recipe(recipe, target, draw=num_negatives is not None, on_progress=show, dataset=dataset)
    for sentence in report.sentences():
        say(sentence)
    if as_json:
        show_json({"output": str(target), **vars(report)})
        return
    rows = [
        ["queries", report.queries],
        ["candidates", report.candidates],
        *([f"dropped by {name}", count] for name, count in report.dropped.items()),
        ["kept", report.kept],
        ["written", report.written],
        [f"queries with fewer than {report.asked}", report.fewer],
        ["queries without any", report.without],
    ]
    show_table(["mined", "count"], rows, as_json=False)
    say(f"written: {target}; see `embedtune audit {target}`")


def _recipe(
    source: str,
    changes: list[str],
    methods: list[Path],
    block: dict[str, Any],
    output: Path | None,
) -> Recipe:
    """The recipe file, or a recipe without a miner for a dataset and a model. block: the flags about the model."""
    from embedtune import recipe
    from embedtune.data.convert import is_hub_name
    from embedtune.errors import InputError

    if source.endswith((".yaml", ".yml")):
        if any(block.values()):
            raise InputError(
                "--model, --max-length, --chunk-tokens, --passages and --trust-remote-code go with DATA; change a "
                "recipe with --set model.name=..."
            )
        return recipe.load_recipe(source, changes, methods=methods)
    name = recipe.without_prefixes(source)
    if not is_hub_name(name) and not Path(recipe.split_of(name)[0]).expanduser().exists():
        raise InputError(f"{source}: no such dataset folder; a recipe's name ends in .yaml")
    if changes or methods:
        raise InputError(f"{source}: --set and --methods go with a recipe, and a recipe's name ends in .yaml")
    if block["name"] is None or output is None:
        missing = {"--model": block["name"] is None, "--output": output is None}
        absent = " and ".join(flag for flag, is_missing in missing.items() if is_missing)
        raise InputError(f"{source}: to mine a dataset, give {absent}; a recipe's name ends in .yaml")
    return recipe.Recipe(version=1, model=recipe.Model(**block), data=recipe.Data(train=source))
