"""`embedtune parity`: whether a server's embeddings are the model's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from . import options
from .options import DATA_HELP, argument, option, switch
from .output import say, show_json, show_tables

if TYPE_CHECKING:
    from embedtune.evaluate.significance import Paired
    from embedtune.ship.parity import Parity


def parity(
    model: Annotated[str, argument("MODEL", f"The model that the server should serve. {options.MODEL_HELP}")],
    url: Annotated[
        str,
        option(
            "URL", "Where the server answers: .../v1/embeddings (OpenAI's protocol) or .../embed (TEI).", "--endpoint"
        ),
    ],
    texts: Annotated[Path | None, option("FILE", "Also compare these texts: one a line.", "--texts")] = None,
    data: Annotated[
        str | None,
        option("DIR[:SPLIT]", DATA_HELP, "--data", "-d", default="nDCG@10 is not measured"),
    ] = None,
    at_most: Annotated[
        float, option("DISTANCE", "The largest 1 - cosine that passes; half precision stays below 0.001.", min=0, max=2)
    ] = 0.001,
    adds_prompts: Annotated[
        bool, switch("--server-adds-prompts", "Send texts without the model's prompts: the server puts them there.")
    ] = False,
    served_name: Annotated[
        str | None, option("NAME", "The model's name on the server.", default="the only one it lists")
    ] = None,
    key_variable: Annotated[
        str | None, option("NAME", "The environment variable that holds the server's API key.")
    ] = None,
    max_length: options.MaxLength = None,
    chunk_tokens: options.ChunkTokens = None,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
) -> None:
    """Compare a server's embeddings with the model's, and name the likeliest cause of a difference.

    The texts tell prompts, truncation, pooling, normalisation, dimensions, order and number format apart. Exit code 1:
    a text differs by more than --at-most, or the vectors' lengths differ.

    Example: embedtune parity runs/mine --endpoint http://localhost:8000/v1/embeddings

    Example: embedtune parity runs/mine --endpoint http://localhost:8080/embed --data data/scifact --json
    """
    from embedtune.data.dataset import load_dataset
    from embedtune.data.jsonl import decode, read_lines
    from embedtune.errors import BarMissed
    from embedtune.models.encoder import load_encoder
    from embedtune.recipe import Model
    from embedtune.ship.endpoint import Endpoint
    from embedtune.ship.parity import check, retrieval_difference

    endpoint = Endpoint(url=url, served_name=served_name, key_variable=key_variable, adds_prompts=adds_prompts)
    dataset = load_dataset(data) if data is not None else None
    lines = [decode(raw, f"{texts}:{number}").rstrip("\r\n") for number, raw in read_lines(texts)] if texts else []
    block = Model(name=model, max_length=max_length, chunk_tokens=chunk_tokens, trust_remote_code=trust_remote_code)
    encoder = load_encoder(block, cached=False)
    result = check(encoder, endpoint, [line for line in lines if line.strip()], at_most=at_most)
    difference = retrieval_difference(encoder, endpoint, dataset) if dataset is not None else None
    passes = result.passes(at_most)
    if as_json:
        show_json(_as_json(result, passes, difference))
    else:
        _show(result, difference)
    largest = f"the largest 1 - cosine is {result.distance:.2g}, and --at-most {at_most:g}"
    if not passes:
        raise BarMissed(f"the server's embeddings are not those of {encoder.name}: {largest}")
    say(f"the server's embeddings are those of {encoder.name}: {largest}")


def _show(result: Parity, difference: Paired | None) -> None:
    columns = ["texts", "count", "lowest cosine", "5% below", "median"]
    rows: list[list[object]] = [
        [group.kind, group.texts, group.lowest, group.percentile_5, group.median] for group in result.groups
    ]
    tables = [("Cosines between the server's vectors and the model's", columns, rows)]
    worst = sorted((cosine, text, group.kind) for group in result.groups for text, cosine in group.worst)[:5]
    if result.causes:
        shown: list[list[object]] = [[kind, cosine, " ".join(text.split())[:80]] for cosine, text, kind in worst]
        tables.append(("The texts that differ most", ["texts", "cosine", "text"], shown))
    if difference is not None:
        columns = ["queries", "model", "server", "difference", "low", "high"]
        d = difference
        tables.append(("nDCG@10", columns, [[d.queries, d.baseline, d.value, d.difference, d.low, d.high]]))
    show_tables(tables)
    for text in (*result.causes, *result.remarks):
        say(text)


def _as_json(result: Parity, passes: bool, difference: Paired | None) -> dict[str, object]:
    return {
        "passes": passes,
        "largest_distance": result.distance,
        "causes": result.causes,
        "remarks": result.remarks,
        "texts": [vars(group) for group in result.groups],
        "nDCG@10": None if difference is None else vars(difference),
    }
