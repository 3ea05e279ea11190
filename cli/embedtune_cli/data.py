"""`embedtune data`: check, convert and split dataset folders."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedtune.errors import BarMissed, InputError

from . import options
from .options import OUTPUT_HELP, argument, model_option, option, output_option, switch
from .output import say, say_left_out, show_json, show_table, show_tables

if TYPE_CHECKING:
    from embedtune.data.check import FolderCheck

app = typer.Typer(no_args_is_help=True, help="Check, convert and split dataset folders.\n\n"
                  "Example: embedtune data check data/scifact")  # fmt: skip

MOST_LINES = 3  # lines that a table names for each kind of fault


@app.command()
def check(
    folder: options.FolderArgument,
    model: Annotated[str | None, model_option("lengths are not counted")] = None,
    max_length: options.MaxLength = None,
    fix: Annotated[bool, switch("--fix", "Show what would be mended; with --output, write the mended folder.")] = False,
    output: Annotated[Path | None, output_option("DIR", "nothing is written")] = None,
    similarity: Annotated[
        float | None,
        option(
            "SHARE",
            "Look for queries whose characters are those of a training query or positive to this share.",
            default="0.8, up to 100,000 texts",
            max=1,
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Count the contents of a dataset folder and list every fault. Errors end with exit code 1, warnings with 0.

    --fix never changes DATA itself. With --output the exit code is 0 if no error is left. With --model it also counts
    the documents that are longer than the model reads.

    Example: embedtune data check data/scifact

    Example: embedtune data check data/mine --fix --output data/mine-mended

    Example: embedtune data check data/scifact --model sentence-transformers/all-MiniLM-L6-v2
    """
    from embedtune.data.check import check as check_folder
    from embedtune.data.mend import mend, mending_of

    if max_length is not None and model is None:
        raise InputError("--max-length has no effect without --model")
    if output is not None and not fix:
        raise InputError("--output has no effect without --fix")
    if overwrite and output is None:
        raise InputError("--overwrite has no effect without --output")
    report = check_folder(folder, similarity)
    if model is not None:
        _count_cut(report, model, max_length)
    mendings = [mending_of(fault.kind) if fix else None for fault in report.faults]
    if as_json:
        pairs = zip(report.faults, mendings, strict=True)
        faults = [{**asdict(f), "count": f.count, **({"mending": m} if fix else {})} for f, m in pairs]
        show_json({"folder": str(folder), "counts": report.counts, "faults": faults})
    else:
        rows = [[f.severity, f.kind, f.count, _first_lines(f.where)] for f in report.faults]
        rows = [[*row, mending] for row, mending in zip(rows, mendings, strict=True)] if fix else rows
        faults_table = ("Faults", ["severity", "fault", "count", "where", *(["mending"] if fix else [])], rows)
        counts = [list(pair) for pair in report.counts.items()]
        show_tables([(str(folder), ["what", "count"], counts), *([faults_table] if rows else [])])
        if any(fault.count > MOST_LINES for fault in report.faults):
            say("--json lists every line of each fault")
    for note in report.notes:
        say(f"note: {note}")
    if output is not None:
        mended = mend(report, output, overwrite=overwrite)
        say(f"written: {output} ({', '.join(f'{name} {count:,}' for name, count in mended.counts.items())})")
    elif report.errors:
        raise BarMissed(f"{folder}: {report.errors} error{'s' if report.errors > 1 else ''}")


def _count_cut(report: FolderCheck, model: str, max_length: int | None) -> None:
    """Adds the number of documents that the model cuts to the report, and says the way on."""
    from embedtune.data.jsonl import JsonLines
    from embedtune.models.encoder import load_encoder
    from embedtune.models.lengths import cut_documents
    from embedtune.recipe import Model

    if any(fault.severity == "error" and fault.file == "corpus.jsonl" for fault in report.faults):
        say("corpus.jsonl has errors, so that the lengths of its documents are not counted")
        return
    encoder = load_encoder(Model(name=model, max_length=max_length))
    lengths = cut_documents(JsonLines(report.folder / "corpus.jsonl"), encoder)
    if lengths.room is None:
        say(f"{model} reads documents of any length")
        return
    report.counts[f"documents cut at {lengths.max_length} tokens"] = lengths.cut
    if lengths.cut:
        say(
            f"{lengths.cut / lengths.documents:.0%} of the documents are longer than the {lengths.max_length} tokens "
            f"that {model} reads; eval, mine and index split them with --passages TOKENS (at most {lengths.room}), a "
            "recipe with model.passages"
        )


def _first_lines(where: tuple[str, ...]) -> str:
    more = f"; and {len(where) - MOST_LINES} more" if len(where) > MOST_LINES else ""
    return "; ".join(where[:MOST_LINES]) + more


@app.command()
def convert(
    source: Annotated[str, argument("SOURCE", "A file, folder or archive, or hf://owner/name@revision.")],
    output: options.OutputFolder,
    split: Annotated[str, option("NAME", "The split to write, if the source has no splits of its own.")] = "train",
    corpus: options.Corpus = None,
    query_file: Annotated[
        Path | None, option("FILE", "Queries, one a row; SOURCE holds their ids.", default="texts in SOURCE")
    ] = None,
    query_column: Annotated[str, option("COLUMN", "The column of queries.", default="by name")] = "",
    query_id_column: Annotated[str, option("COLUMN", "The column of queries' ids.", default="by name")] = "",
    positive_column: Annotated[str, option("COLUMN", "The column of positives.", default="by name")] = "",
    negative_column: Annotated[
        list[str] | None, option("COLUMN...", "A column of negatives.", default="by name")
    ] = None,
    query_image_column: Annotated[
        str, option("COLUMN", "Images of queries that also have text.", default="by name")
    ] = "",
    positive_image_column: Annotated[
        str, option("COLUMN", "Images of positives that also have text.", default="by name")
    ] = "",
    id_column: options.IdColumn = "",
    title_column: options.TitleColumn = "",
    text_column: options.TextColumn = None,
    label_column: Annotated[
        str, option("COLUMN", "Labels or scores: which pairs are positives, which negatives.", default="by name")
    ] = "",
    label_threshold: Annotated[
        float | None, option("SCORE", "Pairs that score at least this are positives, others negatives.")
    ] = None,
    negative_threshold: Annotated[
        float | None, option("SCORE", "Only pairs that score below this are negatives.", default="--label-threshold")
    ] = None,
    positive_label: Annotated[list[str] | None, option("VALUE...", "A label of positives.", default="1, yes")] = None,
    negative_label: Annotated[
        list[str] | None, option("VALUE...", "A label of negatives.", default="all that are not positive")
    ] = None,
    ignore_column: Annotated[list[str] | None, option("COLUMN...", "A column to leave unused.")] = None,
    skip_bad: options.SkipBad = 0,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Turn pairs, triplets, labelled lists and other tools' data into a dataset folder.

    SOURCE is a file of pairs, triplets or lists (.jsonl, .json, .csv, .tsv or .parquet, plain or .gz), a FlagEmbedding
    or Tevatron file, a published dataset as downloaded, a Hugging Face dataset saved on disk, or
    hf://owner/name@revision. Columns are found by name (query, question; positive, document, answer; negative,
    negative_1; label, score); where the names do not show what a column holds, the error says which flags do.

    Pairs of ids are read with --corpus, and with --query-file where they name queries by ids too. --query-column is
    then the column of texts in the file of queries. All documents of these files become part of the corpus.

    Labels 1 and 0 are read as positives and given negatives; scores want --label-threshold, other labels
    --positive-label. Given negatives are written to negatives/given.run.

    A column may hold images: paths inside SOURCE's folder, bytes, data: URIs, Hugging Face's Image. The names
    query_image, positive_image, document_image, negative_image and image are recognised. A text and an image of one
    role are one item. Images are copied to images/.

    Example: embedtune data convert pairs.csv --output data/mine --query-column frage --positive-column antwort

    Example: embedtune data convert pairs.csv --corpus articles.jsonl --output data/mine
    """
    from embedtune.data.convert import convert as convert_source
    from embedtune.data.documents import TextColumns, TextFiles
    from embedtune.data.labels import Labels
    from embedtune.data.pairs import Columns

    columns = Columns(
        query="" if query_file else query_column,
        query_id=query_id_column,
        positive=positive_column,
        title="" if corpus else title_column,
        negatives=tuple(negative_column or ()),
        query_image=query_image_column,
        positive_image=positive_image_column,
        label=label_column,
        ignored=tuple(ignore_column or ()),
        labels=Labels(
            threshold=label_threshold,
            negative_threshold=negative_threshold,
            positive=tuple(positive_label or ()),
            negative=tuple(negative_label or ()),
        ),
    )
    files = TextFiles(
        corpora=tuple(corpus or ()),
        queries=query_file,
        columns=TextColumns(id=id_column, title=title_column, texts=tuple(text_column or ())),
        query_columns=TextColumns(texts=(query_column,) if query_column else ()),
    )
    converted = convert_source(
        source, output, split=split, columns=columns, files=files, skip_bad=skip_bad, overwrite=overwrite
    )
    say_left_out(converted.left_out)
    for note in converted.notes:
        say(note)
    if as_json:
        show_json({**asdict(converted), "folder": str(output)})
    else:
        rows: list[list[object]] = [["documents", converted.documents], ["queries", converted.queries]]
        rows += [[f"{name}: judgements", count] for name, count in converted.judgements.items()]
        show_table(["what", "count"], [*rows, ["negatives", converted.negatives]], as_json=False, title=str(output))
    say(f"written: {output}; next: embedtune data check {output}")


@app.command()
def split(
    folder: options.FolderArgument,
    test: Annotated[float, option("SHARE", "The share of queries for a new split `test`.")] = 0.0,
    validation: Annotated[float, option("SHARE", "The share of queries for a new split `validation`.")] = 0.0,
    source: Annotated[str, option("NAME", "The split that the queries are taken from.", "--source")] = "train",
    output: Annotated[Path | None, output_option("DIR", "the folder's name with -split")] = None,
    seed: Annotated[int, option("SEED", "The seed of the random draw of queries.")] = 0,
    allow_overlap: Annotated[
        bool, switch("--allow-overlap", "Allow a document to be a positive in several splits.")
    ] = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Divide a split's queries into new splits and write them as a new folder. The old folder stays as it is.

    Queries that share a positive stay together, so that no test document is a training positive.

    Example: embedtune data split data/mine --test 0.2 --validation 0.1
    """
    from embedtune.data.resolution import doubt_of_size
    from embedtune.data.split import split_folder

    target = output or folder.resolve().with_name(f"{folder.resolve().name}-split")
    shares = {name: share for name, share in (("test", test), ("validation", validation)) if share}
    parts = split_folder(
        folder, target, shares, source=source, seed=seed, allow_overlap=allow_overlap, overwrite=overwrite
    )
    rows = [[name, len(qrels), sum(map(len, qrels.values()))] for name, qrels in parts.items()]
    show_table(["split", "queries", "judgements"], rows, as_json=as_json, title=str(target))
    for name in shares:
        if doubt := doubt_of_size(name, len(parts[name])):
            say(f"warning: {doubt}")
    say(f"note: queries that are nearly equal may be in different splits; find them: embedtune data check {target}")
    say(f"written: {target}")


@app.command("sample-sets")
def sample_sets(
    names: Annotated[
        list[str] | None,
        argument(
            "NAME...",
            "The set: functions, prose, openmoji, twemoji, or hf://OWNER/NAME@REVISION.",
            "functions and prose",
        ),
    ] = None,
    output: Annotated[Path, option("DIR", OUTPUT_HELP, "--output", "-o")] = Path("sample-sets"),
) -> None:
    """Make small real datasets, to see what a model forgets. No network, except for a set that hf:// names.

    functions: the standard library's functions and their docstrings. prose: docstrings of installed packages. openmoji
    and twemoji: pictures and their names; they need embedtune\\[images]. A set that is there already stays.

    Example: embedtune data sample-sets

    Example: embedtune data sample-sets openmoji --output sample-sets
    """
    from embedtune.data.dataset import load_dataset, splits_of
    from embedtune.demo.sample_sets import OFFLINE, sample_set

    rows: list[list[object]] = []
    for name in names or OFFLINE:
        folder = sample_set(name, output)
        for split in splits_of(folder):
            dataset = load_dataset(folder, split)
            rows.append([str(folder), split, len(dataset.corpus), len(dataset.qrels)])
    show_table(["folder", "split", "documents", "queries"], rows, as_json=False)
