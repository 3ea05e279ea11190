"""`embedtune merge`: a mixture of a base model's weights and a tuned one's."""

from __future__ import annotations

from typing import Annotated

from . import options
from .options import MODEL_HELP, argument, option
from .output import say, show_json, show_tables

# Column -> the field of a comparison of the mixture with the base.
COLUMNS = {"queries": "queries", "base": "baseline", "merged": "value", "difference": "difference", "low": "low",
           "high": "high"}  # fmt: skip


def merge(
    base: Annotated[str, argument("BASE", f"The model before tuning. {MODEL_HELP}")],
    tuned: Annotated[
        str,
        argument(
            "TUNED", "The tuned model: a model folder, a training run's folder, a hub id, or a LoRA adapter's folder."
        ),
    ],
    output: options.OutputFolder,
    alpha: Annotated[
        float | None, option("SHARE", "The tuned model's share of the weights: 0 is the base.", min=0, max=1)
    ] = None,
    choose_on: Annotated[
        list[str] | None, option("DIR[:SPLIT]...", "Choose alpha on this dataset, which the model was not tuned for.")
    ] = None,
    largest_drop: Annotated[
        float | None,
        option(
            "DROP",
            "With --choose-on: how far the measure may fall below the base's: 0.01 is 0.45 to 0.44.",
            default="0.01",
            min=0,
        ),
    ] = None,
    largest_flips: Annotated[
        float | None,
        option(
            "SHARE", "With --choose-on: the share of a dataset's queries that may go from right to wrong.", min=0, max=1
        ),
    ] = None,
    measure: Annotated[
        str | None, option("NAME", "With --choose-on: the measure that chooses.", default="nDCG@10")
    ] = None,
    alphas: Annotated[
        list[float] | None,
        option("SHARE...", "With --choose-on: an alpha to try.", default="1.0, 0.9, ... 0.0", min=0, max=1),
    ] = None,
    precision: options.ModelPrecision = "fp32",
    chunk_tokens: options.ChunkTokens = None,
    trust_remote_code: options.TrustRemoteCode = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Mix the weights of a base model and a tuned one (WiSE-FT): a smaller gain in domain, a smaller loss elsewhere.

    Example: embedtune merge sentence-transformers/all-MiniLM-L6-v2 runs/mine/model --alpha 0.5 --output mixed

    Example: embedtune merge sentence-transformers/all-MiniLM-L6-v2 runs/mine/model --choose-on data/cranfield
    --largest-drop 0.005 --output mixed

    --choose-on takes the largest alpha that keeps every dataset within --largest-drop. Half of the queries choose it,
    and the other half measure the result. A LoRA adapter stays an adapter, scaled by alpha, unless scaling does not
    mix it (PiSSA, DoRA): then the mixture is a whole model.
    """
    from embedtune.errors import InputError
    from embedtune.recipe import Model
    from embedtune.ship.merge import alpha_or_choice
    from embedtune.ship.merge import merge as write_mixture

    guard = {"largest_drop": largest_drop, "largest_flips": largest_flips, "measure": measure, "alphas": alphas}
    choice = alpha_or_choice(alpha, choose_on or (), guard, precision)
    if chunk_tokens is not None and not choose_on:
        raise InputError("--chunk-tokens has no effect without --choose-on")
    before, after = (
        Model(name=name, chunk_tokens=chunk_tokens, trust_remote_code=trust_remote_code) for name in (base, tuned)
    )
    merged = write_mixture(before, after, output, choice, overwrite=overwrite)
    sets = {
        label: {column: getattr(comparison, name) for column, name in COLUMNS.items()}
        for label, comparison in merged.sets.items()
    }
    if as_json:
        curve = [vars(point) for point in merged.points]
        show_json({"folder": str(merged.folder), "kind": merged.kind, "alpha": merged.alpha, "curve": curve,
                   "sets": sets})  # fmt: skip
        return
    if merged.points:
        labels = list(merged.points[0].sets)
        rows: list[list[object]] = [[p.alpha, *p.sets.values(), "yes" if p.fits else "no"] for p in merged.points]
        others = [[label, *values.values()] for label, values in sets.items()]
        show_tables(
            [
                ("Queries that choose alpha", ["alpha", *labels, "within budget"], rows),
                (f"The other queries, alpha {merged.alpha:g}", ["dataset", *COLUMNS], others),
            ]
        )
    say(f"written: {merged.folder}, the {merged.kind} with alpha {merged.alpha:g}")
