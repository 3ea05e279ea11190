"""`embedtune judge`: relevance scores for mined candidates."""

from __future__ import annotations

from typing import Annotated

from . import options
from .options import MODEL_HELP, option
from .output import progress, say, show_json


def judge(
    negatives: options.NegativesArgument,
    output: options.OutputFile,
    model: Annotated[str | None, option("MODEL", f"{MODEL_HELP} Or cross-encoder:NAME.", "--model", "-m")] = None,
    command: Annotated[
        str | None, option("PROGRAM", "A program that scores pairs: JSON lines in, a number a line out.")
    ] = None,
    data: options.MinedData = None,
    chunk_tokens: options.ChunkTokens = None,
    trust_remote_code: options.TrustRemoteCode = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Score mined candidates and their positives with a judge: a model or a program of yours.

    The filter `judge` reads the scores, and so do losses that take a teacher. They are written as a TREC run. A recipe
    names it like this: filtering: [{name: judge, path: judge.run}]

    Example: embedtune judge mined.run --model cross-encoder:cross-encoder/ms-marco-MiniLM-L6-v2 --output judge.run

    Example: embedtune judge mined.run --command "python ask_an_expert.py" --output judge.run

    The program reads one JSON object a line, {"query_id", "doc_id", "query", "document"}, and prints one number for
    each, in the same order.
    """
    from embedtune.data.trec import JUDGED, write_run
    from embedtune.errors import InputError
    from embedtune.files import check_file
    from embedtune.negatives.audit import dataset_of
    from embedtune.negatives.evidence import files_of
    from embedtune.recipe import CROSS_ENCODER, Model

    if (model is None) == (command is None):
        raise InputError("name one judge: --model MODEL or --command PROGRAM")
    if command is not None and trust_remote_code:
        raise InputError("--trust-remote-code has no effect with --command")
    if chunk_tokens is not None and (model is None or model.startswith(CROSS_ENCODER)):
        raise InputError("--chunk-tokens has an effect with an encoder only, and the judge is none")
    check_file(output, JUDGED, overwrite=overwrite)
    files = files_of(negatives)
    dataset = dataset_of(files, data)

    from embedtune.negatives.judging import judge_by_command, judge_by_model, pairs_of

    pairs = pairs_of(files, dataset)
    if command is not None:
        run = judge_by_command(pairs, dataset, command)
    else:
        with progress("judging") as show:
            block = Model(name=str(model), chunk_tokens=chunk_tokens, trust_remote_code=trust_remote_code)
            run = judge_by_model(pairs, dataset, block, on_progress=show)
    write_run(output, run, "judge")
    counts = {"queries": len(run), "pairs": sum(map(len, run.values()))}
    if as_json:
        show_json({"output": str(output), "judge": model or command, **counts})
    say(f"written: {output} ({counts['pairs']:,} pairs of {counts['queries']:,} queries)")
